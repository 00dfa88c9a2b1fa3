#include "tests/fuzz/mutate.h"

#include <google/protobuf/text_format.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>
#include <string>

#include "seqpar/v1/fleet.pb.h"

namespace seqpar {
namespace {

v1::WorkerMessage Sample() {
  v1::WorkerMessage message;
  v1::Hello* hello = message.mutable_hello();
  hello->set_node("node-a");
  hello->add_devices()->set_kind("cpu");
  (*hello->mutable_highest_attempts())["j-1"] = 2;
  return message;
}

TEST(Mutate, DoesTheSameForTheSameSeed) {
  for (uint32_t seed = 0; seed < 200; ++seed) {
    v1::WorkerMessage one = Sample(), other = Sample();
    Mutate(seed, &one);
    Mutate(seed, &other);
    std::string a, b;
    google::protobuf::TextFormat::PrintToString(one, &a);
    google::protobuf::TextFormat::PrintToString(other, &b);
    EXPECT_EQ(a, b) << seed;
  }
}

TEST(Mutate, WhatComesOutCanBeSentAndRead) {
  v1::WorkerMessage message = Sample();
  for (uint32_t seed = 0; seed < 3000; ++seed) {
    Mutate(seed, &message);
    v1::WorkerMessage sent, read;
    ASSERT_TRUE(sent.ParseFromString(message.SerializeAsString())) << message.DebugString();
    std::string text;
    google::protobuf::TextFormat::PrintToString(message, &text);
    ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &read)) << text;
    if (message.ByteSizeLong() > 1 << 20) message = Sample();
  }
}

// Every choice of the oneof, and in it every kind of field, gets values that nobody means.
TEST(Mutate, ReachesEveryPartAndTheEndsOfNumbers) {
  std::set<int> kinds;
  std::set<std::string> seen;
  v1::WorkerMessage message = Sample();
  for (uint32_t seed = 0; seed < 150'000; ++seed) {
    Mutate(seed, &message);
    kinds.insert(message.message_case());
    if (message.hello().devices_size() > 1) seen.insert("a list grows");
    if (message.has_hello() && message.hello().devices().empty()) seen.insert("a list is empty");
    if (message.hello().highest_term() == std::numeric_limits<int64_t>::max())
      seen.insert("the largest number");
    if (message.hello().highest_term() == std::numeric_limits<int64_t>::min())
      seen.insert("the smallest number");
    if (std::isnan(message.hello().start_seconds())) seen.insert("NaN");
    for (const v1::RankProgress& rank : message.heartbeat().ranks()) {
      if (!v1::JobPhase_IsValid(rank.phase())) seen.insert("a value that an enum does not have");
      if (rank.gang().job() == "j-1") seen.insert("an id that is used elsewhere");
    }
    for (const auto& attempt : message.hello().highest_attempts()) {
      if (attempt.first != "j-1") seen.insert("another key of a map");
    }
    if (message.ByteSizeLong() > 1 << 16 || seed % 200 == 0) message = Sample();
  }
  EXPECT_EQ(kinds.size(), 7u) << "six kinds of messages, and none";
  EXPECT_EQ(seen, (std::set<std::string>{"a list grows", "a list is empty", "the largest number",
                                         "the smallest number", "NaN", "a value that an enum does not have",
                                         "an id that is used elsewhere", "another key of a map"}));
}

TEST(MutateBytes, StaysWithinItsLimitAndChangesMost) {
  int changed = 0;
  for (uint32_t seed = 0; seed < 1000; ++seed) {
    const std::string text = "tokens: 4096\nname: x\n";
    const std::string other = MutateBytes(seed, text, 24);
    EXPECT_LE(other.size(), 24u);
    changed += other != text;
  }
  EXPECT_GT(changed, 900);
  MutateBytes(1, "", 10);  // from nothing too
}

}  // namespace
}  // namespace seqpar
