#include "common/metrics/docs.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/metric_names.h"

namespace seqpar {
namespace {

constexpr char kHead[] = R"(# Metrics

<!-- Generated: `build/bin/seqpar-metrics-page > docs/metrics.md`; edit common/base/metric_names.cc. -->

The coordinator and each worker daemon serve `/metrics` (Prometheus, text), `/healthz` and `/readyz` on one HTTP port:
`--metrics-listen`, by default `127.0.0.1:7701` of the coordinator and `127.0.0.1:7702` of a worker; `off` serves none.
Both answer 200, or 503 with the reason. `/healthz`: the loop that the process lives by goes round; one that has stood
still for 30 s, or half of systemd's watchdog, is to be ended and started anew. `/readyz`: a coordinator can write its
store and takes calls, a worker was welcomed by a coordinator. Executors have no port: their daemon counts for them, so
counters do not fall when one is replaced, and one that is stopped or stuck delays no scrape.

Every series whose labels are known beforehand starts at zero, where its metric says nothing else. Series of a node or
device go with it. Times are seconds, sizes bytes, ratios plain numbers; histograms are classic ones. No label carries the
id of a job or a user, but for `seqpar_rank_info`: one series for each rank that runs now, gone with it. What a device
does is joined with the job that it does it for:

```
sum by (job_id, strategy) (
  rate(seqpar_device_tokens_total[1m]) * on (node, device) group_left (job_id, strategy) seqpar_rank_info)
```

`UUID` of `seqpar_device_info` is spelled as in the series of dcgm-exporter, so that `on (UUID)` joins the two.

The values of `phase` are the nine words of the life of a job. Ranks take part from bootstrap to report.
)";

std::string Code(const std::string& text) { return absl::StrCat("`", text, "`"); }

void AppendMetric(const MetricInfo& metric, std::string* page) {
  absl::StrAppend(page, "\n### ", metric.name, "\n", MetricTypeName(metric.type), ". ", metric.help, ".\n");
  for (const MetricLabel& label : metric.labels) {
    absl::StrAppend(page, "- ", Code(label.name), ": ", label.meaning);
    const std::vector<std::string>& values = label.values;
    if (!values.empty()) {
      absl::StrAppend(page, "; ", absl::StrJoin(values, ", ", [](std::string* out, const std::string& value) {
                        absl::StrAppend(out, "`", value, "`");
                      }));
    }
    absl::StrAppend(page, "\n");
  }
  if (!metric.buckets.empty()) {
    absl::StrAppend(page, "- buckets: ", absl::StrJoin(metric.buckets, ", "), "\n");
  }
}

}  // namespace

std::string MetricsPage() {
  std::string page = kHead;
  for (const MetricProcess process :
       {MetricProcess::kBoth, MetricProcess::kCoordinator, MetricProcess::kWorker}) {
    absl::StrAppend(&page, "\n## Of ", MetricProcessName(process), "\n");
    for (const MetricInfo& metric : AllMetrics()) {
      if (metric.process == process) AppendMetric(metric, &page);
    }
  }
  return page;
}

}  // namespace seqpar
