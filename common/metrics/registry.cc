#include "common/metrics/registry.h"

#include <prometheus/text_serializer.h>

#include <algorithm>
#include <utility>

#include "common/base/check.h"

namespace seqpar {
namespace {

using Values = MetricRegistry::Values;

prometheus::Labels LabelsOf(Metric metric, const Values& values) {
  const MetricInfo& info = InfoOf(metric);
  SEQPAR_CHECK(values.size() == info.labels.size());
  prometheus::Labels labels;
  for (size_t i = 0; i < values.size(); ++i) labels[info.labels[i].name] = values[i];
  return labels;
}

bool BeginsWith(const Values& values, const Values& given) {
  return given.size() <= values.size() && std::equal(given.begin(), given.end(), values.begin());
}

// Every way to go on from `given` with the values that the table knows.
std::vector<Values> Combinations(const MetricInfo& info, const Values& given) {
  std::vector<Values> all = {given};
  for (size_t i = given.size(); i < info.labels.size(); ++i) {
    SEQPAR_CHECK(!info.labels[i].values.empty());
    std::vector<Values> longer;
    for (const Values& values : all) {
      for (const std::string& value : info.labels[i].values) {
        longer.push_back(values);
        longer.back().push_back(value);
      }
    }
    all = std::move(longer);
  }
  return all;
}

template <typename T>
T* Found(const std::map<Values, T*>& series, const Values& values) {
  const auto found = series.find(values);
  return found == series.end() ? nullptr : found->second;
}

// Removes the series of `family` that `keep` does not want.
template <typename T, typename Keep>
void RemoveFrom(prometheus::Family<T>* family, std::map<Values, T*>* series, const Keep& keep) {
  for (auto it = series->begin(); it != series->end();) {
    if (keep(it->first)) {
      ++it;
      continue;
    }
    family->Remove(it->second);
    it = series->erase(it);
  }
}

}  // namespace

MetricRegistry::MetricRegistry(MetricProcess process) : process_(process) {
  for (const MetricInfo& info : AllMetrics()) {
    if (info.process != process_ && info.process != MetricProcess::kBoth) continue;
    Family& family = families_[info.id];
    switch (info.type) {
      case MetricType::kCounter:
        family.counters = &prometheus::BuildCounter().Name(info.name).Help(info.help).Register(registry_);
        break;
      case MetricType::kGauge:
        family.gauges = &prometheus::BuildGauge().Name(info.name).Help(info.help).Register(registry_);
        break;
      case MetricType::kHistogram:
        family.histograms = &prometheus::BuildHistogram().Name(info.name).Help(info.help).Register(registry_);
        break;
    }
  }
}

const MetricRegistry::Family& MetricRegistry::FamilyOf(Metric metric) const {
  const auto found = families_.find(metric);
  SEQPAR_CHECK(found != families_.end());
  return found->second;
}

void MetricRegistry::Make(Metric metric, const Values& values) {
  const Family& family = FamilyOf(metric);
  Series& series = series_[metric];
  const prometheus::Labels labels = LabelsOf(metric, values);
  if (family.counters != nullptr) series.counters[values] = &family.counters->Add(labels);
  if (family.gauges != nullptr) series.gauges[values] = &family.gauges->Add(labels);
  if (family.histograms != nullptr) {
    series.histograms[values] = &family.histograms->Add(labels, InfoOf(metric).buckets);
  }
}

prometheus::Counter& MetricRegistry::Counter(Metric metric, const Values& values) {
  MutexLock lock(mutex_);
  if (Found(series_[metric].counters, values) == nullptr) Make(metric, values);
  return *series_[metric].counters.at(values);
}

prometheus::Gauge& MetricRegistry::Gauge(Metric metric, const Values& values) {
  MutexLock lock(mutex_);
  if (Found(series_[metric].gauges, values) == nullptr) Make(metric, values);
  return *series_[metric].gauges.at(values);
}

prometheus::Histogram& MetricRegistry::Histogram(Metric metric, const Values& values) {
  MutexLock lock(mutex_);
  if (Found(series_[metric].histograms, values) == nullptr) Make(metric, values);
  return *series_[metric].histograms.at(values);
}

void MetricRegistry::StartAtZero(Metric metric, const Values& given) {
  for (const Values& values : Combinations(InfoOf(metric), given)) {
    switch (InfoOf(metric).type) {
      case MetricType::kCounter:
        Counter(metric, values);
        break;
      case MetricType::kGauge:
        Gauge(metric, values);
        break;
      case MetricType::kHistogram:
        Histogram(metric, values);
        break;
    }
  }
}

void MetricRegistry::Remove(Metric metric, const Values& given) {
  const Family& family = FamilyOf(metric);
  const auto keep = [&](const Values& values) { return !BeginsWith(values, given); };
  MutexLock lock(mutex_);
  Series& series = series_[metric];
  RemoveFrom(family.counters, &series.counters, keep);
  RemoveFrom(family.gauges, &series.gauges, keep);
  RemoveFrom(family.histograms, &series.histograms, keep);
}

void MetricRegistry::Replace(Metric metric, const std::map<Values, double>& wanted) {
  SEQPAR_CHECK(InfoOf(metric).type == MetricType::kGauge);
  const Family& family = FamilyOf(metric);
  MutexLock lock(mutex_);
  Series& series = series_[metric];
  RemoveFrom(family.gauges, &series.gauges, [&](const Values& values) { return wanted.count(values) != 0; });
  for (const auto& [values, value] : wanted) {
    if (Found(series.gauges, values) == nullptr) Make(metric, values);
    series.gauges.at(values)->Set(value);
  }
}

void MetricRegistry::OnScrape(std::function<void()> hook) {
  MutexLock lock(scrape_mutex_);
  hooks_.push_back(std::move(hook));
}

std::string MetricRegistry::Scrape() {
  MutexLock lock(scrape_mutex_);
  for (const std::function<void()>& hook : hooks_) hook();
  return prometheus::TextSerializer().Serialize(registry_.Collect());
}

}  // namespace seqpar
