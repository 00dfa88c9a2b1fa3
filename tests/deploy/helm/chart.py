"""The chart rendered with values, for the tests beside this file; they go on in tests/.venv's python."""
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
VENV = ROOT / "tests/.venv/bin/python"
if VENV.exists() and pathlib.Path(sys.prefix).resolve() != VENV.parents[1].resolve():
    os.execv(VENV, [str(VENV), *sys.argv])
try:
    import helm_sdkpy  # noqa: F401  only to know: render.py loads it in a process of its own
    import kubernetes_validate
    import yaml
except ImportError as missing:
    print(f"SKIPPED: {missing} (scripts/install-deps --tests)")
    sys.exit(77)

import cert_manager  # these need what was asked for above
import prometheus_operator

CHART = ROOT / "deploy/helm/seqpar"
# Values files for whole installations; None: the defaults.
EXAMPLES = (None, "values-one-machine.yaml", "values-gpu-cluster.yaml", "values-rdma-cluster.yaml",
            "values-high-security.yaml")
KUBERNETES = ("1.30", "1.37")  # the oldest that the chart takes, the newest with schemas here


def values_of(example):
    return yaml.safe_load((CHART.parent / example).read_text())


def merge(base, over):
    """Helm's rule for values: maps are merged, everything else is replaced."""
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    return {**base, **{key: merge(base.get(key), value) for key, value in over.items()}}


@functools.lru_cache(maxsize=None)
def run_helm(request):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(request)
        file.flush()
        done = subprocess.run([sys.executable, pathlib.Path(__file__).with_name("render.py"), file.name],
                              capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return done.stdout


@functools.lru_cache(maxsize=None)
def validate(manifest):
    for version in KUBERNETES:
        kubernetes_validate.validate(json.loads(manifest), version, strict=True)


class ChartTest(unittest.TestCase):
    def result(self, values=None, example=None, **request):
        if example is not None:
            values = merge(values_of(example), values or {})
        request = {"chart": str(CHART), "release": "r", "values": values or {}, **request}
        return json.loads(run_helm(json.dumps(request, sort_keys=True)))

    def render(self, values=None, example=None, **request):
        """{(kind, name): manifest} of a release named r; every manifest is checked strictly against the schemas."""
        result = self.result(values, example, **request)
        self.assertNotIn("error", result)
        found = {}
        for manifest in result["manifests"] + result["hooks"]:
            key = (manifest["kind"], manifest["metadata"]["name"])
            self.assertNotIn(key, found, "twice")
            found[key] = manifest
            if manifest["apiVersion"].startswith("cert-manager.io/"):
                cert_manager.validate(manifest)
            elif manifest["apiVersion"].startswith("monitoring.coreos.com/"):
                prometheus_operator.validate(manifest)
            else:
                validate(json.dumps(manifest))
        return found

    def one(self, kind, name, values=None, example=None):
        return self.render(values, example)[kind, name]

    def pod(self, component, values=None, example=None):
        """The pod spec of a component and its container."""
        kind = "StatefulSet"
        if component == "worker" and (kind, "r-seqpar-worker") not in self.render(values, example):
            kind = "DaemonSet"
        spec = self.one(kind, f"r-seqpar-{component}", values, example)["spec"]["template"]["spec"]
        self.assertEqual(len(spec["containers"]), 1)
        return spec, spec["containers"][0]

    def refused(self, values, *words):
        error = self.result(values).get("error", "")
        self.assertTrue(error, f"was taken: {values}")
        for word in words:
            self.assertIn(word, error)


def main():
    unittest.main(verbosity=2)
