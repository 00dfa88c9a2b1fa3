// A file system of a test's own that is soon full.
#ifndef SEQPAR_TESTS_SUPPORT_SMALL_DISK_H_
#define SEQPAR_TESTS_SUPPORT_SMALL_DISK_H_

#include <sys/mount.h>

#include <string>

namespace seqpar {

// Mounted on a folder that is there, for as long as this lives: whatever has files in it goes before. Where
// the right to mount is missing, mounted() is false and the test is to be skipped, with kNeeds.
class SmallDisk {
 public:
  static constexpr char kNeeds[] = "a file system of a few megabytes needs the right to mount one";

  SmallDisk(const std::string& folder, int megabytes)
      : folder_(folder),
        mounted_(mount("tmpfs", folder.c_str(), "tmpfs", 0,
                       ("size=" + std::to_string(megabytes) + "m").c_str()) == 0) {}
  ~SmallDisk() {
    if (mounted_) umount2(folder_.c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  bool mounted() const { return mounted_; }

 private:
  const std::string folder_;
  const bool mounted_;
};

}  // namespace seqpar

#endif  // SEQPAR_TESTS_SUPPORT_SMALL_DISK_H_
