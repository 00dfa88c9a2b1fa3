#!/usr/bin/env python3
"""Renders a chart with Helm's own engine: no helm binary, no cluster.

usage: render.py REQUEST.json     e.g. {"chart": "deploy/helm/seqpar", "release": "r", "values": {}}

Helm (the Python package helm-sdkpy) can install but not dry-run, so it installs against a server on the loopback that
knows the kinds of KINDS, holds no objects and refuses to make any. By then the values have passed the schema and every
manifest has been parsed, and Helm's record of the release, which it keeps in memory, has them. Prints
{"manifests": [...], "hooks": [...], "notes": "..."}, or {"error": "..."} where Helm found fault with chart or values;
with "lint": true also "lint", the severities of Helm's findings.
"""
import asyncio
import http.server
import json
import os
import pathlib
import sys
import tempfile
import threading

import yaml

KINDS = {
    "v1": ["ConfigMap", "PersistentVolumeClaim", "Pod", "Service", "ServiceAccount"],
    "apps/v1": ["DaemonSet", "StatefulSet"],
    "networking.k8s.io/v1": ["NetworkPolicy"],
    "policy/v1": ["PodDisruptionBudget"],
    "cert-manager.io/v1": ["Certificate", "Issuer"],
    "monitoring.coreos.com/v1": ["PodMonitor", "PrometheusRule", "ServiceMonitor"],
}
KUBERNETES = "1.37.0"


def discovery(path):
    """What the server says of itself; None: there is no such object."""
    if path == "/version":
        major, minor, _ = KUBERNETES.split(".")
        return {"gitVersion": "v" + KUBERNETES, "major": major, "minor": minor}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        return {"kind": "APIGroupList", "groups": [
            {"name": version.split("/")[0], "versions": [{"groupVersion": version, "version": version.split("/")[1]}]}
            for version in KINDS if "/" in version]}
    version = path.removeprefix("/apis/").removeprefix("/api/")
    if version in KINDS:
        return {"kind": "APIResourceList", "groupVersion": version, "resources": [
            {"name": kind.lower() + "s", "kind": kind, "namespaced": True, "verbs": ["get", "create"]}
            for kind in KINDS[version]]}
    return None


class Api(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet

    def answer(self, code, content):
        body = json.dumps({"apiVersion": "v1", **content}).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        known = discovery(self.path.partition("?")[0])
        if known is None:
            known = {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}
        self.answer(known.get("code", 200), known)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(409, {"kind": "Status", "status": "Failure", "reason": "AlreadyExists", "code": 409})

    do_PUT = do_PATCH = do_DELETE = do_POST

    def log_message(self, *_):
        pass


def install(helm, config, request):
    release, chart = request.get("release", "seqpar"), request["chart"]
    try:
        asyncio.run(helm.Install(config).run(release, chart, request.get("values", {}), wait=False))
    except helm.HelmError as error:
        try:
            record = asyncio.run(helm.History(config).run(release))[0]
        except helm.HelmError:
            return {"error": str(error)}  # it came to no record: the chart or its values are at fault
    else:
        raise AssertionError("nothing was refused: the chart is empty")
    hooks = "\n---\n".join(hook["manifest"] for hook in record.get("hooks", []))
    return {
        "manifests": [m for m in yaml.safe_load_all(record["manifest"]) if m],
        "hooks": [m for m in yaml.safe_load_all(hooks) if m],
        "notes": record["info"]["notes"],
    }


def run(request):
    import helm_sdkpy as helm  # only now: its Go runtime reads the environment that main has set
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.NamedTemporaryFile("w", suffix=".json") as kubeconfig:
        json.dump({"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c"}}], "clusters": [
            {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}]}, kubeconfig)
        kubeconfig.flush()
        config = helm.Configuration(request.get("namespace", "default"), kubeconfig.name)
        result = install(helm, config, request)
        if request.get("lint"):
            findings = asyncio.run(helm.Lint(config).run(request["chart"]))
            levels = ("UNKNOWN", "INFO", "WARNING", "ERROR")
            result["lint"] = [levels[finding["Severity"]] for finding in findings["Messages"] or []]
    return result


def main():
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        return 0 if sys.argv[1:] in (["-h"], ["--help"]) else 2
    if os.environ.get("HELM_DRIVER") != "memory":  # Go has the environment of the process's start
        with tempfile.TemporaryDirectory(prefix="seqpar-helm-") as home:
            clean = {k: v for k, v in os.environ.items() if not k.startswith(("HELM_", "KUBE"))}
            clean.update({k: home for k in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "KUBECACHEDIR")})
            clean.update(HELM_DRIVER="memory", HELM_QPS="1000", HELM_BURST_LIMIT="1000")
            return os.spawnve(os.P_WAIT, sys.executable, [sys.executable, *sys.argv], clean)
    json.dump(run(json.loads(pathlib.Path(sys.argv[1]).read_text())), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
