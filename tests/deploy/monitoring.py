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
FROM_PROMETHEUS = {"up": {}, "ALERTS": {"alertname": None, "alertstate": {"firing", "pending"}, "severity": None}}
SCRAPED = {"job", "instance", "namespace"}  # labels that scraping adds; the last one by the Prometheus operator


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
    """{name of a series: {label: its values, None where they are not known beforehand}}, from docs/metrics.md; of a
    histogram the three series that it is served as."""
    found = {}
    for part in re.split(r"^### ", (ROOT / "docs/metrics.md").read_text(), flags=re.M)[1:]:
        name, kind = re.match(r"(\w+)\n(\w+)\.", part).groups()
        labels = {}
        for label, listed in re.findall(r"^- `(\w+)`:.*?((?:(?:; |, )`[^`\n]+`)*)$", part, flags=re.M):
            labels[label] = set(re.findall(r"`([^`]+)`", listed)) or None
        if kind == "histogram":
            found.update({name + "_bucket": {**labels, "le": None}, name + "_sum": labels, name + "_count": labels})
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


def unknown_values(selector, labels):
    """Values that `selector` asks for, and that its label never has; a pattern asks for each of its alternatives."""
    for label, operator, text in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"', selector):
        known = labels.get(label)
        if known is None or "$" in text:  # of a variable of a dashboard
            continue
        for wanted in text.split("|") if "~" in operator and "(" not in text else [text]:
            if not any(re.fullmatch(wanted if "~" in operator else re.escape(wanted), value) for value in known):
                yield f"{label}={wanted}"


def unknown_names(expr):
    """What `expr` asks for that nobody serves: names of series, labels that its series do not have, and values that their
    labels never have."""
    known = metrics()
    quoted = r'"(?:[^"\\]|\\.)*"'
    bare = re.sub(quoted, '""', expr)
    labels = set(SCRAPED)
    wrong = set()
    for name, selector in re.findall(rf"\b(seqpar_\w+|DCGM_\w+|up|ALERTS)\b\s*(\{{(?:{quoted}|[^}}\"])*\}})?", expr):
        if name.startswith("DCGM_"):
            own = {"UUID": None}
            wrong |= set() if name in DCGM else {name}
        else:
            own = known.get(name, FROM_PROMETHEUS.get(name))
            if own is None:
                wrong.add(name)
                continue
        labels |= set(own)
        wrong |= {f"{name}{{{label}}}" for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", re.sub(quoted, '""', selector))
                  if label not in set(own) | SCRAPED}
        wrong |= {f"{name}{{{wanted}}}" for wanted in unknown_values(selector, own)}
    for group in re.findall(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)", bare):
        wrong |= {f"({label})" for label in re.findall(r"\w+", group) if label not in labels}
    return wrong
