"""What a run comes to: violations, how much happened, figures; as values, and as a table for people."""
import collections

from checker import ENDED, check
from cluster import LEASE_SECONDS, STEP_SECONDS
from figures import BOUNDS, measure, summary
from history import History

FAILED, INVALID = 1, 3


def of(folder, options):
    return judge(History.read(folder), options)


def judge(history, options):
    violations = check(history)
    own = set(history.end.get("own_jobs", []))
    states = collections.Counter(job["state"].replace("JOB_STATE_", "") for job_id, job in history.jobs.items()
                                 if job["state"] in ENDED and job_id not in own)
    faults = collections.Counter(f["kind"] for f in history.faults())
    hits = {name: 0 for name in history.end.get("failpoints", [])}
    for record in history.end.get("hits", []):
        hits[record["name"]] = hits.get(record["name"], 0) + 1
    short = []
    for what, got, least in (("faults", sum(faults.values()), options.min_faults), ("ended jobs", sum(states.values()), options.min_jobs)):
        if got < least:
            short.append(f"{got} {what} of at least {least}")
    seldom = sorted(name for name, n in hits.items() if n < options.min_hits)
    if options.min_hits and not hits:
        short.append("no failpoints")
    if seldom:
        short.append(f"under {options.min_hits} hits of {len(seldom)} of {len(hits)} failpoints: {', '.join(seldom)}")
    run = (history.told("run") or [{}])[0]
    return {"seed": run.get("seed"), "seconds": run.get("seconds"), "isolated": run.get("isolated"),
            "faults": dict(faults), "jobs": dict(states), "attempts": sum(len(j.get("attempts", [])) for j in history.jobs.values()),
            "hits": hits, "violations": violations, "valid": not short, "short": short,
            "figures": summary(measure(history, LEASE_SECONDS, STEP_SECONDS)),
            "exit_code": FAILED if violations else INVALID if short else 0}


def table(found):
    lines = [f"seed {found['seed']}, {found['seconds']:.0f} s of faults" + ("" if found["isolated"] else ", on loopback alone"), ""]
    for kind, count in sorted(found["faults"].items()):
        lines.append(f"{count:6}  {kind}")
    lines.append(f"{sum(found['faults'].values()):6}  faults")
    states = ", ".join(f"{n} {state.lower()}" for state, n in sorted(found["jobs"].items()))
    lines += ["", f"{sum(found['jobs'].values())} jobs ended ({states}), {found['attempts']} attempts", ""]
    if found["hits"]:
        lines += [f"{n:6}  hits of {name}" for name, n in sorted(found["hits"].items())] + [""]
    if found["figures"]:
        lines.append("seconds (p50, p99, times): found, beyond its deadline where it has one | gang stopped | next first tile, "
                     "both from the verdict")
        for kind, parts in found["figures"].items():
            cells = [f"{p['p50']:6.2f} {p['p99']:6.2f} {p['n']:4}" if (p := parts.get(name)) else " " * 18 for name in BOUNDS]
            lines.append(f"  {kind:36} {' | '.join(cells)}")
        lines.append("")
    lines += [f"VIOLATION of '{v['rule']}': {v['what']}" for v in found["violations"]]
    lines.append(f"{len(found['violations'])} violations")
    lines += [f"INVALID: {what}" for what in found["short"]]
    return "\n".join(lines)
