// The series of one process, made from the table of metrics: a name, a label or a bucket that is not in the
// table cannot be had.
#ifndef SEQPAR_COMMON_METRICS_REGISTRY_H_
#define SEQPAR_COMMON_METRICS_REGISTRY_H_

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "common/base/metric_names.h"
#include "common/base/mutex.h"

namespace seqpar {

// Thread-safe. Series live until they are removed; references to them until then. Label values are given in
// the order of the table. CHECKs that metrics are of this process and of the kind asked for, and that each
// label has a value.
class MetricRegistry {
 public:
  using Values = std::vector<std::string>;  // of labels

  explicit MetricRegistry(MetricProcess process);
  MetricRegistry(const MetricRegistry&) = delete;

  // The series with these label values: made, at zero, where there is none.
  prometheus::Counter& Counter(Metric metric, const Values& values = {});
  prometheus::Gauge& Gauge(Metric metric, const Values& values = {});
  prometheus::Histogram& Histogram(Metric metric, const Values& values = {});

  // Makes every series whose first labels have the values `given` and whose others have values that the table
  // knows.
  void StartAtZero(Metric metric, const Values& given = {});
  // Removes every series whose first labels have the values `given`.
  void Remove(Metric metric, const Values& given);
  // Makes `series` all that there are of a gauge.
  void Replace(Metric metric, const std::map<Values, double>& series);

  // `hook` runs at each scrape, before the series are read; hooks run one after the other. They must not wait
  // for anything.
  void OnScrape(std::function<void()> hook);
  // Every series, in Prometheus's text format.
  std::string Scrape();

 private:
  struct Series {
    std::map<Values, prometheus::Counter*> counters;
    std::map<Values, prometheus::Gauge*> gauges;
    std::map<Values, prometheus::Histogram*> histograms;
  };
  struct Family {
    prometheus::Family<prometheus::Counter>* counters = nullptr;
    prometheus::Family<prometheus::Gauge>* gauges = nullptr;
    prometheus::Family<prometheus::Histogram>* histograms = nullptr;
  };

  const Family& FamilyOf(Metric metric) const;
  void Make(Metric metric, const Values& values) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const MetricProcess process_;
  prometheus::Registry registry_;
  std::map<Metric, Family> families_;  // not changed after construction

  mutable Mutex mutex_;
  std::map<Metric, Series> series_ ABSL_GUARDED_BY(mutex_);
  Mutex scrape_mutex_;
  std::vector<std::function<void()>> hooks_ ABSL_GUARDED_BY(scrape_mutex_);
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_METRICS_REGISTRY_H_
