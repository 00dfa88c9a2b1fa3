#include "common/tensor/safetensors.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>

#include "common/base/fd.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::SizeIs;

// A file with this header and `data_bytes` bytes of data.
std::string File(const std::string& json, size_t data_bytes) {
  std::string file;
  for (int i = 0; i < 8; ++i) file.push_back(static_cast<char>(json.size() >> (8 * i) & 0xff));
  return file + json + std::string(data_bytes, 'd');
}

absl::StatusOr<SafetensorsHeader> Parse(const std::string& file) {
  return ParseSafetensorsHeader(file, static_cast<int64_t>(file.size()));
}

// Byte for byte what version 0.8.0 of the Python package wrote for
// {b: float32 [2,3], a: int64 [2], e: float32 [0,4], s: float64 [], h: float16 [2]} with metadata.
std::string PythonFile() {
  const std::string json =
      "{\"__metadata__\":{\"k\":\"v\\\"\xc3\xa9\",\"format\":\"np\"},"
      "\"a\":{\"dtype\":\"I64\",\"shape\":[2],\"data_offsets\":[0,16]},"
      "\"s\":{\"dtype\":\"F64\",\"shape\":[],\"data_offsets\":[16,24]},"
      "\"b\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[24,48]},"
      "\"e\":{\"dtype\":\"F32\",\"shape\":[0,4],\"data_offsets\":[48,48]},"
      "\"h\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[48,52]}}       ";
  const std::string data(
      "\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0"
      "\0\0\0\0\0\0\x04@"
      "\0\0\0\0\0\0\x80?\0\0\0@\0\0@@\0\0\x80@\0\0\xa0@"
      "\0<\0\xc0",
      52);
  return std::string("H\x01\0\0\0\0\0\0", 8) + json + data;
}

TEST(ParseSafetensorsHeader, ReadsAFileOfThePythonPackage) {
  const std::string file = PythonFile();
  ASSERT_EQ(file.size(), 388u);
  const absl::StatusOr<SafetensorsHeader> header = Parse(file);
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->file_bytes, 388);
  EXPECT_THAT(header->metadata, ElementsAre(Pair("format", "np"), Pair("k", "v\"\xc3\xa9")));
  EXPECT_THAT(header->tensors, SizeIs(4));
  EXPECT_THAT(header->other_dtypes, ElementsAre(Pair("a", "I64")));

  const TensorInfo b = *header->Find("b");
  EXPECT_EQ(b.dtype, DType::kF32);
  EXPECT_THAT(b.shape, ElementsAre(2, 3));
  EXPECT_EQ(b.bytes, 24);
  EXPECT_EQ(b.elements(), 6);
  float values[6];
  ConvertElements(file.data() + b.offset, b.dtype, values, DType::kF32, 6);
  EXPECT_THAT(values, ElementsAre(0, 1, 2, 3, 4, 5));

  const TensorInfo s = *header->Find("s");
  EXPECT_THAT(s.shape, IsEmpty());
  EXPECT_EQ(s.elements(), 1);
  double scalar;
  ConvertElements(file.data() + s.offset, s.dtype, &scalar, DType::kF64, 1);
  EXPECT_EQ(scalar, 2.5);

  const TensorInfo e = *header->Find("e");
  EXPECT_EQ(e.bytes, 0);
  EXPECT_EQ(e.elements(), 0);
  EXPECT_EQ(header->Find("h")->dtype, DType::kF16);
}

TEST(SafetensorsHeader, FindRefusesByName) {
  const SafetensorsHeader header = *Parse(PythonFile());
  EXPECT_EQ(header.Find("nope").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(header.Find("nope").status().message()), HasSubstr("nope"));
  EXPECT_EQ(header.Find("a").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(header.Find("a").status().message()), HasSubstr("tensor \"a\": dtype \"I64\""));
}

TEST(ParseSafetensorsHeader, EveryTruncationIsRefused) {
  const std::string file = PythonFile();
  for (size_t n = 0; n < file.size(); ++n) {
    const absl::StatusOr<SafetensorsHeader> cut = Parse(file.substr(0, n));
    ASSERT_EQ(cut.status().code(), absl::StatusCode::kInvalidArgument) << n;
    // The same when only what was read is short, not the file; with the whole header read it is no error.
    const absl::StatusOr<SafetensorsHeader> head =
        ParseSafetensorsHeader(file.substr(0, n), static_cast<int64_t>(file.size()));
    ASSERT_EQ(head.ok(), n >= 336) << n << " " << head.status();
  }
}

TEST(ParseSafetensorsHeader, WhateverIsAcceptedLiesInTheFile) {
  const std::string file = PythonFile();
  const std::string values("\0 \"{]09-\x7f\xff", 10);
  int refused = 0;
  for (size_t at = 0; at < 336; ++at) {
    for (char value : values) {
      std::string broken = file;
      broken[at] = value;
      const absl::StatusOr<SafetensorsHeader> header = Parse(broken);
      if (!header.ok()) {
        ++refused;
        continue;
      }
      for (const auto& entry : header->tensors) {
        const TensorInfo& info = entry.second;
        ASSERT_GE(info.offset, 336);
        ASSERT_LE(info.offset + info.bytes, header->file_bytes);
        ASSERT_EQ(info.bytes, info.elements() * SizeOf(info.dtype));
      }
    }
  }
  EXPECT_GT(refused, 2000);
}

std::string Tensor(const std::string& name, const std::string& dtype, const std::string& shape,
                   const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets +
         "}";
}

TEST(ParseSafetensorsHeader, TakesWhatIsLegal) {
  const struct {
    std::string json;
    size_t data;
    size_t tensors;
  } cases[] = {
      {"{}", 0, 0},
      {"{}      ", 0, 0},
      {"{\"__metadata__\":{}}", 0, 0},
      {"{" + Tensor("a", "F32", "[2]", "[0,8]") + "}", 8, 1},
      {"{ \"a\" : {\"data_offsets\":[0,8],\n\"shape\":[1,1],\"dtype\":\"F64\"} }", 8, 1},
      {"{" + Tensor("b", "F32", "[1]", "[4,8]") + "," + Tensor("a", "BF16", "[2]", "[0,4]") + "}", 8, 2},
      {"{" + Tensor("a", "F32", "[0]", "[0,0]") + "}", 0, 1},
      {"{" + Tensor("a", "F32", "[1]", "[0,4]") + "," + Tensor("z", "F32", "[3,0]", "[4,4]") + "," +
           Tensor("y", "F16", "[0]", "[4,4]") + "," + Tensor("b", "F32", "[1]", "[4,8]") + "}",
       8, 4},
      {"{" + Tensor("a", "F4", "[4]", "[0,2]") + "," + Tensor("b", "BOOL", "[3]", "[2,5]") + "}", 5, 0},
      {"{" + Tensor("", "F16", "[]", "[0,2]") + "}", 2, 1},
      {"{" + Tensor("\\u00e9\\n", "F16", "[]", "[0,2]") + "}", 2, 1},
      {"{\"__metadata__\":{\"dtype\":\"x\",\"\":\"\"}," + Tensor("dtype", "F16", "[]", "[0,2]") + "}", 2, 1},
  };
  for (const auto& c : cases) {
    const absl::StatusOr<SafetensorsHeader> header = Parse(File(c.json, c.data));
    ASSERT_TRUE(header.ok()) << c.json << ": " << header.status();
    EXPECT_EQ(header->tensors.size(), c.tensors) << c.json;
  }
}

TEST(ParseSafetensorsHeader, RefusesHostileHeaders) {
  const std::string f32_4 = Tensor("a", "F32", "[1]", "[0,4]");
  std::string deep_arrays(100'000, '[');
  std::string deep_objects;
  for (int i = 0; i < 100'000; ++i) deep_objects += "{\"a\":";
  std::string many_dimensions = "[1";
  for (int i = 0; i < 100; ++i) many_dimensions += ",1";
  many_dimensions += "]";

  const struct {
    std::string json;
    size_t data;
    const char* message;
  } cases[] = {
      // Not the JSON of a header
      {"", 0, "must be a JSON object"},
      {" {}", 0, "starts with '{'"},
      {"\xef\xbb\xbf{}", 0, "starts with '{'"},
      {"[]", 0, "must be a JSON object"},
      {"null", 0, "must be a JSON object"},
      {"{", 0, "not JSON at byte"},
      {"{}}", 0, "not JSON at byte"},
      {"{} x", 0, "not JSON at byte"},
      {"{},", 0, "not JSON at byte"},
      {std::string("{}\0\0\0\0\0\0", 8), 0, "NUL"},
      {std::string("{}\0garbage", 10), 0, "NUL"},
      {"{\"a\"}", 0, "not JSON at byte"},
      {"{'a':1}", 0, "not JSON at byte"},
      {"{\"\xff\":{}}", 0, "not JSON at byte"},
      {"{\"a\\ud800\":{}}", 0, "not JSON at byte"},
      {"{/* c */}", 0, "not JSON at byte"},
      {"{\"a\":" + deep_arrays, 0, "must be an object, not an array"},
      {deep_objects, 0, "unknown key \"a\""},
      {"{\"a\":{\"shape\":" + deep_arrays, 0, "must be an array of integers, not an array"},
      {"{\"__metadata__\":" + deep_objects, 0, "must be a string, not an object"},
      // Wrong types
      {"{\"a\":1}", 0, "the value of \"a\" must be an object, not a number"},
      {"{\"a\":null}", 0, "must be an object, not null"},
      {"{\"__metadata__\":[]}", 0, "must be an object, not an array"},
      {"{\"__metadata__\":{\"k\":1}}", 0, "must be a string, not a number"},
      {"{\"__metadata__\":{\"k\":null}}", 0, "must be a string, not null"},
      {"{" + Tensor("a", "F32", "4", "[0,4]") + "}", 4,
       "\"shape\" must be an array of integers, not a number"},
      {"{" + Tensor("a", "F32", "[\"1\"]", "[0,4]") + "}", 4, "not a string"},
      {"{" + Tensor("a", "F32", "[true]", "[0,4]") + "}", 4, "not a boolean"},
      {"{" + Tensor("a", "F32", "[1.0]", "[0,4]") + "}", 4, "1.0, which is no integer"},
      {"{" + Tensor("a", "F32", "[1e400]", "[0,4]") + "}", 4, "not JSON at byte"},
      {"{" + Tensor("a", "F32", "[-1]", "[0,4]") + "}", 4, "the negative number -1"},
      {"{" + Tensor("a", "F32", "[1]", "[-4,0]") + "}", 4, "the negative number -4"},
      {"{" + Tensor("a", "F32", "[18446744073709551616]", "[0,4]") + "}", 4, "no integer below 2^64"},
      {"{\"a\":{\"dtype\":5,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "\"dtype\" must be a string"},
      // Missing, unknown and repeated keys
      {"{\"a\":{}}", 0, "needs dtype, shape and data_offsets"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "needs dtype, shape and data_offsets"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"strides\":[1]}}", 4,
       "unknown key \"strides\""},
      {"{" + f32_4 + "," + Tensor("a", "F32", "[1]", "[4,8]") + "}", 8, "the name \"a\" occurs twice"},
      {"{" + f32_4 + "," + Tensor("\\u0061", "F32", "[1]", "[4,8]") + "}", 8, "the name \"a\" occurs twice"},
      {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "occurs twice"},
      {"{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", 0, "\"k\" occurs twice in __metadata__"},
      {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
       "\"dtype\" occurs twice"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
       "\"shape\" occurs twice"},
      // Dtypes
      {"{" + Tensor("a", "F33", "[1]", "[0,4]") + "}", 4, "unknown dtype \"F33\""},
      {"{" + Tensor("a", "f32", "[1]", "[0,4]") + "}", 4, "unknown dtype \"f32\""},
      {"{" + Tensor("a", "F4", "[3]", "[0,2]") + "}", 2, "whole byte"},
      {"{" + Tensor("a", "I64", "[1]", "[0,4]") + "}", 4, "has 4 bytes, but I64 [1] takes 8"},
      // Shapes
      {"{" + Tensor("a", "F32", "[2]", "[0,4]") + "}", 4, "has 4 bytes, but F32 [2] takes 8"},
      {"{" + Tensor("a", "F32", "[0]", "[0,4]") + "}", 4, "takes 0"},
      {"{" + Tensor("a", "F32", "[4294967296,4294967296]", "[0,4]") + "}", 4, "overflows"},
      {"{" + Tensor("a", "F32", "[4611686018427387904,4]", "[0,4]") + "}", 4, "overflows"},
      {"{" + Tensor("a", "F32", "[18446744073709551615]", "[0,4]") + "}", 4, "overflows"},
      {"{" + Tensor("a", "F32", "[0,4294967296,4294967296]", "[0,0]") + "}", 0, "overflows"},
      {"{" + Tensor("a", "F32", many_dimensions, "[0,4]") + "}", 4, "more than 64 dimensions"},
      // Offsets
      {"{" + Tensor("a", "F32", "[1]", "[]") + "}", 4, "must be two numbers"},
      {"{" + Tensor("a", "F32", "[1]", "[0]") + "}", 4, "must be two numbers"},
      {"{" + Tensor("a", "F32", "[1]", "[0,4,8]") + "}", 4, "must be two numbers"},
      {"{" + Tensor("a", "F32", "[1]", "[4,0]") + "}", 4, "ends before it begins"},
      {"{" + Tensor("a", "F32", "[2]", "[0,8]") + "}", 7, "runs past the file"},
      {"{" + Tensor("a", "F32", "[1]", "[18446744073709551612,18446744073709551615]") + "}", 4,
       "runs past the file"},
      {"{" + f32_4 + "," + Tensor("b", "F32", "[1]", "[0,4]") + "}", 8,
       "tensor \"b\" at data_offsets [0, 4] overlaps"},
      {"{" + f32_4 + "," + Tensor("b", "F32", "[2]", "[2,10]") + "}", 10, "overlaps"},
      {"{" + Tensor("a", "F32", "[2]", "[0,8]") + "," + Tensor("z", "F32", "[0]", "[4,4]") + "}", 8,
       "overlaps"},
      {"{" + f32_4 + "," + Tensor("b", "F32", "[1]", "[8,12]") + "}", 12,
       "no tensor covers the data's bytes [4, 8)"},
      {"{" + Tensor("a", "F32", "[1]", "[4,8]") + "}", 8, "no tensor covers the data's bytes [0, 4)"},
      {"{" + f32_4 + "}", 5, "no tensor covers the data's bytes [4, 5)"},
      {"{}", 1, "no tensor covers the data's bytes [0, 1)"},
  };
  for (const auto& c : cases) {
    const absl::StatusOr<SafetensorsHeader> header = Parse(File(c.json, c.data));
    ASSERT_FALSE(header.ok()) << c.json.substr(0, 200);
    EXPECT_EQ(header.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(ReasonOf(header.status()), reason::kInvalidArgument);
    EXPECT_THAT(std::string(header.status().message()), HasSubstr(c.message)) << c.json.substr(0, 200);
    EXPECT_LT(header.status().message().size(), 1000u) << c.json.substr(0, 200);
  }
}

TEST(ParseSafetensorsHeader, RefusesLengthsThatCannotBe) {
  const auto with_length = [](uint64_t length, int64_t file_bytes) {
    std::string head;
    for (int i = 0; i < 8; ++i) head.push_back(static_cast<char>(length >> (8 * i) & 0xff));
    return std::string(ParseSafetensorsHeader(head + "{}", file_bytes).status().message());
  };
  EXPECT_THAT(with_length(100'000'001, int64_t{1} << 40), HasSubstr("above the limit of 100000000"));
  EXPECT_THAT(with_length(~uint64_t{0}, int64_t{1} << 40), HasSubstr("above the limit"));
  EXPECT_THAT(with_length(100'000'000, int64_t{1} << 40), HasSubstr("truncated: 10 of 100000008"));
  EXPECT_THAT(with_length(3, 10), HasSubstr("runs past the file of 10 bytes"));
  EXPECT_THAT(with_length(0, 10), HasSubstr("must be a JSON object"));
  EXPECT_THAT(with_length(2, 7), HasSubstr("too short"));
  EXPECT_THAT(with_length(2, -1), HasSubstr("too short"));
}

TEST(ParseSafetensorsHeader, MessagesDoNotRepeatHugeNames) {
  const std::string name(1'000'000, 'n');
  const auto header = Parse(File("{" + Tensor(name, "F32", "[2]", "[0,4]") + "}", 4));
  ASSERT_FALSE(header.ok());
  EXPECT_LT(header.status().message().size(), 500u);
}

TEST(BuildSafetensorsHeader, LaysOutInOrderPaddedAndDeterministic) {
  SafetensorsHeader layout;
  const std::vector<NamedTensorShape> tensors = {{"b", DType::kF32, {2, 3}},
                                                 {"a\"\n", DType::kBF16, {5}},
                                                 {"none", DType::kF32, {0, 7}},
                                                 {"s", DType::kF64, {}}};
  const std::string head = BuildSafetensorsHeader(tensors, {{"z", "1"}, {"a", "2"}}, &layout);
  EXPECT_EQ(head.size() % 8, 0u);
  EXPECT_EQ(head.substr(8).find(
                "{\"__metadata__\":{\"a\":\"2\",\"z\":\"1\"},\"b\":{\"dtype\":\"F32\",\"shape\":[2,3],"
                "\"data_offsets\":[0,24]},\"a\\\"\\n\":"),
            0u)
      << head;
  const int64_t data = static_cast<int64_t>(head.size());
  EXPECT_EQ(layout.file_bytes, data + 24 + 10 + 8);
  EXPECT_EQ(layout.tensors.at("b").offset, data);
  EXPECT_EQ(layout.tensors.at("a\"\n").offset, data + 24);
  EXPECT_EQ(layout.tensors.at("none").bytes, 0);
  EXPECT_EQ(layout.tensors.at("s").offset, data + 34);

  const absl::StatusOr<SafetensorsHeader> parsed = ParseSafetensorsHeader(head, layout.file_bytes);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->metadata, layout.metadata);
  ASSERT_EQ(parsed->tensors.size(), 4u);
  for (const auto& entry : layout.tensors) {
    const TensorInfo& back = parsed->tensors.at(entry.first);
    EXPECT_EQ(back.dtype, entry.second.dtype);
    EXPECT_EQ(back.shape, entry.second.shape);
    EXPECT_EQ(back.offset, entry.second.offset);
    EXPECT_EQ(back.bytes, entry.second.bytes);
  }
  SafetensorsHeader again;
  EXPECT_EQ(BuildSafetensorsHeader(tensors, {{"a", "2"}, {"z", "1"}}, &again), head);
}

TEST(BuildSafetensorsHeader, OfNothingIsWhatThePythonPackageWrites) {
  SafetensorsHeader layout;
  EXPECT_EQ(BuildSafetensorsHeader({}, {}, &layout), std::string("\x08\0\0\0\0\0\0\0{}      ", 16));
  EXPECT_EQ(layout.file_bytes, 16);
}

TEST(BuildSafetensorsHeaderDeathTest, RefusesRepeatedNames) {
  SafetensorsHeader layout;
  EXPECT_DEATH(BuildSafetensorsHeader({{"a", DType::kF32, {1}}, {"a", DType::kF32, {1}}}, {}, &layout),
               "check failed");
  EXPECT_DEATH(BuildSafetensorsHeader({{"__metadata__", DType::kF32, {1}}}, {}, &layout), "check failed");
}

UniqueFd TemporaryFile(const std::string& content) {
  std::string pattern = (std::filesystem::temp_directory_path() / "seqpar-safetensors-XXXXXX").string();
  UniqueFd fd(mkstemp(pattern.data()));
  EXPECT_TRUE(fd.valid());
  unlink(pattern.c_str());
  EXPECT_TRUE(PwriteAll(fd.get(), content.data(), static_cast<int64_t>(content.size()), 0).ok());
  return fd;
}

TEST(ReadSafetensorsHeader, ReadsAFile) {
  const UniqueFd fd = TemporaryFile(PythonFile());
  const absl::StatusOr<SafetensorsHeader> header = ReadSafetensorsHeader(fd.get());
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->file_bytes, 388);
  EXPECT_THAT(header->tensors, SizeIs(4));
}

TEST(ReadSafetensorsHeader, RefusesWhatIsNoSuchFile) {
  EXPECT_THAT(std::string(ReadSafetensorsHeader(TemporaryFile("").get()).status().message()),
              HasSubstr("too short"));
  EXPECT_THAT(std::string(ReadSafetensorsHeader(TemporaryFile("1234567").get()).status().message()),
              HasSubstr("too short"));
  // A length of 100 MB in a file of 9 bytes is refused before anything of that size is allocated.
  const std::string huge("\x00\xe1\xf5\x05\0\0\0\0{", 9);
  EXPECT_THAT(std::string(ReadSafetensorsHeader(TemporaryFile(huge).get()).status().message()),
              HasSubstr("runs past the file of 9 bytes"));
  const UniqueFd folder(open("/", O_RDONLY | O_DIRECTORY));
  EXPECT_EQ(ReadSafetensorsHeader(folder.get()).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReadSafetensorsHeader(-1).status().code(), absl::StatusCode::kInternal);
}

TEST(PreadAll, EndOfFileIsDataLoss) {
  const UniqueFd fd = TemporaryFile("0123456789");
  char data[11];
  ASSERT_TRUE(PreadAll(fd.get(), data, 4, 6).ok());
  EXPECT_EQ(std::string(data, 4), "6789");
  EXPECT_TRUE(PreadAll(fd.get(), nullptr, 0, 100).ok());
  const absl::Status past = PreadAll(fd.get(), data, 5, 6);
  EXPECT_EQ(past.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(ReasonOf(past), reason::kStorage);
  EXPECT_THAT(std::string(past.message()), HasSubstr("ends 1 bytes before"));
  EXPECT_EQ(PreadAll(-1, data, 1, 0).code(), absl::StatusCode::kInternal);
}

TEST(PwriteAll, AFullDiskIsResourceExhausted) {
  const UniqueFd full(open("/dev/full", O_WRONLY));
  ASSERT_TRUE(full.valid());
  const absl::Status status = PwriteAll(full.get(), "x", 1, 0);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(status), reason::kStorage);
  const UniqueFd read_only(open("/dev/null", O_RDONLY));
  EXPECT_EQ(PwriteAll(read_only.get(), "x", 1, 0).code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace seqpar
