// A job of which its client could not read everything: one answer holds what the client found and what is
// wrong with the rest, and nothing that only follows from what is missing.
#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "coordinator/validate/validate.h"
#include "coordinator/validate/violations.h"
#include "tests/coordinator/validate/job_files.h"

namespace seqpar {
namespace {

using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;
using ::testing::ElementsAre;

std::vector<std::string> FieldsOf(const absl::Status& status) {
  std::vector<std::string> fields;
  for (const Violation& violation : ViolationsOf(status)) fields.push_back(violation.field);
  return fields;
}

using Path = std::vector<const FieldDescriptor*>;

// Every field inside that of `path`, if it is set, in turn not read: `visit` sees its name and the job
// without it.
void ForEachLeftOut(const v1::Job& job, const Path& path,
                    const std::function<void(const std::string&, const v1::Job&)>& visit) {
  const Message* at = &job;
  std::string prefix;
  for (const FieldDescriptor* field : path) {
    at = &at->GetReflection()->GetMessage(*at, field);
    prefix += field->name() + ".";
  }
  Path fields;
  at->GetReflection()->ListFields(*at, &fields);
  for (const FieldDescriptor* field : fields) {
    v1::Job rest = job;
    Message* in = &rest;
    for (const FieldDescriptor* outer : path) in = in->GetReflection()->MutableMessage(in, outer);
    in->GetReflection()->ClearField(in, field);
    visit(prefix + field->name(), rest);
    if (field->is_repeated() || field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) continue;
    Path inner = path;
    inner.push_back(field);
    ForEachLeftOut(job, inner, visit);
  }
}

v1::Job WithEverything(const JobFiles& files) {
  v1::Job job = GoodJob();
  v1::ModelConfig* config = job.mutable_config();
  config->set_head_dim(8);
  config->set_norm(v1::NORM_RMSNORM);
  config->set_mlp(v1::MLP_SWIGLU);
  config->set_qkv_bias(true);
  job.set_dtype(v1::DATA_TYPE_BFLOAT16);
  job.mutable_mask()->set_kind(v1::MASK_KIND_WINDOW);
  job.mutable_mask()->set_left(5);
  job.mutable_mask()->set_right(0);
  job.mutable_mask()->add_documents(60);
  job.mutable_mask()->add_documents(40);
  job.set_pass(v1::PASS_FORWARD_BACKWARD);
  job.mutable_grad_output()->set_seed(3);
  job.mutable_output()->set_file("out.safetensors");
  job.mutable_output()->add_tensors("hidden_states.grad");
  job.mutable_output()->set_overwrite(true);
  job.mutable_parallelism()->set_strategy(v1::STRATEGY_HYBRID);
  job.mutable_parallelism()->set_ulysses(2);
  job.mutable_parallelism()->set_ring(4);
  job.mutable_parallelism()->set_inner(2);
  job.mutable_workers()->set_min(2);
  job.mutable_workers()->set_max(8);
  job.mutable_verify()->set_rows(8);
  job.mutable_verify()->set_max_error(0.5);
  job.set_recompute(v1::RECOMPUTE_LAYER);
  job.set_deadline(60);
  (*job.mutable_labels())["team"] = "a";
  files.WriteTensors("weights.safetensors", WeightsOf(job));
  return job;
}

void ExpectNoConsequences(const v1::Job& job, const JobFiles& files) {
  ASSERT_TRUE(ValidateJob(job, files.Roots()).ok()) << ValidateJob(job, files.Roots()).status();
  int left_out = 0;
  ForEachLeftOut(job, {}, [&](const std::string& path, const v1::Job& rest) {
    ++left_out;
    const absl::Status refused =
        ValidateJob(rest, files.Roots(), {{path, "must be otherwise (line 3)", "so"}}).status();
    EXPECT_THAT(FieldsOf(refused), ElementsAre(path)) << refused;
  });
  EXPECT_GT(left_out, 20);
}

TEST(UnreadTest, WhatIsMissingHasNoConsequences) {
  const JobFiles files;
  v1::Job job = WithEverything(files);
  ExpectNoConsequences(job, files);
  job.mutable_weights()->set_file("weights.safetensors");
  ExpectNoConsequences(job, files);
}

TEST(UnreadTest, TheAnswerHoldsWhatWasFoundAndWhatIsWrongWithTheRest) {
  const JobFiles files;
  v1::Job job = GoodJob();
  job.mutable_config()->set_num_hidden_layers(-3);
  job.mutable_config()->clear_hidden_size();
  job.set_priority(5000);
  const absl::Status refused =
      ValidateJob(job, files.Roots(),
                  {{"maks", "unknown field (line 2)", "mask"},
                   {"config.hidden_size", "must be a whole number, is 'x' (line 4)", ""}})
          .status();
  EXPECT_EQ(ReasonOf(refused), reason::kInvalidJob);
  EXPECT_THAT(FieldsOf(refused),
              ElementsAre("maks", "config.hidden_size", "priority", "config.num_hidden_layers"));
  EXPECT_EQ(ViolationsOf(refused)[0].description, "unknown field (line 2)");
  EXPECT_EQ(ViolationsOf(refused)[0].nearest, "mask");
}

TEST(UnreadTest, AWordThatIsNoFieldStandsForTheOneThatItMayHaveMeant) {
  const JobFiles files;
  v1::Job job = GoodJob();
  job.mutable_config()->clear_hidden_size();
  job.clear_weights();
  EXPECT_THAT(FieldsOf(ValidateJob(job, files.Roots(),
                                   {{"config.hidden_sise", "unknown field", "hidden_size"},
                                    {"wieghts", "unknown field", "weights"}})
                           .status()),
              ElementsAre("config.hidden_sise", "wieghts"));
}

TEST(UnreadTest, NothingIsAddedOfWhatAFieldIsInOrHolds) {
  const Violations none;
  EXPECT_FALSE(none.Unread("mask"));
  const Violations v({{"mask.documents[2]", "", ""}, {"config", "", ""}});
  for (const char* field : {"mask", "mask.documents", "mask.documents[2]", "config", "config.head_dim"}) {
    EXPECT_TRUE(v.Unread(field)) << field;
  }
  for (const char* field : {"mask.kind", "mask.documents[1]", "mas", "configs", "input"}) {
    EXPECT_FALSE(v.Unread(field)) << field;
  }
}

}  // namespace
}  // namespace seqpar
