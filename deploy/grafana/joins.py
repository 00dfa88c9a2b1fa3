"""PromQL that joins what devices do with the job that they do it for.

No metric but seqpar_rank_info carries a job's id: it is 1 for each rank that runs, and gone with it. A counter times
seqpar_rank_info is therefore a counter of that job alone, which exists from its first scrape to its last, and a rate taken
over *that*, by a subquery, sees nothing of the job that used the device before or after. (The rate of the counter,
joined afterwards, would: for one window at each end.)

A subquery needs a resolution that fits its window. Both are hidden variables of the dashboard that grow with its time
range, so that a query costs about 300 steps over an hour as over a month, and a window always holds several of them.
"""
from panels import variable

ON = "on (node, device)"


def interval(name, count, least):
    """A hidden variable: the dashboard's time range / `count`, and `least` at least."""
    return {"type": "interval", "name": name, "label": name, "hide": 2, "skipUrlSync": True, "query": least,
            "current": {"selected": True, "text": "auto", "value": f"$__auto_interval_{name}"}, "multi": False,
            "allowCustomValue": False, "refresh": 2, "includeAll": False, "auto": True, "auto_min": least,
            "auto_count": count}


RESOLUTION = interval("resolution", 300, "1s")
WINDOWS = [interval("window", 30, "1m"), RESOLUTION]


class Ranks:
    """The ranks that `selector` chooses: 'job_id="$job_id"'."""

    def __init__(self, selector):
        self.info = f"seqpar_rank_info{{{selector}}}"

    def join(self, metric, *keep):
        """`metric`, of each device, while one of these ranks runs on it; with the rank's labels `keep`."""
        return f"{metric} * {ON} group_left ({', '.join(keep)}) {self.info}"

    def rate(self, metric, *keep):
        return f"rate(({self.join(metric, *keep)})[$window:$resolution])"

    def increase(self, metric, *keep):
        """Over the dashboard's time range."""
        return f"increase(({self.join(metric, *keep)})[$__range:$resolution])"

    def recent(self, metric, *keep):
        """The last value within the window of `rate`: what a rate is divided by, since both end later than the ranks."""
        return f"last_over_time(({self.join(metric, *keep)})[$window:$resolution])"

    def last(self, metric, *keep):
        """The last value within the dashboard's time range."""
        return f"last_over_time(({self.join(metric, *keep)})[$__range:$resolution])"


def gpu(metric, uuids="seqpar_device_info{UUID!=\"\"}"):
    """A series of dcgm-exporter, with the node and device that seqpar knows the GPU by."""
    return f"{metric} * on (UUID) group_left (node, device) {uuids}"


def node_variable():
    return variable("node", "Node", "label_values(seqpar_device_info, node)", description="Worker nodes")
