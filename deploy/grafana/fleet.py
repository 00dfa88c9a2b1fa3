"""All nodes, devices and jobs at a glance: is the fleet well, is it busy, who waits."""
from joins import RESOLUTION, Ranks, gpu, node_variable
from panels import (BLUE, GREEN, GREY, RED, YELLOW, bargauge, dashboard, field_link, heatmap, joined, link, override, query,
                    row, stat, state_timeline, table, thresholds, timeseries, value_texts)

NODE = 'node=~"$node"'
RANKS = Ranks(NODE)
ANY = thresholds((GREEN,), (RED, 1))

DEVICE_STATES = value_texts({0: ("idle", GREY), 1: ("busy", GREEN), 2: ("set aside", RED), 3: ("set aside", RED)})

DATA_FREE, DATA_SIZE = "seqpar_data_root_free_bytes", "seqpar_data_root_size_bytes"

TO_COORDINATOR = [link("Coordinator health", "seqpar-coordinator")]


def now():
    return [
        row("Now"),
        stat("Jobs running", "Jobs of which an attempt runs.", query('sum(seqpar_jobs{state="RUNNING"})'), "short"),
        stat("Jobs waiting", "Jobs that wait for devices.", query('sum(seqpar_jobs{state="PENDING"})'), "short",
             limits=thresholds((GREEN,), (YELLOW, 10), (RED, 100))),
        stat("Longest wait", "How long the job that has waited longest has waited.",
             query("max(seqpar_job_queue_oldest_seconds)"), "s", limits=thresholds((GREEN,), (YELLOW, 900), (RED, 3600))),
        stat("Devices in use", "Part of the devices that run a rank.",
             query('sum(seqpar_devices{state="BUSY"}) / clamp_min(sum(seqpar_devices), 1)'), "percentunit"),
        stat("Devices set aside", "Devices that were not found well and are given no ranks.",
             query('sum(seqpar_devices{state="SET_ASIDE"})'), "short", limits=ANY, graph=False),
        stat("Alerts firing", "Alerts of deploy/prometheus/rules that fire now; 0 also where the rules are not loaded.",
             query('count(ALERTS{alertname=~"Seqpar.+", alertstate="firing"}) or vector(0)'), "short", limits=ANY,
             graph=False, links=TO_COORDINATOR),
        stat("Nodes", "Nodes by state. LOST: no stream, or the lease is over.",
             query("sum by (state) (seqpar_nodes)", "{{state}}"), "short", width=8, graph=False),
        stat("Devices", "Devices by state.", query("sum by (state) (seqpar_devices)", "{{state}}"), "short", width=12,
             graph=False),
        stat("Free for data", "Part of the data root that has least which is free: of its file system, as the node sees it "
             "that sees least.", query(f"min({DATA_FREE} / {DATA_SIZE})"), "percentunit",
             limits=thresholds((RED,), (YELLOW, 0.1), (GREEN, 0.2))),
    ]


def jobs():
    columns = joined(["Ranks", "Tokens", "Progress"],
                     {"job_id": "Job", "attempt": "Attempt", "strategy": "Strategy"})
    by = "job_id, attempt, strategy"
    keep = ("job_id", "attempt", "strategy")
    return [
        row("Jobs"),
        table("Jobs that ran", "Attempts with ranks on the chosen nodes within the time range. Click a job to see it alone.",
              [query(f"count by ({by}) (last_over_time({RANKS.info}[$__range]))"),
               query(f"sum by ({by}) ({RANKS.increase('seqpar_device_tokens_total', *keep)})"),
               query(f"avg by ({by}) ({RANKS.last('seqpar_rank_progress_ratio', *keep)})")],
              transformations=columns, sort="Tokens",
              overrides=[override("Job", links=[field_link("Open this job", "seqpar-job", ["var-job_id=${__value.raw}"])],
                                  custom_width=260),
                         override("Progress", unit="percentunit",
                                  custom_cellOptions={"type": "gauge", "mode": "basic", "valueDisplayMode": "text"},
                                  max=1, min=0),
                         override("Tokens", unit="short")]),
        timeseries("Jobs by phase", "Jobs that have not ended, by phase of their life.",
                   query("sum by (phase) (seqpar_jobs)", "{{phase}}"), "short", width=8, stack=True, calcs=()),
        timeseries("Jobs taken and ended", "Each minute; those that ended by the state in which they did.",
                   [query("60 * sum(rate(seqpar_jobs_submitted_total[$__rate_interval]))", "submitted"),
                    query("60 * sum by (state) (rate(seqpar_jobs_ended_total[$__rate_interval]))", "{{state}}")], "short",
                   width=8, calcs=()),
        timeseries("Attempts that failed", "By the reason of the first cause, each minute, and those that ended so that the "
                   "job goes on without a slow rank's device. Cancelled ones are none.",
                   [query("60 * sum by (reason) (rate(seqpar_attempt_failures_total[$__rate_interval]))", "{{reason}}"),
                    query("60 * sum(rate(seqpar_slow_ranks_replaced_total[$__rate_interval]))", "moved off a slow rank")],
                   "short", width=8, stack=True, calcs=()),
        heatmap("Wait in the queue", "From submission until the devices were taken.",
                "sum by (le) (increase(seqpar_job_queue_wait_seconds_bucket[$__rate_interval]))", "s"),
        timeseries("Time by phase", "Mean time that jobs stayed in each phase, as the coordinator sees it; plan is the "
                   "time in the queue.",
                   query("sum by (phase) (rate(seqpar_job_phase_seconds_sum[$__rate_interval])) / "
                         "clamp_min(sum by (phase) (rate(seqpar_job_phase_seconds_count[$__rate_interval])), 1e-9)",
                         "{{phase}}"), "s"),
    ]


def devices():
    return [
        row("Devices"),
        state_timeline("Devices", "Busy: a rank runs. Set aside: the device was not found well and is given no ranks.",
                       query(f"seqpar_device_busy{{{NODE}}} + 2 * seqpar_device_set_aside{{{NODE}}}",
                             "{{node}}/{{device}}"), mappings=DEVICE_STATES),
        timeseries("Tokens", "Tokens that ranks worked off, by node.",
                   query(f"sum by (node) (rate(seqpar_device_tokens_total{{{NODE}}}[$__rate_interval]))", "{{node}}"),
                   "si:tok/s", stack=True),
        timeseries("Share of peak", "Model flops over what the devices did at best, by node: idle devices count as well.",
                   query(f"sum by (node) (rate(seqpar_device_flops_total{{{NODE}}}[$__rate_interval])) / "
                         f"sum by (node) (seqpar_device_peak_flops_per_second{{{NODE}}})", "{{node}}"),
                   "percentunit"),
        bargauge("Memory used", "Memory of the rank that runs now, over what ranks may use on the device.",
                 query(f"seqpar_device_memory_used_bytes{{{NODE}}} / seqpar_device_memory_limit_bytes{{{NODE}}}",
                       "{{node}}/{{device}}"),
                 "percentunit", high=1, limits=thresholds((GREEN,), (YELLOW, 0.9), (RED, 0.97)), calc="max"),
        timeseries("Executors that ended early", "Executors that ended without having finished their rank, each hour, by "
                   "node: killed, crashed, or stopped with their gang.",
                   query(f"3600 * sum by (node) (rate(seqpar_device_executor_restarts_total{{{NODE}}}[$__rate_interval]))",
                         "{{node}}"), "short"),
        table("Nodes", "Every node that has attached since the coordinator started.",
              [query(f"max by (node, state, version) (seqpar_node_info{{{NODE}}})"),
               query(f"count by (node) (seqpar_device_info{{{NODE}}})"),
               query(f"sum by (node) (seqpar_device_busy{{{NODE}}})"),
               query(f"min by (node) (seqpar_node_lease_left_seconds{{{NODE}}})")],
              transformations=joined(["Known", "Devices", "Busy", "Lease left"],
                                     {"node": "Node", "state": "State", "version": "Version"}, hidden=["Value #A"]),
              overrides=[override("Lease left", unit="s"),
                         override("State", mappings=[{"type": "value", "options": {
                             "READY": {"color": GREEN, "index": 0}, "DRAINING": {"color": BLUE, "index": 1},
                             "LOST": {"color": RED, "index": 2}}}],
                                  custom_cellOptions={"type": "color-text"})]),
    ]


def disks():
    share = "(seqpar_state_dir_free_bytes / seqpar_state_dir_size_bytes)"
    return [
        row("Disks"),
        timeseries("Free on data roots", "Of the file system of each data root, by its name: as the node sees it that sees "
                   "least. All see the same, unless it is not mounted alike everywhere.",
                   query(f"min by (root) ({DATA_FREE})", "{{root}}"), "bytes"),
        timeseries("Free for state", "Part of the file system of --state-dir that is free, of the coordinator and of each "
                   "worker.", query(f"{share} * on (job, instance) group_left (process) seqpar_build_info",
                                    "{{process}} {{instance}}"), "percentunit", high=1),
    ]


def gpus():
    legend = "{{node}}/{{device}}"
    some = f'seqpar_device_info{{UUID!="", {NODE}}}'
    return [
        row("GPUs, from dcgm-exporter"),
        timeseries("GPU busy", "Part of the time in which a kernel ran on the GPU: waiting inside a collective counts too.",
                   query(gpu("DCGM_FI_DEV_GPU_UTIL", some) + " / 100", legend), "percentunit", width=8, high=1),
        timeseries("Tensor cores busy", "Part of the cycles in which the tensor cores worked: what good work looks like.",
                   query(gpu("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", some), legend), "percentunit", width=8, high=1),
        timeseries("Memory used", "Of the GPU, by every process on it.",
                   query(gpu("(DCGM_FI_DEV_FB_USED * 1048576)", some), legend), "bytes", width=8),
        timeseries("Power", "Draw of the GPU.", query(gpu("DCGM_FI_DEV_POWER_USAGE", some), legend), "watt", width=8),
        timeseries("Temperature", "Of the GPU.", query(gpu("DCGM_FI_DEV_GPU_TEMP", some), legend), "celsius", width=8,
                   limits=thresholds((GREEN,), (YELLOW, 80), (RED, 90))),
        timeseries("Last XID error", "Number of the last XID that the driver reported; 0: none.",
                   query(gpu("DCGM_FI_DEV_XID_ERRORS", some), legend), "none", width=8,
                   limits=thresholds((GREEN,), (RED, 1))),
    ]


def make():
    return dashboard("seqpar-fleet", "seqpar / Fleet", "All nodes, devices and jobs: is the fleet well, is it busy, who "
                     "waits.", [node_variable(), RESOLUTION], now() + jobs() + devices() + disks() + gpus())
