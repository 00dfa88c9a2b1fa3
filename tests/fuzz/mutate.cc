#include "tests/fuzz/mutate.h"

#include <google/protobuf/descriptor.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <vector>

namespace seqpar {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

constexpr int kDepthMax = 12;
constexpr int kRepeatedMax = 64;

class Mutator {
 public:
  Mutator(uint32_t seed, Message* root) : random_(seed), root_(root) {}

  void Change() {
    nodes_.clear();
    strings_.clear();
    integers_.clear();
    Collect(root_, 0);
    Message* node = nodes_[Below(nodes_.size())];
    const Descriptor* type = node->GetDescriptor();
    if (type->field_count() == 0) return;
    std::vector<const FieldDescriptor*> set;
    node->GetReflection()->ListFields(*node, &set);
    // What is there is worth more changes than what could be.
    const FieldDescriptor* field = !set.empty() && Chance(2, 3)
                                       ? set[Below(set.size())]
                                       : type->field(static_cast<int>(Below(type->field_count())));
    if (field->is_repeated()) {
      ChangeList(node, field);
    } else {
      ChangeOne(node, field);
    }
  }

 private:
  uint64_t Below(uint64_t end) { return std::uniform_int_distribution<uint64_t>(0, end - 1)(random_); }
  bool Chance(uint64_t part, uint64_t of) { return Below(of) < part; }

  // Every message within `message` that is set, and the values that its fields have.
  void Collect(Message* message, int depth) {
    nodes_.push_back(message);
    if (depth == kDepthMax) return;
    const Reflection* reflection = message->GetReflection();
    std::vector<const FieldDescriptor*> fields;
    reflection->ListFields(*message, &fields);
    for (const FieldDescriptor* field : fields) {
      const int count = field->is_repeated() ? reflection->FieldSize(*message, field) : 1;
      for (int i = 0; i < count; ++i) {
        if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
          Collect(field->is_repeated() ? reflection->MutableRepeatedMessage(message, field, i)
                                       : reflection->MutableMessage(message, field),
                  depth + 1);
        } else if (field->type() == FieldDescriptor::TYPE_STRING) {
          strings_.push_back(field->is_repeated() ? reflection->GetRepeatedString(*message, field, i)
                                                  : reflection->GetString(*message, field));
        } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_INT64) {
          integers_.push_back(field->is_repeated() ? reflection->GetRepeatedInt64(*message, field, i)
                                                   : reflection->GetInt64(*message, field));
        } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_INT32) {
          integers_.push_back(field->is_repeated() ? reflection->GetRepeatedInt32(*message, field, i)
                                                   : reflection->GetInt32(*message, field));
        }
      }
    }
  }

  // A copy of a message of that type from elsewhere; null: there is none.
  std::unique_ptr<Message> Elsewhere(const Descriptor* type) {
    std::vector<const Message*> alike;
    for (const Message* node : nodes_) {
      if (node->GetDescriptor() == type) alike.push_back(node);
    }
    if (alike.empty()) return nullptr;
    const Message* chosen = alike[Below(alike.size())];
    std::unique_ptr<Message> copy(chosen->New());
    copy->CopyFrom(*chosen);
    return copy;
  }

  void ChangeList(Message* message, const FieldDescriptor* field) {
    const Reflection* reflection = message->GetReflection();
    const int size = reflection->FieldSize(*message, field);
    const uint64_t what = Below(6);
    if (size == 0 || (what <= 1 && size < kRepeatedMax)) return AddElement(message, field);
    const int at = static_cast<int>(Below(size));
    if (what == 2) {
      reflection->SwapElements(message, field, at, size - 1);
      reflection->RemoveLast(message, field);
    } else if (what == 3) {
      reflection->SwapElements(message, field, at, static_cast<int>(Below(size)));
    } else if (what == 4 && Chance(1, 8)) {
      reflection->ClearField(message, field);
    } else {
      SetElement(message, field, at);
    }
  }

  void AddElement(Message* message, const FieldDescriptor* field) {
    const Reflection* reflection = message->GetReflection();
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        return reflection->AddInt32(message, field, static_cast<int32_t>(Integer(0)));
      case FieldDescriptor::CPPTYPE_INT64:
        return reflection->AddInt64(message, field, Integer(0));
      case FieldDescriptor::CPPTYPE_UINT32:
        return reflection->AddUInt32(message, field, static_cast<uint32_t>(Integer(0)));
      case FieldDescriptor::CPPTYPE_UINT64:
        return reflection->AddUInt64(message, field, static_cast<uint64_t>(Integer(0)));
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return reflection->AddDouble(message, field, Real(0));
      case FieldDescriptor::CPPTYPE_FLOAT:
        return reflection->AddFloat(message, field, static_cast<float>(Real(0)));
      case FieldDescriptor::CPPTYPE_BOOL:
        return reflection->AddBool(message, field, Chance(1, 2));
      case FieldDescriptor::CPPTYPE_ENUM:
        return reflection->AddEnumValue(message, field, Value(field));
      case FieldDescriptor::CPPTYPE_STRING:
        return reflection->AddString(message, field, Text(field, ""));
      case FieldDescriptor::CPPTYPE_MESSAGE: {
        const std::unique_ptr<Message> copy = Elsewhere(field->message_type());
        Message* added = reflection->AddMessage(message, field);
        if (copy != nullptr) added->CopyFrom(*copy);
        return;
      }
    }
  }

  void SetElement(Message* message, const FieldDescriptor* field, int at) {
    const Reflection* reflection = message->GetReflection();
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        return reflection->SetRepeatedInt32(
            message, field, at,
            static_cast<int32_t>(Integer(reflection->GetRepeatedInt32(*message, field, at))));
      case FieldDescriptor::CPPTYPE_INT64:
        return reflection->SetRepeatedInt64(message, field, at,
                                            Integer(reflection->GetRepeatedInt64(*message, field, at)));
      case FieldDescriptor::CPPTYPE_ENUM:
        return reflection->SetRepeatedEnumValue(message, field, at, Value(field));
      case FieldDescriptor::CPPTYPE_STRING:
        return reflection->SetRepeatedString(message, field, at,
                                             Text(field, reflection->GetRepeatedString(*message, field, at)));
      case FieldDescriptor::CPPTYPE_MESSAGE: {
        const std::unique_ptr<Message> copy = Elsewhere(field->message_type());
        if (copy != nullptr) reflection->MutableRepeatedMessage(message, field, at)->CopyFrom(*copy);
        return;
      }
      default:
        return AddElement(message, field);
    }
  }

  void ChangeOne(Message* message, const FieldDescriptor* field) {
    const Reflection* reflection = message->GetReflection();
    if (Chance(1, 8)) return reflection->ClearField(message, field);
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        return reflection->SetInt32(message, field,
                                    static_cast<int32_t>(Integer(reflection->GetInt32(*message, field))));
      case FieldDescriptor::CPPTYPE_INT64:
        return reflection->SetInt64(message, field, Integer(reflection->GetInt64(*message, field)));
      case FieldDescriptor::CPPTYPE_UINT32:
        return reflection->SetUInt32(message, field,
                                     static_cast<uint32_t>(Integer(reflection->GetUInt32(*message, field))));
      case FieldDescriptor::CPPTYPE_UINT64:
        return reflection->SetUInt64(
            message, field,
            static_cast<uint64_t>(Integer(static_cast<int64_t>(reflection->GetUInt64(*message, field)))));
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return reflection->SetDouble(message, field, Real(reflection->GetDouble(*message, field)));
      case FieldDescriptor::CPPTYPE_FLOAT:
        return reflection->SetFloat(message, field,
                                    static_cast<float>(Real(reflection->GetFloat(*message, field))));
      case FieldDescriptor::CPPTYPE_BOOL:
        return reflection->SetBool(message, field, !reflection->GetBool(*message, field));
      case FieldDescriptor::CPPTYPE_ENUM:
        return reflection->SetEnumValue(message, field, Value(field));
      case FieldDescriptor::CPPTYPE_STRING:
        return reflection->SetString(message, field, Text(field, reflection->GetString(*message, field)));
      case FieldDescriptor::CPPTYPE_MESSAGE: {
        const std::unique_ptr<Message> copy = Elsewhere(field->message_type());
        Message* one = reflection->MutableMessage(message, field);
        if (copy != nullptr) one->CopyFrom(*copy);
        return;
      }
    }
  }

  int64_t Integer(int64_t now) {
    constexpr int64_t kSmall = std::numeric_limits<int32_t>::max(),
                      kLarge = std::numeric_limits<int64_t>::max();
    constexpr int64_t kEnds[] = {0,
                                 1,
                                 -1,
                                 2,
                                 3,
                                 63,
                                 64,
                                 65,
                                 127,
                                 255,
                                 256,
                                 1023,
                                 1 << 16,
                                 1 << 20,
                                 kSmall,
                                 kSmall - 1,
                                 kSmall + 1,
                                 -kSmall,
                                 -kSmall - 1,
                                 int64_t{1} << 33,
                                 int64_t{1} << 53,
                                 kLarge,
                                 kLarge - 1,
                                 -kLarge,
                                 -kLarge - 1};
    const auto wrapped = [](uint64_t a, uint64_t b) { return static_cast<int64_t>(a + b); };
    switch (Below(6)) {
      case 0:
        return wrapped(now, 1);
      case 1:
        return wrapped(now, ~uint64_t{0});
      case 2:
        return static_cast<int64_t>(static_cast<uint64_t>(now) << Below(33));
      case 3:
        if (!integers_.empty()) return integers_[Below(integers_.size())];
        return static_cast<int64_t>(Below(100));
      case 4:
        return static_cast<int64_t>(Below(20));
      default:
        return kEnds[Below(std::size(kEnds))];
    }
  }

  double Real(double now) {
    using Limits = std::numeric_limits<double>;
    const double ends[] = {0,
                           -0.0,
                           1,
                           -1,
                           0.5,
                           1e-9,
                           1e9,
                           1e300,
                           -1e300,
                           100,
                           9.3e18,
                           Limits::infinity(),
                           -Limits::infinity(),
                           Limits::quiet_NaN(),
                           Limits::denorm_min(),
                           Limits::max()};
    switch (Below(4)) {
      case 0:
        return now * 2;
      case 1:
        return now / 1e3;
      default:
        return ends[Below(std::size(ends))];
    }
  }

  int Value(const FieldDescriptor* field) {
    const google::protobuf::EnumDescriptor* type = field->enum_type();
    if (Chance(1, 6)) return static_cast<int32_t>(Integer(0));
    return type->value(static_cast<int>(Below(type->value_count())))->number();
  }

  std::string Text(const FieldDescriptor* field, const std::string& now) {
    static const auto* const texts = new std::vector<std::string>{"",
                                                                  "a",
                                                                  "world",
                                                                  "ring",
                                                                  "forward",
                                                                  "backward",
                                                                  "node-b",
                                                                  "j-1",
                                                                  "j-2",
                                                                  "cpu",
                                                                  "cuda",
                                                                  "..",
                                                                  "/",
                                                                  "../a",
                                                                  "/data/x",
                                                                  "\xc3\xa4",
                                                                  std::string(1, '\0'),
                                                                  "nan",
                                                                  "0.1.0",
                                                                  "9.9.9",
                                                                  "execute",
                                                                  "-1",
                                                                  "99999999999999999999",
                                                                  "a/b",
                                                                  "%s%n",
                                                                  "\n"};
    if (field->type() == FieldDescriptor::TYPE_BYTES) return MutateBytes(random_(), now, 1 << 12);
    switch (Below(5)) {
      case 0:
        if (!strings_.empty()) return strings_[Below(strings_.size())];
        return "x";
      case 1:
        return now.size() > 4096 ? "" : now + now;
      case 2:
        return std::string(Below(Chance(1, 16) ? 70'000 : 300), 'x');
      default:
        return (*texts)[Below(texts->size())];
    }
  }

  std::mt19937 random_;
  Message* const root_;
  std::vector<Message*> nodes_;
  std::vector<std::string> strings_;
  std::vector<int64_t> integers_;
};

}  // namespace

void Mutate(uint32_t seed, Message* message) {
  Mutator mutator(seed, message);
  for (uint32_t changes = 1 + seed % 4; changes > 0; --changes) mutator.Change();
}

std::string MutateBytes(uint32_t seed, std::string text, size_t bytes_max) {
  std::mt19937 random(seed);
  const auto below = [&random](size_t end) {
    return std::uniform_int_distribution<size_t>(0, end - 1)(random);
  };
  for (uint32_t changes = 1 + seed % 4; changes > 0; --changes) {
    const size_t at = below(text.size() + 1);
    const size_t length = std::min(text.size() - at, 1 + below(32));
    switch (below(7)) {
      case 0:
        text.insert(at, 1, static_cast<char>(below(256)));
        break;
      case 1:
        text.erase(at, length);
        break;
      case 2:
        text.insert(below(text.size() + 1), std::string(text, at, length));
        break;
      case 3:
        if (at < text.size()) text[at] = static_cast<char>(text[at] ^ (1 << below(8)));
        break;
      case 4:  // a number of it becomes another
        if (const size_t digit = text.find_first_of("0123456789", at); digit != std::string::npos) {
          static const char* const numbers[] = {
              "0", "-1", "99999999999999999999", "1e308", "9223372036854775807", "0x7f", ".5"};
          text.replace(digit, 1, numbers[below(std::size(numbers))]);
        }
        break;
      case 5: {
        static const char* const words[] = {"{",  "}",      "[",   "]",       "\"",   ":",   ",",
                                            "\n", "  ",     "- ",  "null",    "true", "&a ", "*a",
                                            "<<", "!!int ", "|\n", "\\u0000", "\xff", "#"};
        text.insert(at, words[below(std::size(words))]);
        break;
      }
      default:
        if (at < text.size()) text[at] = static_cast<char>(below(256));
    }
  }
  if (text.size() > bytes_max) text.resize(bytes_max);
  return text;
}

}  // namespace seqpar
