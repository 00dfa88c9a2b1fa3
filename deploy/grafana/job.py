"""One job: its phases, its ranks side by side, what overlapped, who was slow, and what had been predicted."""
from joins import ON, WINDOWS, Ranks, gpu
from panels import (BLUE, GREEN, GREY, RED, YELLOW, bargauge, dashboard, field_link, joined, override, query, row, stat,
                    state_timeline, table, thresholds, timeseries, value_texts, variable)

RANKS = Ranks('job_id="$job_id", attempt=~"$attempt", rank=~"$rank"')
RANK = "rank {{rank}}"

PHASES = ("bootstrap", "shard", "execute", "merge", "report")
PHASE_TEXTS = value_texts({0: ("not seen yet", GREY), **{
    number: (phase, colour)
    for number, (phase, colour) in enumerate(zip(PHASES, ("purple", BLUE, GREEN, YELLOW, GREY)), 1)}})

PHASE = "seqpar_device_phase_seconds_total"
EXECUTE = PHASE + '{phase="execute"}'
STEP = "seqpar_device_predicted_step_seconds"
TOKENS = "seqpar_device_tokens_total"
FLOPS = "seqpar_device_flops_total"
COMPUTE = "seqpar_device_compute_seconds_total"
EXPOSED = "seqpar_device_communication_exposed_seconds_total"
HIDDEN = "seqpar_device_communication_hidden_seconds_total"
BYTES = "seqpar_device_sent_bytes_total"
USED, PEAK, PREDICTED, LIMIT = (f"seqpar_device_memory_{word}_bytes" for word in ("used", "peak", "predicted", "limit"))


def by_rank(metric):
    return f"sum by (rank) ({RANKS.rate(metric, 'rank')})"


def total(metric):
    return f"sum({RANKS.rate(metric, 'rank')})"


def now_by_rank(gauge):
    return f"max by (rank) ({RANKS.join(gauge, 'rank')})"


def overview():
    return [
        row("Job $job_id"),
        stat("Strategy", "Of the plan.", query(f"count by (strategy) ({RANKS.info})", "{{strategy}}"), "short", text=True,
             graph=False),
        stat("Running ranks", "Ranks that run, of the chosen ones.", query(f"count({RANKS.info})"), "short", graph=False),
        stat("Progress", "Part of its work that the slowest rank has done.",
             query(f"min({RANKS.join('seqpar_rank_progress_ratio', 'rank')})"), "percentunit"),
        stat("Tokens", "Worked off by all ranks.", query(total(TOKENS)), "si:tok/s"),
        stat("Share of peak", "Model flops over what the job's devices did at best.",
             query(f"{total(FLOPS)} / sum({RANKS.recent('seqpar_device_peak_flops_per_second', 'rank')})"), "percentunit"),
        stat("Fullest device", "Memory used over what ranks may use, of the rank nearest to its limit.",
             query(f"max({RANKS.join(f'({USED} / {LIMIT})', 'rank')})"), "percentunit",
             limits=thresholds((GREEN,), (YELLOW, 0.9), (RED, 0.97))),
    ]


def phases():
    def spent(phase):
        return RANKS.rate(f'{PHASE}{{phase="{phase}"}}', "rank")
    latest = " or ".join(f"{number} * ({spent(phase)} > bool 0)" for number, phase in enumerate(PHASES, 1))
    return [
        row("Phases"),
        state_timeline("Phase of each rank", "The latest phase that the rank spent time in.",
                       query(f"max by (rank) ({latest})", RANK), mappings=PHASE_TEXTS),
        timeseries("Where the time goes", "Ranks in each phase: a rank that spends a whole window in one counts 1 there.",
                   query(f"sum by (phase) ({RANKS.rate(PHASE, 'rank')})", "{{phase}}"), "short", stack=True, calcs=()),
        bargauge("Longest time in each phase", "Seconds of the rank that spent most in it, within the time range.",
                 query(f"max by (phase) ({RANKS.increase(PHASE, 'rank')})", "{{phase}}"), "s"),
    ]


def side_by_side():
    by = "rank, node, device"
    columns = joined(["Tokens", "Compute", "Exposed", "Hidden", "Sent", "Peak memory", "Predicted memory", "Slowness"],
                     {"rank": "Rank", "node": "Node", "device": "Device"})

    def counted(metric):
        return query(f"sum by ({by}) ({RANKS.increase(metric, 'rank')})")

    def last(gauge):
        return query(f"max by ({by}) ({RANKS.last(gauge, 'rank')})")
    return [
        row("Ranks side by side"),
        table("Ranks", "What each rank did within the time range. Slowness: compute seconds for each flop over the median "
              "of the gang, 1 as fast as the others.",
              [counted(TOKENS), counted(COMPUTE), counted(EXPOSED), counted(HIDDEN), counted(BYTES), last(PEAK),
               last(PREDICTED), last("seqpar_rank_slowness_ratio")],
              transformations=columns, sort="Exposed",
              overrides=[override("Tokens", unit="short"), *(override(name, unit="s") for name in
                                                             ("Compute", "Exposed", "Hidden")),
                         *(override(name, unit="bytes") for name in ("Sent", "Peak memory", "Predicted memory")),
                         override("Slowness", decimals=2, thresholds=thresholds((GREEN,), (YELLOW, 1.2), (RED, 1.5)),
                                  custom_cellOptions={"type": "color-text"}),
                         override("Node", links=[field_link("Open this node", "seqpar-fleet",
                                                            ["var-node=${__value.raw}"])])]),
        timeseries("Compute", "Part of the time in which kernels of the layers ran, by rank.",
                   query(by_rank(COMPUTE), RANK), "percentunit"),
        timeseries("Waiting for communication", "Part of the time in which compute waited for communication, by rank.",
                   query(by_rank(EXPOSED), RANK), "percentunit"),
        timeseries("Imbalance", "Compute of the rank that computes most over the mean of all: 1 is even. What is above it "
                   "is waited for.",
                   query(f"max({by_rank(COMPUTE)}) / clamp_min(avg({by_rank(COMPUTE)}), 1e-9)", "imbalance"), "none",
                   decimals=2, width=8, limits=thresholds((GREEN,), (YELLOW, 1.2), (RED, 1.5))),
        timeseries("Slowness", "Compute seconds for each flop over the median of the gang: 2 is half as fast as the "
                   "others. A device, not the plan, is slow.",
                   query(now_by_rank("seqpar_rank_slowness_ratio"), RANK), "none", decimals=2, width=8,
                   limits=thresholds((GREEN,), (YELLOW, 1.2), (RED, 1.5))),
        timeseries("Kernels", "Compute of all ranks by kind of kernel: 1 is one device's whole time.",
                   query(f"sum by (kernel) ({RANKS.rate(COMPUTE, 'rank')})", "{{kernel}}"), "short", width=8, stack=True,
                   calcs=()),
    ]


def overlap():
    hidden, exposed = by_rank(HIDDEN), by_rank(EXPOSED)
    return [
        row("Overlap"),
        timeseries("Communication hidden", "Part of the communication that compute did not wait for, by rank.",
                   query(f"{hidden} / clamp_min({hidden} + {exposed}, 1e-9)", RANK), "percentunit", high=1),
        timeseries("Communication of all ranks", "Seconds each second: exposed is what compute waited for.",
                   [query(total(EXPOSED), "exposed"), query(total(HIDDEN), "hidden")], "s", stack=True, calcs=()),
        timeseries("Sent by operation", "Payload that the ranks send, by what it is for.",
                   query(f"sum by (operation) ({RANKS.rate(BYTES, 'rank')})", "{{operation}}"), "binBps", stack=True),
        timeseries("Sent by rank", "Payload that each rank sends.", query(by_rank(BYTES), RANK), "binBps"),
    ]


def predicted():
    ratio = "seqpar_predicted_over_measured_ratio"
    strategy = f"count by (strategy) (last_over_time({RANKS.info}[$__range]))"

    def mean(quantity):
        part = f'{{quantity="{quantity}"}}[$__range]'
        return query(f"(sum by (strategy) (increase({ratio}_sum{part})) / "
                     f"clamp_min(sum by (strategy) (increase({ratio}_count{part})), 1e-9)) and on (strategy) {strategy}",
                     f"{quantity} {{{{strategy}}}}")
    return [
        row("Predicted and measured"),
        timeseries("Memory", "Of each rank: used now, its peak, what the plan predicted, and the limit.",
                   [query(now_by_rank(USED), "used " + RANK), query(now_by_rank(PEAK), "peak " + RANK),
                    query(now_by_rank(PREDICTED), "predicted " + RANK), query(now_by_rank(LIMIT), "limit " + RANK)],
                   "bytes"),
        timeseries("Predicted over measured memory", "Predicted peak over the peak so far, by rank. Below 1: the rank took "
                   "more than was planned for it.",
                   query(f"max by (rank) ({RANKS.join(f'({PREDICTED} / {PEAK})', 'rank')})", RANK), "none", decimals=2,
                   limits=thresholds((RED,), (GREEN, 1))),
        bargauge("Time in execute", "Seconds of each rank within the time range, and what the plan predicted for this job's "
                 "slowest rank: a rank beyond it makes the job late.",
                 [query(f"max({RANKS.last(STEP, 'rank')})", "predicted"),
                  query(f"max by (rank) ({RANKS.increase(EXECUTE, 'rank')})", RANK)], "s", width=8),
        timeseries("Predicted over measured, finished attempts", "Mean over the attempts of the job's strategy that "
                   "finished within the time range, this job's among them: 1 is exact, 2 took half of what was predicted.",
                   [mean("time"), mean("memory")], "none", decimals=2, width=8),
        timeseries("Verification", "Worst error of the last verified rank of each device, and the bound of its job.",
                   [query(now_by_rank("seqpar_device_verification_error"), "error " + RANK),
                    query(now_by_rank("seqpar_device_verification_error_bound"), "bound " + RANK)], "sci", low=None,
                   log=True, width=8),
    ]


def gpus():
    some = f'(seqpar_device_info{{UUID!=""}} and {ON} {RANKS.info})'
    legend = "{{node}}/{{device}}"
    return [
        row("Its GPUs, from dcgm-exporter"),
        timeseries("GPU busy", "Part of the time in which a kernel ran on the GPU: waiting inside a collective counts too.",
                   query(gpu("DCGM_FI_DEV_GPU_UTIL", some) + " / 100", legend), "percentunit", width=8, high=1),
        timeseries("Tensor cores busy", "Part of the cycles in which the tensor cores worked.",
                   query(gpu("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", some), legend), "percentunit", width=8, high=1),
        timeseries("Clock of the multiprocessors", "A GPU that is hot or short of power lowers it: a slow rank's first "
                   "suspect.", query(gpu("(DCGM_FI_DEV_SM_CLOCK * 1e6)", some), legend), "hertz", width=8),
    ]


def make():
    known = "label_values(seqpar_rank_info{0}, {1})"
    of_job = '{job_id="$job_id"}'
    return dashboard(
        "seqpar-job", "seqpar / Job", "One job: its phases, its ranks side by side, what overlapped, who was slow, what had "
        "been predicted. Choose a time range in which it ran.",
        [variable("job_id", "Job", known.format("", "job_id"), many=False, description="Jobs with ranks in the time range"),
         variable("attempt", "Attempt", known.format(of_job, "attempt")),
         variable("rank", "Rank", known.format(of_job, "rank")), *WINDOWS],
        overview() + phases() + side_by_side() + overlap() + predicted() + gpus(), refresh="10s")
