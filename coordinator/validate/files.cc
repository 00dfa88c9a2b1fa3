#include "coordinator/validate/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <limits>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status.h"
#include "common/job/tensors.h"
#include "common/tensor/checkpoint.h"
#include "coordinator/validate/config_json.h"

namespace seqpar {
namespace {

// Of each kind of wrong tensor so many are named, the rest counted: a wrong config makes every layer wrong.
constexpr int kTensorsNamed = 8;
constexpr int64_t kMaxTokens = std::numeric_limits<int32_t>::max();  // key indices are 32 bits

using Shape = std::vector<int64_t>;

std::string ShapeText(const Shape& shape) { return absl::StrCat("[", absl::StrJoin(shape, ", "), "]"); }

std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

// The absolute path, or "" with a violation.
std::string ResolvePath(const DataRoots& roots, const std::string& field, const std::string& path,
                        Violations* v) {
  absl::StatusOr<std::string> resolved = roots.Resolve(path);
  if (resolved.ok()) return *resolved;
  v->Add(field, MessageOf(resolved.status()));
  return "";
}

// Opens the file or folder that a source names, makes the path absolute and takes fingerprints. False with a
// violation.
bool OpenSource(const DataRoots& roots, const std::string& field, Source* source, ValidatedJob* job,
                Checkpoint* checkpoint, Violations* v) {
  const std::string path = ResolvePath(roots, field, source->file, v);
  if (path.empty()) return false;
  source->file = path;
  absl::StatusOr<Checkpoint> opened = Checkpoint::Open(
      path, [&roots](const std::string& file, int flags) { return roots.Open(file, flags); });
  if (!opened.ok()) {
    v->Add(field, MessageOf(opened.status()));
    return false;
  }
  *checkpoint = std::move(opened).value();
  for (const std::string& file : checkpoint->files()) {
    const absl::StatusOr<FileFingerprint> fingerprint = FingerprintFile(roots, file);
    if (fingerprint.ok()) {
      job->inputs[file] = *fingerprint;
    } else {
      v->Add(field, MessageOf(fingerprint.status()));
    }
  }
  return true;
}

std::string UnsupportedType(const std::string& name, const std::string& type) {
  return absl::StrCat(name, " is ", type, "; must be F32, BF16 or F16");
}

// The shape of a tensor; none with a violation where it is not there.
const Shape* FindTensor(const Checkpoint& checkpoint, const std::string& field, const std::string& name,
                        Violations* v) {
  const TensorLocation* found = checkpoint.Find(name);
  if (found != nullptr) return &found->info.shape;
  const auto other = checkpoint.other_dtypes().find(name);
  if (other != checkpoint.other_dtypes().end()) {
    v->Add(field, UnsupportedType(name, other->second));
    return nullptr;
  }
  std::vector<std::string> names;
  for (const auto& [there, location] : checkpoint.tensors()) names.push_back(there);
  v->Add(field, absl::StrCat("has no tensor ", name), NearestName(name, names));
  return nullptr;
}

// What the job says of the input, where it says anything, must be what the file has.
void TakeExtent(const char* field, int64_t given, int64_t from_file, int64_t* value, Violations* v) {
  if (given != 0 && given != from_file) {
    v->Add(field, absl::StrCat("is ", given, "; the file has ", from_file), absl::StrCat(from_file));
  }
  *value = from_file;
}

bool IsRotaryBuffer(const std::string& name) {
  const std::string suffix = ".rotary_emb.inv_freq";
  return name.size() > suffix.size() && name.compare(name.size() - suffix.size(), suffix.size(), suffix) == 0;
}

// Whether a name belongs to one of the layers [0, layers), or pretends to.
bool InsideLayers(const std::string& name, int layers) {
  const std::string prefix = "model.layers.";
  if (name.compare(0, prefix.size(), prefix) != 0) return false;
  const size_t dot = name.find('.', prefix.size());
  if (dot == std::string::npos) return false;
  const std::string number = name.substr(prefix.size(), dot - prefix.size());
  if (number.empty() || number.size() > 6) return true;
  if (number.find_first_not_of("0123456789") != std::string::npos) return true;
  return std::stoi(number) < layers;
}

// Names the first few wrong tensors of one kind and counts the rest.
class WrongTensors {
 public:
  explicit WrongTensors(Violations* v) : v_(v) {}
  bool full() const { return count_ >= kTensorsNamed; }
  void Add(const std::string& what, const std::string& nearest = "") {
    if (count_++ < kTensorsNamed) v_->Add("weights.file", what, nearest);
  }
  void Finish(const char* what) const {
    if (count_ > kTensorsNamed) {
      v_->Add("weights.file", absl::StrCat("and ", count_ - kTensorsNamed, " more ", what));
    }
  }

 private:
  Violations* const v_;
  int64_t count_ = 0;
};

// Every weight must be there in its shape, and inside the layers nothing else.
void CheckTensors(const Checkpoint& checkpoint, const ModelConfig& config, int64_t* ignored, Violations* v) {
  WrongTensors missing(v), misshapen(v), unknown(v);
  std::set<std::string> known;
  for (int layer = 0; layer < config.layers; ++layer) {
    for (const WeightInfo& weight : LayerWeights(config, layer)) {
      known.insert(weight.name);
      const TensorLocation* found = checkpoint.Find(weight.name);
      const auto other = checkpoint.other_dtypes().find(weight.name);
      if (found != nullptr && found->info.shape != weight.shape) {
        misshapen.Add(absl::StrCat(weight.name, " is ", ShapeText(found->info.shape),
                                   "; the config makes it ", ShapeText(weight.shape)));
      } else if (found == nullptr && other != checkpoint.other_dtypes().end()) {
        misshapen.Add(UnsupportedType(weight.name, other->second));
      } else if (found == nullptr) {
        missing.Add(absl::StrCat("has no tensor ", weight.name));
      }
    }
  }
  const std::vector<std::string> names(known.begin(), known.end());
  const auto judge = [&](const std::string& name) {
    if (known.count(name) > 0) return;
    if (!InsideLayers(name, config.layers) || IsRotaryBuffer(name)) {
      ++*ignored;
      return;
    }
    unknown.Add(absl::StrCat("has a tensor that this config does not use: ", name),
                unknown.full() ? "" : NearestName(name, names));
  };
  for (const auto& [name, location] : checkpoint.tensors()) judge(name);
  for (const auto& [name, type] : checkpoint.other_dtypes()) judge(name);
  missing.Finish("tensors that are not there");
  misshapen.Finish("tensors of another shape");
  unknown.Finish("tensors that this config does not use");
}

}  // namespace

absl::StatusOr<FileFingerprint> FingerprintFile(const DataRoots& roots, const std::string& path) {
  SEQPAR_ASSIGN_OR_RETURN(const UniqueFd file, roots.Open(path, O_PATH));
  struct stat st;
  if (fstat(file.get(), &st) != 0) {
    return MakeError(absl::StatusCode::kFailedPrecondition, reason::kStorage,
                     absl::StrCat(path, ": ", strerror(errno)));
  }
  return FileFingerprint{static_cast<int64_t>(st.st_ino), static_cast<int64_t>(st.st_size),
                         static_cast<int64_t>(st.st_mtim.tv_sec) * 1'000'000'000 + st.st_mtim.tv_nsec};
}

void ValidateInputs(const DataRoots& roots, int64_t given_tokens, int64_t given_batch, ValidatedJob* job,
                    Violations* v) {
  JobSpec& spec = job->spec;
  const bool hidden_known = !v->Has("config.hidden_size");
  const auto hidden_fits = [&](const Shape& shape) {
    return !hidden_known || shape[2] == spec.config.hidden_size;
  };
  Checkpoint file;
  if (!spec.input.file.empty() && OpenSource(roots, "input.file", &spec.input, job, &file, v)) {
    const Shape* shape = FindTensor(file, "input.file", kHiddenStates, v);
    const bool legal = shape != nullptr && shape->size() == 3 && (*shape)[0] > 0 && (*shape)[1] > 0;
    if (shape != nullptr && !(legal && hidden_fits(*shape))) {
      v->Add("input.file", absl::StrCat("hidden_states is ", ShapeText(*shape), "; must be [batch, tokens, ",
                                        spec.config.hidden_size, "]"));
    } else if (shape != nullptr) {
      TakeExtent("input.batch", given_batch, (*shape)[0], &spec.batch, v);
      TakeExtent("input.tokens", given_tokens, (*shape)[1], &spec.tokens, v);
      if (spec.tokens > kMaxTokens) {
        v->Add("input.file", absl::StrCat("has ", spec.tokens, " tokens; at most ", kMaxTokens));
      }
    }
  }
  if (spec.grad_output.file.empty()) return;
  if (!OpenSource(roots, "grad_output.file", &spec.grad_output, job, &file, v)) return;
  const Shape* shape = FindTensor(file, "grad_output.file", kGradOutput, v);
  if (shape == nullptr || spec.tokens < 1) return;
  const Shape want = {spec.batch, spec.tokens,
                      hidden_known || shape->size() != 3 ? spec.config.hidden_size : (*shape)[2]};
  if (*shape != want) {
    v->Add("grad_output.file", absl::StrCat("grad_output is ", ShapeText(*shape),
                                            "; must be as hidden_states: ", ShapeText(want)));
  }
}

void ValidateWeights(const DataRoots& roots, ValidatedJob* job, Violations* v) {
  JobSpec& spec = job->spec;
  Checkpoint checkpoint;
  if (spec.weights.file.empty() || !OpenSource(roots, "weights.file", &spec.weights, job, &checkpoint, v)) {
    return;
  }
  // Names and shapes follow from the config: they are compared only where it stands.
  bool config_stands = !v->Unread("config");
  for (const char* field : {"hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim",
                            "intermediate_size", "num_hidden_layers"}) {
    config_stands = config_stands && !v->Has(absl::StrCat("config.", field));
  }
  if (!checkpoint.config_json().empty() && !v->Unread("config"))
    CheckConfigJson(spec, checkpoint.config_json(), v);
  if (config_stands) CheckTensors(checkpoint, spec.config, &job->ignored_tensors, v);
}

void ValidateOutput(const DataRoots& roots, ValidatedJob* job, Violations* v) {
  JobSpec& spec = job->spec;
  if (spec.output_file.empty()) return;
  const std::string path = ResolvePath(roots, "output.file", spec.output_file, v);
  if (path.empty()) return;
  spec.output_file = path;
  const size_t slash = path.rfind('/');
  const std::string folder = path.substr(0, slash);
  const absl::StatusOr<UniqueFd> opened = roots.Open(folder, O_PATH | O_DIRECTORY);
  if (!opened.ok()) {
    v->Add("output.file", absl::IsNotFound(opened.status())
                              ? absl::StrCat("the folder ", folder, " does not exist")
                              : MessageOf(opened.status()));
    return;
  }
  if (faccessat(opened->get(), ".", W_OK | X_OK, 0) != 0) {
    v->Add("output.file", absl::StrCat("the folder ", folder, " cannot be written to: ", strerror(errno)));
  }
  struct stat st;  // a link that came since `path` was resolved is no file
  if (fstatat(opened->get(), path.c_str() + slash + 1, &st, AT_SYMLINK_NOFOLLOW) != 0) return;
  if (!S_ISREG(st.st_mode)) {
    v->Add("output.file", absl::StrCat(path, " exists and is not a file"));
    return;
  }
  if (!spec.overwrite) {
    v->Add("output.file", absl::StrCat(path, " exists"), "another name, or output.overwrite: true");
  }
  for (const auto& [input, fingerprint] : job->inputs) {
    if (fingerprint.inode == static_cast<int64_t>(st.st_ino) &&
        fingerprint.bytes == static_cast<int64_t>(st.st_size)) {
      v->Add("output.file", absl::StrCat("is one of the job's inputs: ", input), "another name");
      return;
    }
  }
}

}  // namespace seqpar
