// Parsing and validation of safetensors headers. Nothing read here is trusted: see ParseSafetensorsHeader.
#include <algorithm>
#include <cstring>
#include <exception>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status.h"
#include "common/tensor/safetensors.h"

namespace seqpar {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the limit of the format's reference implementation
constexpr size_t kMaxRank = 64;
constexpr char kMetadataKey[] = "__metadata__";

absl::Status Refuse(const std::string& message) {
  return MakeError(absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
                   absl::StrCat("safetensors header: ", message));
}

// Names come from outside and may be megabytes long; messages must not be.
std::string Shown(const std::string& name) {
  constexpr size_t kShown = 200;
  return name.size() <= kShown ? absl::StrCat("\"", name, "\"")
                               : absl::StrCat("\"", name.substr(0, kShown), "...\"");
}

// Bits an element of every dtype that the format knows; 0 for any other name.
int BitsOf(const std::string& dtype) {
  static const auto* const bits = new std::map<std::string, int>{
      {"BOOL", 8},    {"F4", 4},          {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},   {"I8", 8},
      {"F8_E5M2", 8}, {"F8_E4M3", 8},     {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"I16", 16}, {"U16", 16},
      {"F16", 16},    {"F8_E5M2FNUZ", 8}, {"BF16", 16},   {"I32", 32},        {"U32", 32}, {"F32", 32},
      {"F64", 64},    {"I64", 64},        {"U64", 64},    {"C64", 64}};
  const auto it = bits->find(dtype);
  return it == bits->end() ? 0 : it->second;
}

struct RawTensor {
  std::string name;
  std::string dtype;
  std::vector<uint64_t> shape;
  std::vector<uint64_t> offsets;
};

// Receives the JSON token by token and accepts only the shape that a header may have:
// {"__metadata__": {string: string}, NAME: {"dtype": string, "shape": [..], "data_offsets": [begin, end]}}.
// No value is ever nested deeper than that, so depth and memory are bounded by the header's length. The
// functions' names and types are those of nlohmann's SAX interface; false stops the parser.
class HeaderReader {
 public:
  const std::string& error() const { return error_; }
  std::vector<RawTensor>& tensors() { return tensors_; }
  std::map<std::string, std::string>& metadata() { return metadata_; }

  bool start_object(size_t) {
    if (place_ == Place::kStart) return Go(Place::kRoot);
    if (place_ != Place::kTop) return Unexpected("an object");
    if (key_ == kMetadataKey) return Go(Place::kMetadata);
    tensors_.emplace_back();
    tensors_.back().name = key_;
    seen_fields_.clear();
    return Go(Place::kTensor);
  }

  bool key(std::string& name) {
    switch (place_) {
      case Place::kRoot:
        if (!names_.insert(name).second) return Fail(absl::StrCat("the name ", Shown(name), " occurs twice"));
        key_ = name;
        return Go(Place::kTop);
      case Place::kMetadata:
        if (metadata_.count(name) != 0) {
          return Fail(absl::StrCat("the key ", Shown(name), " occurs twice in __metadata__"));
        }
        field_ = name;
        return Go(Place::kMetadataValue);
      case Place::kTensor:
        if (!seen_fields_.insert(name).second) {
          return Fail(absl::StrCat("tensor ", Shown(key_), ": ", Shown(name), " occurs twice"));
        }
        field_ = name;
        if (name == "dtype") return Go(Place::kDType);
        if (name == "shape") return Go(Place::kShapeStart);
        if (name == "data_offsets") return Go(Place::kOffsetsStart);
        return Fail(absl::StrCat("tensor ", Shown(key_), ": unknown key ", Shown(name)));
      default:
        return Unexpected("a key");
    }
  }

  bool end_object() {
    if (place_ == Place::kRoot) return Go(Place::kEnd);
    if (place_ == Place::kTensor && seen_fields_.size() != 3) {
      return Fail(absl::StrCat("tensor ", Shown(key_), " needs dtype, shape and data_offsets"));
    }
    return Go(Place::kRoot);
  }

  bool start_array(size_t) {
    if (place_ == Place::kShapeStart) return Go(Place::kShape);
    if (place_ == Place::kOffsetsStart) return Go(Place::kOffsets);
    return Unexpected("an array");
  }

  bool end_array() {
    if (place_ == Place::kOffsets && tensors_.back().offsets.size() != 2) {
      return Fail(absl::StrCat("tensor ", Shown(key_), ": data_offsets must be two numbers"));
    }
    return Go(Place::kTensor);
  }

  bool number_unsigned(uint64_t value) {
    if (place_ == Place::kShape) {
      tensors_.back().shape.push_back(value);
      if (tensors_.back().shape.size() <= kMaxRank) return true;
      return Fail(absl::StrCat("tensor ", Shown(key_), " has more than ", kMaxRank, " dimensions"));
    }
    if (place_ == Place::kOffsets) {
      tensors_.back().offsets.push_back(value);
      if (tensors_.back().offsets.size() <= 2) return true;
      return Fail(absl::StrCat("tensor ", Shown(key_), ": data_offsets must be two numbers"));
    }
    return Unexpected("a number");
  }

  bool string(std::string& value) {
    if (place_ == Place::kMetadataValue) {
      metadata_[field_] = value;
      return Go(Place::kMetadata);
    }
    if (place_ != Place::kDType) return Unexpected("a string");
    tensors_.back().dtype = value;
    return Go(Place::kTensor);
  }

  bool number_integer(int64_t value) { return Unexpected(absl::StrCat("the negative number ", value)); }
  bool number_float(double, const std::string& text) {
    return Unexpected(absl::StrCat("the number ", text.substr(0, 40), ", which is no integer below 2^64"));
  }
  bool null() { return Unexpected("null"); }
  bool boolean(bool) { return Unexpected("a boolean"); }
  bool binary(json::binary_t&) { return Unexpected("binary data"); }

  bool parse_error(size_t position, const std::string&, const json::exception& e) {
    return Fail(absl::StrCat("not JSON at byte ", position, ": ", std::string(e.what()).substr(0, 300)));
  }

 private:
  enum class Place {
    kStart,          // before the outer object
    kRoot,           // in it, before a key or its end
    kTop,            // after a tensor's name or __metadata__
    kMetadata,       // in the metadata, before a key or its end
    kMetadataValue,  // after a key of the metadata
    kTensor,         // in a tensor, before a key or its end
    kDType,          // after "dtype"
    kShapeStart,     // after "shape"
    kShape,          // in its array
    kOffsetsStart,   // after "data_offsets"
    kOffsets,        // in its array
    kEnd,
  };

  bool Go(Place place) {
    place_ = place;
    return true;
  }
  bool Fail(std::string error) {
    error_ = std::move(error);
    return false;
  }
  bool Unexpected(const std::string& what) {
    switch (place_) {
      case Place::kStart:
        return Fail(absl::StrCat("must be a JSON object, not ", what));
      case Place::kTop:
        return Fail(absl::StrCat("the value of ", Shown(key_), " must be an object, not ", what));
      case Place::kMetadataValue:
        return Fail(
            absl::StrCat("__metadata__: the value of ", Shown(field_), " must be a string, not ", what));
      default:
        return Fail(absl::StrCat("tensor ", Shown(key_), ": ", Shown(field_), " must be ",
                                 place_ == Place::kDType ? "a string" : "an array of integers", ", not ",
                                 what));
    }
  }

  Place place_ = Place::kStart;
  std::string key_;    // name of the tensor being read, or __metadata__
  std::string field_;  // its key being read
  std::set<std::string> names_;
  std::set<std::string> seen_fields_;
  std::vector<RawTensor> tensors_;
  std::map<std::string, std::string> metadata_;
  std::string error_;
};

// The bytes that `tensor` must have by its dtype and shape.
absl::StatusOr<uint64_t> ExpectedBytes(const RawTensor& tensor) {
  const int bits = BitsOf(tensor.dtype);
  if (bits == 0)
    return Refuse(absl::StrCat("tensor ", Shown(tensor.name), ": unknown dtype ", Shown(tensor.dtype)));
  // Zeros are left out, so that the dimensions of an empty tensor cannot overflow anyone's strides either.
  uint64_t total_bits = static_cast<uint64_t>(bits);
  bool empty = false;
  for (uint64_t dimension : tensor.shape) {
    empty = empty || dimension == 0;
    if (dimension > 1 &&
        (__builtin_mul_overflow(total_bits, dimension, &total_bits) || total_bits > INT64_MAX)) {
      return Refuse(absl::StrCat("tensor ", Shown(tensor.name), ": its shape [",
                                 absl::StrJoin(tensor.shape, ", "), "] overflows"));
    }
  }
  if (empty) return 0;
  if (total_bits % 8 != 0) {
    return Refuse(absl::StrCat("tensor ", Shown(tensor.name), " does not end at a whole byte"));
  }
  return total_bits / 8;
}

// Checks that the tensors fill [0, data_bytes) without holes or overlaps, each with the bytes of its shape.
absl::Status CheckLayout(std::vector<RawTensor>* tensors, uint64_t data_bytes) {
  std::sort(tensors->begin(), tensors->end(), [](const RawTensor& a, const RawTensor& b) {
    return std::tie(a.offsets, a.name) < std::tie(b.offsets, b.name);
  });
  uint64_t filled = 0;
  for (const RawTensor& tensor : *tensors) {
    const uint64_t begin = tensor.offsets[0];
    const uint64_t end = tensor.offsets[1];
    const std::string where =
        absl::StrCat("tensor ", Shown(tensor.name), " at data_offsets [", begin, ", ", end, "]");
    if (begin > end) return Refuse(absl::StrCat(where, " ends before it begins"));
    if (end > data_bytes) {
      return Refuse(absl::StrCat(where, " runs past the file, which has ", data_bytes, " bytes of data"));
    }
    SEQPAR_ASSIGN_OR_RETURN(const uint64_t expected, ExpectedBytes(tensor));
    if (end - begin != expected) {
      return Refuse(absl::StrCat(where, " has ", end - begin, " bytes, but ", tensor.dtype, " [",
                                 absl::StrJoin(tensor.shape, ", "), "] takes ", expected));
    }
    if (begin < filled)
      return Refuse(absl::StrCat(where, " overlaps the tensor before it, which ends at ", filled));
    if (begin > filled)
      return Refuse(absl::StrCat("no tensor covers the data's bytes [", filled, ", ", begin, ")"));
    filled = end;
  }
  if (filled != data_bytes) {
    return Refuse(absl::StrCat("no tensor covers the data's bytes [", filled, ", ", data_bytes, ")"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<int64_t> SafetensorsHeaderBytes(const std::string& head, int64_t file_bytes) {
  if (file_bytes < 8 || head.size() < 8) {
    return Refuse(absl::StrCat("a file of ", file_bytes, " bytes is too short for a header"));
  }
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i)
    length = length << 8 | static_cast<unsigned char>(head[static_cast<size_t>(i)]);
  if (length > kMaxHeaderBytes) {
    return Refuse(absl::StrCat("its length ", length, " is above the limit of ", kMaxHeaderBytes, " bytes"));
  }
  if (length > static_cast<uint64_t>(file_bytes) - 8) {
    return Refuse(absl::StrCat("its length ", length, " runs past the file of ", file_bytes, " bytes"));
  }
  return static_cast<int64_t>(length) + 8;
}

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(const std::string& head, int64_t file_bytes) {
  SEQPAR_ASSIGN_OR_RETURN(const int64_t header_bytes, SafetensorsHeaderBytes(head, file_bytes));
  if (static_cast<uint64_t>(header_bytes) > head.size()) {
    return Refuse(absl::StrCat("truncated: ", head.size(), " of ", header_bytes, " bytes"));
  }
  const char* const first = head.data() + 8;
  const char* const last = head.data() + header_bytes;
  if (first == last || *first != '{') return Refuse("must be a JSON object that starts with '{'");
  // The JSON parser takes a NUL for the end of its input and would not see what follows.
  if (std::memchr(first, '\0', static_cast<size_t>(last - first)) != nullptr)
    return Refuse("contains a NUL byte");

  HeaderReader reader;
  if (!json::sax_parse(first, last, &reader)) return Refuse(reader.error());
  SEQPAR_RETURN_IF_ERROR(CheckLayout(&reader.tensors(), static_cast<uint64_t>(file_bytes - header_bytes)));

  SafetensorsHeader header;
  header.file_bytes = file_bytes;
  header.metadata = std::move(reader.metadata());
  for (RawTensor& raw : reader.tensors()) {
    const absl::StatusOr<DType> dtype = ParseSafetensorsDType(raw.dtype);
    if (!dtype.ok()) {
      header.other_dtypes.emplace(std::move(raw.name), std::move(raw.dtype));
      continue;
    }
    TensorInfo info;
    info.dtype = *dtype;
    info.shape.assign(raw.shape.begin(), raw.shape.end());
    info.offset = header_bytes + static_cast<int64_t>(raw.offsets[0]);
    info.bytes = static_cast<int64_t>(raw.offsets[1] - raw.offsets[0]);
    header.tensors.emplace(std::move(raw.name), std::move(info));
  }
  return header;
}

}  // namespace seqpar
