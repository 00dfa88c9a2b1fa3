#include "worker/comm/ucx/peer_address.h"

#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/netstring.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

// First field of every blob: names the format and its edition.
constexpr char kMagic[] = "seqpar-ucx-1";

absl::Status Malformed() {
  return MakeError(absl::StatusCode::kFailedPrecondition, reason::kBootstrapMismatch,
                   "not an address of this transport");
}

// Fields are netstrings.
bool TakeFields(const std::string& blob, std::vector<std::string>* fields) {
  std::string field;
  for (size_t at = 0; at < blob.size();) {
    if (!TakeNetstring(blob, &at, &field)) return false;
    fields->push_back(field);
  }
  return true;
}

std::string FirstLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

}  // namespace

int64_t ProcessStartTicks(int64_t pid) {
  const std::string stat = FirstLine(absl::StrCat("/proc/", pid, "/stat"));
  // The name, second field, may hold anything; the start is the 20th field after its closing bracket.
  const size_t name_end = stat.rfind(')');
  if (name_end == std::string::npos) return -1;
  std::istringstream rest(stat.substr(name_end + 1));
  std::string field;
  for (int i = 0; i < 20; ++i) rest >> field;
  int64_t ticks = -1;
  return absl::SimpleAtoi(field, &ticks) ? ticks : -1;
}

ProcessIdentity ProcessIdentity::Self() {
  ProcessIdentity self;
  self.machine = FirstLine("/proc/sys/kernel/random/boot_id");
  // The kernel tells start times by the reader's time namespace.
  for (const char* space : {"/proc/self/ns/pid", "/proc/self/ns/time"}) {
    struct stat info {};
    absl::StrAppend(&self.machine, "/", stat(space, &info) == 0 ? info.st_ino : 0);
  }
  self.pid = getpid();
  self.start_ticks = ProcessStartTicks(self.pid);
  return self;
}

std::string PeerAddress::Serialize() const {
  std::string blob;
  for (const std::string& field : {std::string(kMagic), version, interface, process.machine,
                                   absl::StrCat(process.pid), absl::StrCat(process.start_ticks), address}) {
    AppendNetstring(field, &blob);
  }
  return blob;
}

absl::StatusOr<PeerAddress> PeerAddress::Parse(const std::string& blob) {
  std::vector<std::string> fields;
  if (!TakeFields(blob, &fields) || fields.size() != 7 || fields[0] != kMagic) return Malformed();
  PeerAddress peer;
  peer.version = fields[1];
  peer.interface = fields[2];
  peer.process.machine = fields[3];
  if (!absl::SimpleAtoi(fields[4], &peer.process.pid)) return Malformed();
  if (!absl::SimpleAtoi(fields[5], &peer.process.start_ticks)) return Malformed();
  peer.address = fields[6];
  if (peer.address.empty()) return Malformed();
  return peer;
}

}  // namespace seqpar
