"""How soon each kind of fault was found, its gang stopped, and the next attempt at work: from logs, for faults that met a
running attempt while nothing else was broken."""
import re
import statistics

# What finds it: how long that may take by itself, in seconds, as "lease" or "step".
MEASURED = {
    "executor killed": "exit",
    "executor stopped": "step",
    "worker killed": "lease",
    "worker stopped": "lease",
    "host cut off": "lease",
    "host cut off from the coordinator": "lease",
}
BOUNDS = {"found": 1.0, "stopped": 2.0, "first_tile": 5.0}  # at p99; found: beyond what its deadline takes
QUIET_SECONDS = 3.0  # between what was broken before and a fault that is measured


def stages(history):
    """{job: [coordinator's records of its stages]} in order of time."""
    found = {}
    for log in history.coordinators:
        for record in log:
            if record["message"] == "job" and "stage" in record:
                found.setdefault(record["job"], []).append(record)
    for records in found.values():
        records.sort(key=lambda r: r["t"])
    return found


def first_tiles(history):
    """{(job, attempt): when its last rank began to execute}."""
    found = {}
    for processes in history.workers.values():
        for log in processes:
            for record in log:
                if record["message"] == "phase begins" and record.get("phase") == "execute" and "job" in record:
                    key = (record["job"], int(record["attempt"]))
                    found[key] = max(found.get(key, 0), record["t"])
    return found


# A rank that stands still: the verdict says which deadline it passed, that of its phase or of its layers.
DEADLINE = re.compile(r"no progress for ([\d.]+) s|did not arrive in phase bootstrap within ([\d.]+) s")


def deadline_of(verdict, otherwise):
    told = DEADLINE.search(verdict.get("why", ""))
    return float(told.group(1) or told.group(2)) if told else otherwise


def verdict_on(fault, by_job, until):
    """(the job's records, the index of the one that says so): the first verdict that names the fault's node."""
    names = re.compile(rf"rank \d+ on {fault['node']}/")
    best = None
    for records in by_job.values():
        for i, record in enumerate(records):
            if i == 0 or not fault["begin"] <= record["t"] <= until or record["stage"] not in ("stopping", "queued", "ended"):
                continue
            # Of an attempt that ran when it happened, ended by this and not by its user or its deadline.
            if records[i - 1]["stage"] != "running" or records[i - 1]["t"] > fault["begin"]:
                continue
            if names.search(record.get("why", "")) and (best is None or record["t"] < best[0][best[1]]["t"]):
                best = (records, i)
    return best


def measure(history, lease, step):
    """{kind: {"found": [s], "stopped": [s], "first_tile": [s]}}; found: beyond the lease or step deadline where that is it."""
    waits = {"exit": 0.0, "lease": lease, "step": step}
    by_job, tiles, faults = stages(history), first_tiles(history), history.faults()
    figures = {}
    for i, fault in enumerate(faults):
        wait = waits.get(MEASURED.get(fault["kind"]))
        if wait is None:
            continue
        others = faults[:i] + faults[i + 1:]
        if any(o["begin"] < fault["begin"] < o["end"] + QUIET_SECONDS for o in others):
            continue
        quiet_until = min((o["begin"] for o in others if o["begin"] >= fault["begin"]), default=float("inf"))
        verdict = verdict_on(fault, by_job, quiet_until)
        # A fault that was over before its deadline is not to be found.
        if verdict is None or (wait and fault["end"] < fault["begin"] + wait + BOUNDS["found"]):
            continue
        records, at = verdict
        told = records[at]["t"]
        if wait:
            wait = deadline_of(records[at], wait)
        figure = figures.setdefault(fault["kind"], {"found": [], "stopped": [], "first_tile": []})
        figure["found"].append(max(0.0, told - fault["begin"] - wait))
        over = next((r["t"] for r in records[at:] if r["stage"] in ("queued", "ended")), None)
        if over is not None and over <= quiet_until:
            figure["stopped"].append(over - told)
        tile = tiles.get((records[at]["job"], int(records[at]["attempt"]) + 1))
        if tile is not None and tile <= quiet_until:
            figure["first_tile"].append(tile - told)
    return figures


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def summary(figures):
    """{kind: {"found": {"n", "p50", "p99"}, ...}}"""
    return {kind: {name: {"n": len(values), "p50": round(statistics.median(values), 2), "p99": round(percentile(values, 0.99), 2)}
                   for name, values in parts.items() if values} for kind, parts in sorted(figures.items())}
