// Predicted time and memory of a shape on a gang (docs/planner.md; docs/formulas.md for the volumes).
#ifndef SEQPAR_COORDINATOR_PLANNER_COST_H_
#define SEQPAR_COORDINATOR_PLANNER_COST_H_

#include <functional>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "common/job/job.h"
#include "common/job/plan.h"
#include "common/parallel/head_layout.h"
#include "coordinator/planner/placement.h"
#include "coordinator/planner/planner.h"
#include "coordinator/planner/ring_cost.h"
#include "coordinator/planner/shapes.h"
#include "coordinator/planner/work.h"

namespace seqpar {

// Evaluates shapes of one job. Caches what the ring axis costs, which many shapes share.
class CostModel {
 public:
  CostModel(const JobSpec& job, const Calibration& calibration);

  // `peak_bytes` is what PeakBytes says. REQUIRES: gang has shape.mesh.size() devices.
  Prediction Predict(const Shape& shape, Recompute recompute, int64_t peak_bytes, const Gang& gang);
  // Bytes at the peak of the largest rank, on devices of this kind. Memory does not depend on the rest of the
  // gang: a null one will do.
  int64_t PeakBytes(const Shape& shape, Recompute recompute, const std::string& device_kind,
                    const Gang* gang);
  // Bytes at the peak of one rank. `heads` are those of the shape's mesh.
  int64_t PeakBytesOf(const Shape& shape, Recompute recompute, const std::string& device_kind,
                      const MeshCoord& coord, const HeadLayout& heads, const RingCost& ring) const;
  // On one node where gang is null.
  const RingCost& Ring(const Shape& shape, const Gang* gang);

 private:
  // One layer, one pass.
  struct Cost {
    ComputeSeconds compute;  // of the slowest rank
    double copies = 0;       // seconds that computing waits for cores which copy what is hidden
    double exposed = 0;      // seconds of communication that nothing hides
    double bytes = 0;        // sent along the tensor axis and for weight gradients
    double seconds() const { return compute.total() + copies + exposed; }
  };
  // The most that a rank has to do, and the mean over all.
  struct Shares {
    RankShare busiest, mean;
  };
  Shares SharesOf(const Shape& shape, const HeadLayout& heads, const RingCost& ring) const;
  // How long the gang computes: until its busiest rank is done, or where threads share cores, until the cores
  // have done the work of all.
  ComputeSeconds Compute(const Shares& shares, const Gang& gang,
                         const std::function<ComputeSeconds(const LayerWork&)>& part) const;
  Cost Forward(const Shape& shape, const HeadLayout& heads, const RingCost& ring, const Shares& shares,
               const Gang& gang) const;
  Cost Backward(const Shape& shape, const HeadLayout& heads, const RingCost& ring, const Shares& shares,
                Recompute recompute, const Gang& gang) const;
  // `transfer` goes on beside `hiding` seconds of computing.
  void AddHidden(double transfer, double near_bytes, double hiding, const Gang& gang, Cost* cost) const;
  // Sums of `values` float32 or storage values that arrive.
  void AddSums(double values, double bytes_each, const Gang& gang, Cost* cost) const;
  // Of the matrices that a rank holds of one layer.
  double WeightElements(const Shape& shape, const HeadLayout& heads) const;
  double FirstTouchSeconds(const Shape& shape, const HeadLayout& heads, int64_t peak_bytes,
                           const Gang& gang) const;
  void AddBesideTheStep(const Shape& shape, const HeadLayout& heads, const Gang& gang, Prediction* p) const;
  void AddUlysses(const Shape& shape, const HeadLayout& heads, const RingCost& ring, bool backward,
                  const Gang& gang, Cost* cost) const;
  // Bytes that Ulysses rank u sends in one pass of one layer.
  double UlyssesBytes(const Mesh& mesh, const HeadLayout& heads, const RingCost& ring, int u,
                      bool backward) const;
  // Bytes that the busiest rank sends along the ulysses and ring axes in one layer, all passes.
  double AttentionBytes(const Mesh& mesh, const HeadLayout& heads, const RingCost& ring,
                        Recompute recompute) const;
  void AddTensor(const Shape& shape, const RingCost& ring, double collectives, const Gang& gang,
                 Cost* cost) const;
  void AddRingForward(const Shape& shape, const HeadRange& heads, const RingCost& ring,
                      double attention_seconds, const Gang& gang, Cost* cost) const;
  void AddRingBackward(const Shape& shape, const HeadRange& heads, const RingCost& ring,
                       double attention_seconds, const Gang& gang, Cost* cost) const;
  void AddWeightGradients(const Shape& shape, const HeadLayout& heads, const Gang& gang, Cost* cost) const;

  const JobSpec job_;
  const Calibration calibration_;
  const Mask mask_;
  const ModelFlops flops_;
  using RingKey = std::tuple<LayoutKind, CoreKind, int, std::vector<int>, bool>;  // the last: with calls
  std::map<RingKey, RingCost> rings_;
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_PLANNER_COST_H_
