"""A real Prometheus for the end-to-end tests: scrapes every second, with the rules of deploy/prometheus, and answers.

And a stand-in for dcgm-exporter, with the names, labels and units of the real one.
"""
import http.server
import json
import math
import re
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request

import monitoring
from harness import log_tail, scaled, wait_for

SCRAPE_SECONDS = 1


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def hurried(rules, divisor):
    """Alert rules with every `for` divided: what they wait for stays, the wait does not."""
    seconds = {"s": 1, "m": 60, "h": 3600}

    def shorter(match):
        return f"for: {max(1, int(match[1]) * seconds[match[2]] // divisor)}s"
    return re.sub(r"\bfor: (\d+)([smh])$", shorter, rules, flags=re.M)


class Prometheus:
    """`targets`: {scrape job: [address]}. start(arguments, log) makes its process, which ends with the test's others. Alerts
    wait for a `hurry`-th part of what they wait in truth."""

    def __init__(self, folder, targets, start, hurry):
        self.folder = folder / "prometheus"
        self.folder.mkdir()
        (self.folder / "rules.yml").write_text(hurried(monitoring.RULES.read_text(), hurry))
        (self.folder / "prometheus.yml").write_text(json.dumps(self._configuration(targets)))  # JSON is YAML
        self.log = folder / "prometheus.log"
        for _ in range(3):  # somebody else may take the port in between
            self.port = free_port()
            self.process = start([monitoring.program("prometheus"), f"--config.file={self.folder}/prometheus.yml",
                                  f"--storage.tsdb.path={self.folder}/data", "--log.level=warn",
                                  f"--web.listen-address=127.0.0.1:{self.port}"], self.log)
            wait_for(lambda: self.process.popen.poll() is not None or self._ready(), "Prometheus to be ready", 30)
            if self.process.popen.poll() is None:
                return
        raise AssertionError(f"Prometheus does not start: {log_tail(self.log)}")

    @staticmethod
    def _configuration(targets):
        # GPUs that this machine does not have: each device of a node gets the UUID that the stand-in serves.
        uuid = {"source_labels": ["__name__", "node", "device"], "regex": "seqpar_device_info;(.+);(.+)",
                "target_label": "UUID", "replacement": "GPU-$1-$2"}
        every = f"{SCRAPE_SECONDS}s"
        return {"global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
                "rule_files": ["rules.yml"],
                "scrape_configs": [{"job_name": job, "metric_relabel_configs": [uuid],
                                    "static_configs": [{"targets": addresses}]} for job, addresses in targets.items()]}

    def _ready(self):
        try:
            return self._open("/-/ready").startswith(b"Prometheus")
        except (urllib.error.URLError, ConnectionError):
            return False

    def _open(self, path, **form):
        data = urllib.parse.urlencode(form, doseq=True).encode() if form else None
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", data, timeout=scaled(30)) as answer:
            return answer.read()

    def ask(self, path, **form):
        try:
            return json.loads(self._open(f"/api/v1/{path}", **form))["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path} {form}: {error.read().decode()}") from error

    def range(self, expr, begin, end, step=SCRAPE_SECONDS):
        """[(labels, [(time, number)])]"""
        series = self.ask("query_range", query=expr, start=begin, end=end, step=step)["result"]
        return [(s["metric"], [(t, float(v)) for t, v in s["values"]]) for s in series]

    def instant(self, expr, at):
        """The same with one point each."""
        series = self.ask("query", query=expr, time=at)["result"]
        return [(s["metric"], [(s["value"][0], float(s["value"][1]))]) for s in series]

    def number(self, expr):
        """The value now of an expression of one series; None where it has none."""
        result = self.ask("query", query=expr)["result"]
        return float(result[0]["value"][1]) if result else None

    def label_values(self, metric, label, begin, end):
        form = {"match[]": metric, "start": begin, "end": end}
        query = urllib.parse.urlencode(form)
        return json.loads(self._open(f"/api/v1/label/{label}/values?{query}"))["data"]

    def up(self):
        """{(scrape job, address): whether the last scrape went well}"""
        return {(t["labels"]["job"], t["labels"]["instance"]): t["health"] == "up"
                for t in self.ask("targets?state=active")["activeTargets"]}

    def firing(self):
        """Names of the alerts that fire now."""
        return {alert["labels"]["alertname"] for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"}


def finite(series):
    return any(math.isfinite(number) for _, points in series for _, number in points)


class DcgmExporter:
    """Serves what dcgm-exporter would of GPUs with these UUIDs."""
    VALUES = {"DCGM_FI_DEV_GPU_UTIL": 93, "DCGM_FI_DEV_FB_USED": 40960, "DCGM_FI_DEV_POWER_USAGE": 612.5,
              "DCGM_FI_DEV_GPU_TEMP": 61, "DCGM_FI_DEV_SM_CLOCK": 1755, "DCGM_FI_DEV_XID_ERRORS": 0,
              "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": 0.61, "DCGM_FI_PROF_PCIE_TX_BYTES": 1.5e9,
              "DCGM_FI_PROF_PCIE_RX_BYTES": 2.5e9, "DCGM_FI_PROF_NVLINK_TX_BYTES": 9e10,
              "DCGM_FI_PROF_NVLINK_RX_BYTES": 8e10}

    def __init__(self, uuids):
        assert set(self.VALUES) == monitoring.DCGM
        lines = []
        for name, value in self.VALUES.items():
            lines.append(f"# TYPE {name} gauge")
            lines += [f'{name}{{gpu="{i}",UUID="{uuid}",device="nvidia{i}",modelName="NVIDIA H100 80GB HBM3",'
                      f'Hostname="host"}} {value}' for i, uuid in enumerate(uuids)]
        page = "\n".join(lines) + "\n"

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = page.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
