"""What the tests of dashboards and alerts share: the table of metrics, PromQL taken apart, Prometheus's programs."""
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
DASHBOARDS = ROOT / "deploy/grafana/dashboards"
RULES = ROOT / "deploy/prometheus/rules/seqpar.yml"
SKIPPED = 77  # exit code of a test that could not run

# What dcgm-exporter serves and a panel may ask for; the stand-in serves exactly these.
DCGM = {"DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_GPU_TEMP",
        "DCGM_FI_DEV_SM_CLOCK", "DCGM_FI_DEV_XID_ERRORS", "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
        "DCGM_FI_PROF_PCIE_TX_BYTES", "DCGM_FI_PROF_PCIE_RX_BYTES", "DCGM_FI_PROF_NVLINK_TX_BYTES",
        "DCGM_FI_PROF_NVLINK_RX_BYTES"}
FROM_PROMETHEUS = {"up": set(), "ALERTS": {"alertname", "alertstate", "severity"}}
SCRAPED = {"job", "instance"}  # labels that scraping adds


def need(*modules, programs=()):
    """Goes on in the tests' own environment (tests/.venv) where these modules are missing here; says SKIPPED and ends
    where something is missing there too. First thing in a test."""
    environment = ROOT / "tests/.venv/bin/python"
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing and environment.exists() and pathlib.Path(sys.prefix) != environment.parents[1]:
        os.execv(environment, [str(environment), *sys.argv])
    missing += [name for name in programs if program(name) is None]
    if missing:
        print(f"SKIPPED: no {', '.join(missing)} (scripts/install-deps --tests)")
        sys.exit(SKIPPED)


def program(name):
    """Path of prometheus or promtool; None where it is missing."""
    unpacked = ROOT / "build-prometheus/root/usr/bin" / name
    return str(unpacked) if os.access(unpacked, os.X_OK) else shutil.which(name)


def promtool(*arguments):
    """(exit code, what it printed)"""
    done = subprocess.run([program("promtool"), *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=120)
    return done.returncode, done.stdout


def metrics():
    """{name of a series: its labels}, from docs/metrics.md; of a histogram the three series that it is served as."""
    found = {}
    for part in re.split(r"^### ", (ROOT / "docs/metrics.md").read_text(), flags=re.M)[1:]:
        name, kind = re.match(r"(\w+)\n(\w+)\.", part).groups()
        labels = set(re.findall(r"^- `(\w+)`:", part, flags=re.M))
        if kind == "histogram":
            found.update({name + "_bucket": labels | {"le"}, name + "_sum": labels, name + "_count": labels})
        else:
            found[name] = labels
    return found


def alerts():
    """{name: {"expr", "for", "labels", "annotations"}} as Prometheus reads the rules."""
    import yaml  # only in the tests' own environment
    return {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}


def alert_names():
    return set(re.findall(r"^ +- alert: (\w+)$", RULES.read_text(), flags=re.M))


def panels():
    """(name of the dashboard's file, panel) of every panel that is not a row."""
    for path in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            if panel["type"] != "row":
                yield path.stem, panel


def unknown_names(expr):
    """What `expr` asks for that nobody serves: names of series, and labels that its series do not have."""
    known = metrics()
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expr)
    labels = set(SCRAPED)
    wrong = set()
    for name, selector in re.findall(r"\b(seqpar_\w+|DCGM_\w+|up|ALERTS)\b\s*(\{[^}]*\})?", bare):
        if name.startswith("DCGM_"):
            own = {"UUID"}
            wrong |= set() if name in DCGM else {name}
        else:
            own = known.get(name, FROM_PROMETHEUS.get(name))
            if own is None:
                wrong.add(name)
                continue
        labels |= own
        wrong |= {f"{name}{{{label}}}" for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector)
                  if label not in own | SCRAPED}
    for group in re.findall(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)", bare):
        wrong |= {f"({label})" for label in re.findall(r"\w+", group) if label not in labels}
    return wrong
