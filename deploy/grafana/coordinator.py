"""The coordinator itself: does it answer, is its store quick, do its leases hold, are its predictions right."""
from panels import (GREEN, RED, YELLOW, dashboard, heatmap, link, query, row, stat, thresholds, timeseries, variable)

# The series of a process have no label that says which one it is: its target's build_info does.
ITSELF = 'on (job, instance) group_left () seqpar_build_info{process="coordinator"}'
METHOD = 'method=~"$method"'
OPERATION = 'operation=~"$operation"'
STRATEGY = 'strategy=~"$strategy"'
RATE = "[$__rate_interval]"


def of_itself(metric):
    return f"{metric} * {ITSELF}"


def rate_by(labels, metric, selector):
    return f"sum by ({labels}) (rate({metric}{{{selector}}}{RATE}))"


def quantile(share, labels, metric, selector, legend):
    return query(f"histogram_quantile({share}, {rate_by(labels + ', le', metric + '_bucket', selector)})", legend)


def buckets(metric, selector=""):
    return f"sum by (le) (increase({metric}_bucket{{{selector}}}{RATE}))"


def process():
    return [
        row("Process"),
        stat("Up for", "Since the coordinator started.", query(of_itself("(time() - seqpar_start_time_seconds)")), "s",
             graph=False, width=3, links=[link("Fleet", "seqpar-fleet")]),
        stat("Version", "That runs.", query('count by (version) (seqpar_build_info{process="coordinator"})', "{{version}}"),
             "short", text=True, graph=False, width=3),
        stat("Starts", "Of a coordinator on this state folder: the term of its commands.", query("max(seqpar_term)"),
             "none", graph=False, width=3),
        stat("Free for the store", "Part of the file system of --state-dir that is free.",
             query(of_itself("(seqpar_state_dir_free_bytes / seqpar_state_dir_size_bytes)")), "percentunit",
             limits=thresholds((RED,), (YELLOW, 0.1), (GREEN, 0.2))),
        stat("Nodes with a lease", "Nodes whose lease is not over.", query("count(seqpar_node_lease_left_seconds > 0)"),
             "short", graph=False, width=3),
        stat("Shortest lease", "What is left now, of the node that is nearest to losing its lease, over the whole lease.",
             query("min(seqpar_node_lease_left_seconds) / max(seqpar_lease_length_seconds)"), "percentunit",
             limits=thresholds((RED,), (YELLOW, 0.33), (GREEN, 0.5))),
        stat("Certificates", "Time until the first certificate ends, of the coordinator's and the workers'; none without TLS.",
             query("min(seqpar_tls_certificate_expiry_timestamp_seconds - time())"), "s", graph=False,
             limits=thresholds((RED,), (YELLOW, 7 * 86400), (GREEN, 14 * 86400)), no_value="no TLS"),
        timeseries("CPU", "Of the process: 1 is one core.", query(of_itself(f"rate(seqpar_process_cpu_seconds_total{RATE})"),
                                                                   "cores"), "short", width=8),
        timeseries("Memory", "Resident memory of the process.",
                   query(of_itself("seqpar_process_resident_memory_bytes"), "resident"), "bytes", width=8),
        timeseries("File descriptors", "Open ones of the process.", query(of_itself("seqpar_process_open_fds"), "open"),
                   "short", width=8),
    ]


def calls():
    rpc = "seqpar_rpc_seconds"
    streams = 'method!~".*/(WatchJob|Attach)"'
    return [
        row("Calls"),
        timeseries("Calls", "Calls that were answered, by method; streams count when they end.",
                   query(rate_by("method", "seqpar_rpcs_total", METHOD), "{{method}}"), "reqps", width=8),
        timeseries("Errors", "Calls answered with anything but OK, by method and code. CANCELLED is the client's doing.",
                   query(rate_by("method, code", "seqpar_rpcs_total", METHOD + ', code!="OK"'), "{{method}} {{code}}"), "reqps",
                   width=8),
        timeseries("Under way", "Calls that are not answered yet; streams among them.",
                   query(f"sum by (method) (seqpar_rpcs_open{{{METHOD}}})", "{{method}}"), "short", width=8),
        timeseries("Time of a call, 99 of 100", "99 of 100 calls were answered within this time, by method. Watches and the "
                   "workers' streams live as long as they live: see the calls under way.",
                   quantile(0.99, "method", rpc, METHOD, "{{method}}"), "s", width=8, log=True),
        timeseries("Time by code, 99 of 100", "99 of 100 calls with this answer had it within this time: errors are often "
                   "quicker than what they took the place of, or as slow as a deadline.",
                   quantile(0.99, "code", rpc, METHOD, "{{code}}"), "s", width=8, log=True),
        heatmap("Time of calls", "Of every method but the streams: they live as long as somebody watches or works.",
                buckets(rpc, streams), "s", width=8),
    ]


def store():
    return [
        row("Store and planner"),
        timeseries("Store, 99 of 100", "99 of 100 operations on the job store took no longer; writes are on disk then.",
                   quantile(0.99, "operation", "seqpar_store_seconds", OPERATION, "{{operation}}"), "s", width=8, log=True,
                   limits=thresholds((GREEN,), (RED, 0.5))),
        timeseries("Operations", "On the job store.", query(rate_by("operation", "seqpar_store_seconds_count", OPERATION),
                                                            "{{operation}}"), "ops", width=8),
        timeseries("Operations that failed", "On the job store: each is in the coordinator's log.",
                   query(rate_by("operation", "seqpar_store_errors_total", OPERATION), "{{operation}}"), "ops", width=8,
                   limits=thresholds((GREEN,), (RED, 1e-9))),
        heatmap("Time to write", "Writes of the job store: until they are on disk.",
                buckets("seqpar_store_seconds", 'operation="write"'), "s"),
        heatmap("Time to plan", "One job, for the queue or for a user who asks.", buckets("seqpar_plan_seconds"), "s"),
    ]


def leases():
    return [
        row("Leases"),
        timeseries("Lease left", "Of each node, and the whole lease: a node that reaches 0 is lost.",
                   [query("seqpar_node_lease_left_seconds", "{{node}}"), query("max(seqpar_lease_length_seconds)", "lease")],
                   "s"),
        heatmap("Margin", "What was left of a lease when a heartbeat extended it.", buckets("seqpar_lease_margin_seconds"),
                "s"),
        timeseries("Time of a heartbeat", "From sending it to its answer, as the workers see it: 99 of 100 took no longer.",
                   query(f"histogram_quantile(0.99, sum by (node, le) "
                         f"(rate(seqpar_worker_heartbeat_seconds_bucket{RATE})))", "{{node}}"), "s", width=8),
        timeseries("Attached", "Nodes by state.", query("sum by (state) (seqpar_nodes)", "{{state}}"), "short", width=8,
                   stack=True, calcs=()),
        timeseries("Attached anew", "Times that a coordinator welcomed the node, each hour: its stream broke, or one of the "
                   "two was restarted.",
                   query(f"3600 * sum by (node) (rate(seqpar_worker_attaches_total{RATE}))", "{{node}}"), "short", width=8),
    ]


def predictions():
    def mean(metric, selector, legend, labels="strategy"):
        window = "[$__range]"
        parts = [f"sum by ({labels}) (increase({metric}_{part}{{{selector}}}{window}))" for part in ("sum", "count")]
        return query(f"{parts[0]} / clamp_min({parts[1]}, 1e-9)", legend)
    ratio = "seqpar_predicted_over_measured_ratio"
    return [
        row("Predictions"),
        heatmap("Predicted over measured time", "Of finished attempts: 1 is exact, 2 took half of what was predicted.",
                buckets(ratio, f'{STRATEGY}, quantity="time"'), "none", width=8),
        heatmap("Predicted over measured memory", "Of finished attempts. Below 1 a rank took more than was planned.",
                buckets(ratio, f'{STRATEGY}, quantity="memory"'), "none", width=8),
        timeseries("Mean ratio", "Predicted over measured, mean over the time range, by strategy; 0: none finished.",
                   [mean(ratio, f'{STRATEGY}, quantity="{quantity}"', f"{quantity} {{{{strategy}}}}")
                    for quantity in ("time", "memory")], "none", width=8, decimals=2),
        timeseries("Imbalance", "Compute of the rank that computed longest over the mean of its gang, mean over the time "
                   "range, by strategy; 0: none finished.",
                   mean("seqpar_rank_imbalance_ratio", STRATEGY, "{{strategy}}"), "none", width=8, decimals=2),
        timeseries("Skew", "Execute seconds of the slowest rank less those of the fastest, mean over the time range, by "
                   "strategy.",
                   mean("seqpar_step_skew_seconds", STRATEGY, "{{strategy}}"), "s", width=8),
        timeseries("Links measured", "Measurements of links between idle nodes, each hour, by how they ended: plans over "
                   "nodes go by them.",
                   query(f"3600 * sum by (outcome) (rate(seqpar_link_measurements_total{RATE}))", "{{outcome}}"), "short",
                   width=8),
    ]


def make():
    known = "label_values({}, {})"
    return dashboard(
        "seqpar-coordinator", "seqpar / Coordinator health", "Does the coordinator answer, is its store quick, do leases "
        "hold, are predictions right.",
        [variable("method", "Method", known.format("seqpar_rpcs_open", "method")),
         variable("operation", "Store operation", known.format("seqpar_store_errors_total", "operation")),
         variable("strategy", "Strategy", known.format("seqpar_rank_imbalance_ratio_count", "strategy"))],
        process() + calls() + store() + leases() + predictions())
