"""What ranks send each other: by strategy, by operation, by link; and how much of it was waited for."""
from joins import ON, WINDOWS, Ranks, gpu, node_variable
from panels import (GREEN, RED, YELLOW, bargauge, dashboard, heatmap, query, row, stat, thresholds, timeseries, variable)

# Ranks of the chosen strategies on the chosen nodes, whatever their job.
RANKS = Ranks('strategy=~"$strategy", node=~"$node"')
PART = '{operation=~"$operation", link=~"$link"}'
BYTES = "seqpar_device_sent_bytes_total" + PART
MESSAGES = "seqpar_device_sent_messages_total" + PART
TOKENS = "seqpar_device_tokens_total"
EXPOSED = "seqpar_device_communication_exposed_seconds_total"
HIDDEN = "seqpar_device_communication_hidden_seconds_total"


def by(label, metric):
    return f"sum by ({label}) ({RANKS.rate(metric, 'strategy')})"


def total(metric):
    return f"sum({RANKS.rate(metric, 'strategy')})"


def totals():
    return [
        row("Totals"),
        stat("Sent", "Payload that ranks send to other ranks.", query(total(BYTES)), "binBps"),
        stat("Messages", "Messages that ranks send to other ranks.", query(total(MESSAGES)), "cps"),
        stat("Mean message", "Payload of a message. Small ones are bound by latency.",
             query(f"{total(BYTES)} / clamp_min({total(MESSAGES)}, 1e-9)"), "bytes"),
        stat("For each token", "Payload sent for each token worked off.",
             query(f"{total(BYTES)} / clamp_min({total(TOKENS)}, 1e-9)"), "bytes"),
        stat("Hidden", "Part of the communication that compute did not wait for.",
             query(f"{total(HIDDEN)} / clamp_min({total(HIDDEN)} + {total(EXPOSED)}, 1e-9)"), "percentunit",
             limits=thresholds((RED,), (YELLOW, 0.5), (GREEN, 0.8))),
        stat("Waiting", "Part of a rank's time that it waits for communication, over all ranks.",
             query(f"avg({RANKS.rate(EXPOSED, 'strategy')})"), "percentunit",
             limits=thresholds((GREEN,), (YELLOW, 0.2), (RED, 0.5))),
    ]


def by_strategy():
    return [
        row("By strategy"),
        timeseries("Sent", "Payload, by the strategy of the job.", query(by("strategy", BYTES), "{{strategy}}"), "binBps",
                   width=8, stack=True),
        timeseries("Sent for each token", "Payload for each token worked off, by strategy: what the strategy costs on the "
                   "wire.",
                   query(f"{by('strategy', BYTES)} / clamp_min({by('strategy', TOKENS)}, 1e-9)", "{{strategy}}"), "bytes",
                   width=8),
        timeseries("Hidden", "Part of the communication that compute did not wait for, by strategy.",
                   query(f"{by('strategy', HIDDEN)} / clamp_min({by('strategy', HIDDEN)} + {by('strategy', EXPOSED)}, 1e-9)",
                         "{{strategy}}"), "percentunit", width=8, high=1),
    ]


def by_operation():
    return [
        row("By operation"),
        timeseries("Sent", "Payload, by what it is for.", query(by("operation", BYTES), "{{operation}}"), "binBps", width=8,
                   stack=True),
        timeseries("Messages", "Messages, by what they are for.", query(by("operation", MESSAGES), "{{operation}}"), "cps",
                   width=8, stack=True),
        timeseries("Mean message", "Payload of a message, by operation.",
                   query(f"{by('operation', BYTES)} / clamp_min({by('operation', MESSAGES)}, 1e-9)", "{{operation}}"),
                   "bytes", width=8),
    ]


def by_link():
    device = f"sum by (node, device) ({RANKS.rate(EXPOSED, 'strategy')})"
    return [
        row("By link"),
        timeseries("Sent", "Payload within nodes (local) and between them (network).",
                   query(by("link", BYTES), "{{link}}"), "binBps", stack=True),
        timeseries("Sent by node", "Payload, by the node that sends and the link.",
                   query(by("node, link", BYTES), "{{node}} {{link}}"), "binBps"),
        bargauge("Waiting, by device", "Part of its time that the rank on the device waits for communication. One that waits "
                 "less than its peers is the one that they wait for.",
                 query(device, "{{node}}/{{device}}"), "percentunit", high=1,
                 limits=thresholds((GREEN,), (YELLOW, 0.2), (RED, 0.5)), calc="mean"),
        heatmap("Bootstrap", "From the start of an executor's bootstrap until its rank was connected.",
                'sum by (le) (increase(seqpar_device_bootstrap_seconds_bucket{node=~"$node"}[$__rate_interval]))', "s"),
    ]


def wires():
    some = f'(seqpar_device_info{{UUID!="", node=~"$node"}} and {ON} {RANKS.info})'
    legend = "{{node}}/{{device}}"
    return [
        row("Wires of the GPUs, from dcgm-exporter"),
        timeseries("NVLink", "Traffic of the GPU over NVLink. dcgm-exporter serves it where its list of counters has "
                   "DCGM_FI_PROF_NVLINK_TX_BYTES and ..._RX_BYTES.",
                   [query(gpu("DCGM_FI_PROF_NVLINK_TX_BYTES", some), "sent " + legend),
                    query(gpu("DCGM_FI_PROF_NVLINK_RX_BYTES", some), "received " + legend)], "binBps", width=8),
        timeseries("PCIe, sent", "From the GPU to the host.",
                   query(gpu("DCGM_FI_PROF_PCIE_TX_BYTES", some), legend), "binBps", width=8),
        timeseries("PCIe, received", "From the host to the GPU.",
                   query(gpu("DCGM_FI_PROF_PCIE_RX_BYTES", some), legend), "binBps", width=8),
    ]


def make():
    sent = "label_values(seqpar_device_sent_bytes_total, {})"
    return dashboard(
        "seqpar-communication", "seqpar / Communication", "What ranks send each other, by strategy, operation and link, and "
        "how much of it was waited for.",
        [variable("strategy", "Strategy", "label_values(seqpar_rank_info, strategy)",
                  description="Of jobs with ranks in the time range"),
         node_variable(), variable("operation", "Operation", sent.format("operation")),
         variable("link", "Link", sent.format("link")), *WINDOWS],
        totals() + by_strategy() + by_operation() + by_link() + wires())
