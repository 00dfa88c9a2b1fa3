"""Which plan a job came through with, and how the same plan is asked for again."""
import re


def mesh_of(text):
    """{"tensor": 1, "ulysses": 2, "ring": 4, "inner": 2} of "U2 x R4 (inner 2)"."""
    degrees = {name: int(n) for name, n in re.findall(r"\b([TUR])(\d+)", text)}
    mesh = {"tensor": degrees.get("T", 1), "ulysses": degrees.get("U", 1), "ring": degrees.get("R", 1)}
    if inner := re.search(r"inner (\d+)", text):
        mesh["inner"] = int(inner.group(1))
    return mesh


def plan_of(job):
    """A name of everything that decides a result's bits: its arithmetic, not where it ran."""
    report = job["report"]
    return " / ".join([job["name"], *(report.get(k, "") for k in ("strategy", "mesh", "layout", "core", "recompute"))])


def is_pinned(job):
    """Whether every attempt had that plan, whatever was left of the cluster."""
    workers = job.get("workers", {})
    layout = job.get("parallelism", {}).get("layout", "LAYOUT_AUTO")
    return workers.get("min") == workers.get("max") and (workers.get("max") == 1 or not layout.endswith("AUTO"))


def pinned_to(spec, report):
    """The job of that kind with the plan of a report."""
    mesh = mesh_of(report["mesh"])
    ranks = mesh["tensor"] * mesh["ulysses"] * mesh["ring"]
    found = {k: v for k, v in spec.items() if k != "parallelism"}
    found["workers"] = {"min": ranks, "max": ranks}
    if ranks > 1:
        found["parallelism"] = {"strategy": report["strategy"], **mesh, "layout": report["layout"]}
        if report["strategy"] == "hybrid":
            found["parallelism"]["core"] = report["core"]
    if report.get("recompute") and spec.get("pass") == "forward_backward":
        found["recompute"] = report["recompute"]
    return found
