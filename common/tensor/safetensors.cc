// Reading and writing of safetensors files; headers are parsed in safetensors_header.cc.
#include "common/tensor/safetensors.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/check.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

// A JSON string literal. What is not UTF-8 becomes U+FFFD.
std::string Quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', /*ensure_ascii=*/false, nlohmann::json::error_handler_t::replace);
}

absl::Status IoError(const char* what, int error, int64_t bytes, int64_t offset) {
  const bool full = error == ENOSPC || error == EDQUOT || error == EFBIG;
  return MakeError(full ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kInternal,
                   reason::kStorage,
                   absl::StrCat(what, " of ", bytes, " bytes at offset ", offset, ": ",
                                std::generic_category().message(error)));
}

}  // namespace

int64_t TensorInfo::elements() const {
  int64_t n = 1;
  for (int64_t dimension : shape) n *= dimension;
  return n;
}

absl::StatusOr<TensorInfo> SafetensorsHeader::Find(const std::string& name) const {
  const auto it = tensors.find(name);
  if (it != tensors.end()) return it->second;
  const auto other = other_dtypes.find(name);
  if (other == other_dtypes.end()) {
    return MakeError(absl::StatusCode::kNotFound, reason::kNotFound,
                     absl::StrCat("no tensor \"", name, "\""));
  }
  return Annotate(ParseSafetensorsDType(other->second).status(), absl::StrCat("tensor \"", name, "\""));
}

absl::StatusOr<SafetensorsHeader> ReadSafetensorsHeader(int fd) {
  struct stat info;
  if (fstat(fd, &info) != 0) return IoError("fstat", errno, 0, 0);
  if (!S_ISREG(info.st_mode)) {
    return MakeError(absl::StatusCode::kInvalidArgument, reason::kInvalidArgument, "not a regular file");
  }
  std::string head(static_cast<size_t>(std::min<int64_t>(info.st_size, 8)), '\0');
  SEQPAR_RETURN_IF_ERROR(PreadAll(fd, head.data(), static_cast<int64_t>(head.size()), 0));
  SEQPAR_ASSIGN_OR_RETURN(const int64_t header_bytes, SafetensorsHeaderBytes(head, info.st_size));
  head.resize(static_cast<size_t>(header_bytes));
  SEQPAR_RETURN_IF_ERROR(PreadAll(fd, head.data() + 8, header_bytes - 8, 8));
  return ParseSafetensorsHeader(head, info.st_size);
}

std::string BuildSafetensorsHeader(const std::vector<NamedTensorShape>& tensors,
                                   const std::map<std::string, std::string>& metadata,
                                   SafetensorsHeader* layout) {
  *layout = SafetensorsHeader();
  layout->metadata = metadata;
  std::vector<std::string> entries;
  if (!metadata.empty()) {
    const std::string pairs = absl::StrJoin(metadata, ",", [](std::string* out, const auto& entry) {
      absl::StrAppend(out, Quoted(entry.first), ":", Quoted(entry.second));
    });
    entries.push_back(absl::StrCat("\"__metadata__\":{", pairs, "}"));
  }
  int64_t end = 0;
  for (const NamedTensorShape& tensor : tensors) {
    TensorInfo info;
    info.dtype = tensor.dtype;
    info.shape = tensor.shape;
    info.offset = end;
    info.bytes = info.elements() * SizeOf(tensor.dtype);
    end += info.bytes;
    entries.push_back(absl::StrCat(Quoted(tensor.name), ":{\"dtype\":\"", SafetensorsName(tensor.dtype),
                                   "\",\"shape\":[", absl::StrJoin(tensor.shape, ","), "],\"data_offsets\":[",
                                   info.offset, ",", end, "]}"));
    SEQPAR_CHECK(tensor.name != "__metadata__");
    SEQPAR_CHECK(layout->tensors.emplace(tensor.name, std::move(info)).second);
  }
  std::string text = absl::StrCat("{", absl::StrJoin(entries, ","), "}");
  text.resize((text.size() + 7) / 8 * 8, ' ');

  std::string head;
  for (int i = 0; i < 8; ++i) head.push_back(static_cast<char>(text.size() >> (8 * i) & 0xff));
  head += text;
  const int64_t header_bytes = static_cast<int64_t>(head.size());
  for (auto& entry : layout->tensors) entry.second.offset += header_bytes;
  layout->file_bytes = header_bytes + end;
  return head;
}

absl::Status PreadAll(int fd, void* data, int64_t bytes, int64_t offset) {
  char* to = static_cast<char*>(data);
  for (int64_t done = 0; done < bytes;) {
    const ssize_t n = pread(fd, to + done, static_cast<size_t>(bytes - done), offset + done);
    if (n > 0) {
      done += n;
    } else if (n == 0) {
      return MakeError(absl::StatusCode::kDataLoss, reason::kStorage,
                       absl::StrCat("the file ends ", bytes - done, " bytes before the end of a read of ",
                                    bytes, " at offset ", offset));
    } else if (errno != EINTR) {
      return IoError("read", errno, bytes, offset);
    }
  }
  return absl::OkStatus();
}

absl::Status PwriteAll(int fd, const void* data, int64_t bytes, int64_t offset) {
  const char* from = static_cast<const char*>(data);
  for (int64_t done = 0; done < bytes;) {
    const ssize_t n = pwrite(fd, from + done, static_cast<size_t>(bytes - done), offset + done);
    if (n >= 0) {
      done += n;
    } else if (errno != EINTR) {
      return IoError("write", errno, bytes, offset);
    }
  }
  return absl::OkStatus();
}

}  // namespace seqpar
