#include "coordinator/links/next_link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "coordinator/links/link_gang.h"

namespace seqpar {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

constexpr int64_t kNow = 1'000'000'000'000;

LinkNode Node(const std::string& name, const std::string& zone = "", int devices = 1) {
  LinkNode node;
  node.name = name;
  node.zone = zone;
  node.idle = true;
  node.kinds["cpu"].key = absl::StrCat("key of ", name);
  for (int i = 0; i < devices; ++i) node.kinds["cpu"].devices.push_back(i);
  return node;
}

std::vector<LinkNode> Nodes(int count, const std::string& zone = "") {
  std::vector<LinkNode> nodes;
  for (int i = 0; i < count; ++i) nodes.push_back(Node(absl::StrCat(zone, "n", 1000 + i), zone));
  return nodes;
}

// Nodes whose links are measured one after the other, as an engine does that nothing disturbs.
class World {
 public:
  explicit World(std::vector<LinkNode> nodes) : nodes(std::move(nodes)) {}

  NextLink Next() const { return FindNextLink(nodes, links, troubles, policy, now_us); }
  // "a-b", or "" where there is nothing to do.
  std::string NextName() const {
    const NextLink next = Next();
    return next.wish ? absl::StrCat(next.wish->ends.a, "-", next.wish->ends.b) : "";
  }
  void Measured(const LinkWish& wish) {
    troubles.Succeeded(wish.ends);
    links[wish.ends] = {wish.key, {1e-5, 1e9}, now_us};
  }
  // Until nothing is left; the names of what was measured.
  std::vector<std::string> MeasureAll() {
    std::vector<std::string> names;
    while (true) {
      const NextLink next = Next();
      if (!next.wish) return names;
      names.push_back(absl::StrCat(next.wish->ends.a, "-", next.wish->ends.b));
      Measured(*next.wish);
      if (names.size() > 10'000) ADD_FAILURE() << "it never ends";
      if (names.size() > 10'000) return names;
    }
  }

  std::vector<LinkNode> nodes;
  LinkTable links;
  LinkTroubles troubles;
  LinkPolicy policy;
  int64_t now_us = kNow;
};

TEST(NextLink, OneNodeHasNobodyToBeMeasuredWith) {
  EXPECT_EQ(World({Node("a")}).NextName(), "");
  EXPECT_EQ(World({}).NextName(), "");
}

TEST(NextLink, OfFewNodesEveryPair) {
  World world({Node("c"), Node("a"), Node("d"), Node("b")});
  EXPECT_THAT(world.MeasureAll(), UnorderedElementsAre("a-b", "c-d", "a-c", "b-d", "a-d", "b-c"));
}

TEST(NextLink, AllDevicesThatBothHaveSendAtOnce) {
  World world({Node("a", "", 3), Node("b", "", 2)});
  const NextLink next = world.Next();
  ASSERT_TRUE(next.wish);
  EXPECT_THAT(next.wish->a_devices, ElementsAre(0, 1));
  EXPECT_THAT(next.wish->b_devices, ElementsAre(0, 1));
  const LinkGang gang("link-1-1", *next.wish, 0);
  ASSERT_EQ(gang.ranks().size(), 4u);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(gang.ranks()[i].node, i % 2 == 0 ? "a" : "b") << "they take turns";
  EXPECT_EQ(gang.ranks()[3].device, 1);
}

TEST(NextLink, OfAThousandNodesEachIsMeasuredWithAFew) {
  World world(Nodes(1000));
  const std::vector<std::string> names = world.MeasureAll();
  EXPECT_LE(names.size(), 1500u);
  std::map<std::string, int> count;
  for (const auto& [ends, figure] : world.links) {
    ++count[ends.a];
    ++count[ends.b];
  }
  EXPECT_EQ(count.size(), 1000u);
  for (const auto& [name, links] : count) EXPECT_GE(links, 3) << name;
}

TEST(NextLink, BetweenZonesOnePairOfEach) {
  std::vector<LinkNode> nodes = Nodes(3, "x");
  for (const char* zone : {"y", "z"}) {
    for (LinkNode& node : Nodes(3, zone)) nodes.push_back(node);
  }
  World world(nodes);
  std::multiset<std::string> across;
  for (const std::string& name : world.MeasureAll()) {
    if (name[0] != name[name.find('-') + 1]) across.insert(std::string{name[0], name[name.find('-') + 1]});
  }
  EXPECT_THAT(across, UnorderedElementsAre("xy", "xz", "yz"));
  EXPECT_EQ(world.links.size(), 9u + 3u);
}

TEST(NextLink, ZonesOfOneNodeAreBoundedToo) {
  std::vector<LinkNode> nodes;
  for (int i = 0; i < 200; ++i) nodes.push_back(Node(absl::StrCat("n", i), absl::StrCat("zone", i)));
  EXPECT_LE(World(nodes).MeasureAll().size(), 600u);
}

TEST(NextLink, OnlyNodesThatAreIdle) {
  World world({Node("a"), Node("b"), Node("c")});
  world.nodes[0].idle = false;
  EXPECT_THAT(world.MeasureAll(), ElementsAre("b-c"));
  world.nodes[0].idle = true;
  EXPECT_THAT(world.MeasureAll(), ElementsAre("a-b", "a-c"));
}

TEST(NextLink, OnlyDevicesOfOneKind) {
  World world({Node("a"), Node("b")});
  world.nodes[1].kinds["cuda"] = world.nodes[1].kinds["cpu"];
  world.nodes[1].kinds.erase("cpu");
  EXPECT_EQ(world.NextName(), "");
}

TEST(NextLink, AgainWhenAnEndHasChanged) {
  World world({Node("a"), Node("b"), Node("c")});
  EXPECT_THAT(world.MeasureAll(), ElementsAre("a-b", "a-c", "b-c"));
  world.nodes[2].kinds["cpu"].key = "another address";
  EXPECT_THAT(world.MeasureAll(), ElementsAre("a-c", "b-c"));
}

TEST(NextLink, AgainWhenTheFigureIsOldTheSamePairs) {
  World world(Nodes(12));
  world.MeasureAll();
  const size_t pairs = world.links.size();
  NextLink next = world.Next();
  EXPECT_FALSE(next.wish);
  EXPECT_EQ(next.look_again_us, kNow + world.policy.age_us) << "nobody need look before";
  world.now_us = next.look_again_us;
  EXPECT_FALSE(world.MeasureAll().empty());
  EXPECT_EQ(world.links.size(), pairs) << "the table does not grow";
}

TEST(NextLink, AfterAFailureLaterAndLater) {
  World world({Node("a"), Node("b"), Node("c")});
  const LinkWish wish = *world.Next().wish;
  world.troubles.Failed(wish.ends, world.policy, world.now_us);
  NextLink next = world.Next();
  EXPECT_FALSE(next.wish) << "c has nobody else";
  EXPECT_EQ(next.look_again_us, kNow + world.policy.backoff_us);
  int64_t before_us = 0;
  for (int failure = 0; failure < 12; ++failure) {
    world.now_us = next.look_again_us;
    ASSERT_EQ(world.NextName(), "a-b");
    world.troubles.Failed(wish.ends, world.policy, world.now_us);
    next = world.Next();
    const int64_t wait_us = next.look_again_us - world.now_us;
    EXPECT_GE(wait_us, before_us);
    EXPECT_LE(wait_us, 256 * world.policy.backoff_us);
    before_us = wait_us;
  }
  world.now_us = next.look_again_us;
  world.Measured(wish);
  EXPECT_EQ(world.NextName(), "a-c") << "forgotten with a success";
}

TEST(NextLink, OneNodeThatFailsDoesNotKeepTheOthers) {
  World world({Node("a"), Node("b"), Node("c"), Node("d")});
  world.troubles.Failed({"cpu", "a", "b"}, world.policy, world.now_us);
  EXPECT_EQ(world.NextName(), "c-d");
}

TEST(LinkTable, SurvivesAsText) {
  LinkTable links;
  links[{"cpu", "a", "b"}] = {"k-l", {1.0 / 3, 2e9 / 3}, kNow};
  links[{"cuda", "a", "b"}] = {"m-n", {5e-6, 4e10}, kNow + 1};
  const LinkTable read = LinksFromText(LinksToText(links));
  ASSERT_EQ(read.size(), 2u);
  const LinkFigure& figure = read.at({"cpu", "a", "b"});
  EXPECT_EQ(figure.key, "k-l");
  EXPECT_EQ(figure.rates.latency, 1.0 / 3);
  EXPECT_EQ(figure.rates.bandwidth, 2e9 / 3);
  EXPECT_EQ(figure.measured_us, kNow);
  EXPECT_EQ(LinksToText(read), LinksToText(links));
}

TEST(LinkTable, WhatCannotBeReadIsLeftOut) {
  EXPECT_THAT(LinksFromText("a b c\ncpu\tb\ta\tk\t1\t1\t1\ncpu\ta\tb\tk\tnan\t1\t1\ncpu\ta\tb\tk\t1\t0\t1\n"),
              IsEmpty());
}

}  // namespace
}  // namespace seqpar
