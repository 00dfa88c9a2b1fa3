// Ownership of a file descriptor.
#ifndef SEQPAR_COMMON_BASE_FD_H_
#define SEQPAR_COMMON_BASE_FD_H_

#include <unistd.h>

#include <utility>

namespace seqpar {

// Owns one descriptor and closes it; -1 owns nothing. Move-only, not thread-safe. Errors of close(2) are lost
// here: who writes a file calls fsync before.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.Release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) Reset(other.Release());
    return *this;
  }
  ~UniqueFd() { Reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  // Gives the descriptor up without closing it.
  int Release() { return std::exchange(fd_, -1); }
  // Closes what is owned and owns `fd` from now on.
  void Reset(int fd = -1) {
    if (fd_ >= 0) close(fd_);
    fd_ = fd;
  }

 private:
  int fd_ = -1;
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_BASE_FD_H_
