// A store that fails where a test arms a failpoint around one of its transactions.
#ifndef SEQPAR_COORDINATOR_STORE_FAULTY_STORE_H_
#define SEQPAR_COORDINATOR_STORE_FAULTY_STORE_H_

#include <memory>

#include "coordinator/store/store.h"

namespace seqpar {

// Does what `store` does; around a write lie the failpoints of what is in its batch. An error is one before
// the transaction; a lost response is one after it: written, but said not to be.
std::unique_ptr<Store> MakeFaultyStore(std::unique_ptr<Store> store);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_STORE_FAULTY_STORE_H_
