"""The dashboards as files: made by their sources, understood by Grafana's own types, asking only for what is served."""
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import monitoring  # noqa: E402

monitoring.need("grafana_foundation_sdk", "yaml", programs=["promtool"])

from grafana_foundation_sdk.cog import plugins  # noqa: E402
from grafana_foundation_sdk.cog.encoder import JSONEncoder  # noqa: E402
from grafana_foundation_sdk.models.dashboard import Dashboard  # noqa: E402

UIDS = {"fleet": "seqpar-fleet", "job": "seqpar-job", "communication": "seqpar-communication",
        "coordinator": "seqpar-coordinator"}
KINDS = {"timeseries", "stat", "table", "state-timeline", "heatmap", "bargauge"}
BUILT_IN = {"__rate_interval", "__range", "__url_time_range", "__value", "__all"}
VARIABLE = re.compile(r"\$\{?(\w+)")


def load(name):
    return json.loads((monitoring.DASHBOARDS / f"{name}.json").read_text())


def strings(value):
    """Every string within `value`."""
    if isinstance(value, dict):
        value = value.values()
    if isinstance(value, str):
        yield value
    elif not isinstance(value, (int, float, type(None))):
        for item in value:
            yield from strings(item)


class Dashboards(unittest.TestCase):
    def test_are_what_their_sources_make(self):
        generate = monitoring.ROOT / "deploy/grafana/generate.py"
        done = subprocess.run([sys.executable, generate, "--check"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        wrong = subprocess.run([sys.executable, generate, "--chek"], capture_output=True, text=True)
        self.assertEqual((wrong.returncode, "--check" in wrong.stderr), (2, True))

    def test_have_stable_uids_and_the_datasource_variable(self):
        self.assertEqual({path.stem: load(path.stem)["uid"] for path in monitoring.DASHBOARDS.glob("*.json")}, UIDS)
        for name in UIDS:
            first = load(name)["templating"]["list"][0]
            self.assertEqual((first["name"], first["type"], first["query"]), ("datasource", "datasource", "prometheus"))

    def test_survive_grafanas_own_types(self):
        """Their decoder drops what it does not know, and their encoder adds what was left out: neither happens."""
        plugins.register_default_plugins()
        for name in UIDS:
            again = json.loads(JSONEncoder().encode(Dashboard.from_json(load(name))))
            self.assertEqual(again, load(name), name)

    def test_panels_are_complete(self):
        for name, panel in monitoring.panels():
            with self.subTest(dashboard=name, panel=panel["title"]):
                self.assertIn(panel["type"], KINDS)
                self.assertGreater(len(panel["description"]), 5)
                self.assertEqual(panel["datasource"]["uid"], "${datasource}")
                self.assertTrue(panel["targets"])
                for target in panel["targets"]:
                    self.assertEqual(target["datasource"]["uid"], "${datasource}")
                if panel["type"] in ("timeseries", "stat", "bargauge"):
                    self.assertTrue(panel["fieldConfig"]["defaults"]["unit"])

    def test_panels_do_not_overlap_and_have_ids_of_their_own(self):
        for name in UIDS:
            taken, ids = set(), []
            for panel in load(name)["panels"]:
                place = panel["gridPos"]
                cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                         for y in range(place["y"], place["y"] + place["h"])}
                self.assertFalse(cells & taken, f"{name}: {panel['title']}")
                self.assertLessEqual(place["x"] + place["w"], 24)
                taken |= cells
                ids.append(panel["id"])
            self.assertEqual(len(ids), len(set(ids)), name)

    def test_ask_only_for_what_is_served(self):
        for name, panel in monitoring.panels():
            for target in panel["targets"]:
                with self.subTest(dashboard=name, panel=panel["title"]):
                    self.assertEqual(monitoring.unknown_names(target["expr"]), set(), target["expr"])
        for name in UIDS:
            for variable in load(name)["templating"]["list"]:
                if variable["type"] != "query":
                    continue
                metric, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()
                self.assertEqual(monitoring.unknown_names(f"count by ({label}) ({metric})"), set(), name)

    def test_every_metric_is_shown_or_alerted_on(self):
        asked = " ".join([target["expr"] for _, panel in monitoring.panels() for target in panel["targets"]] +
                         [rule["expr"] for rule in monitoring.alerts().values()])
        names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in monitoring.metrics()}
        unused = {name for name in names if not re.search(rf"\b{name}(_bucket|_sum|_count)?\b", asked)}
        # What they say is shown as the coordinator sees it.
        self.assertEqual(unused, {"seqpar_worker_attached", "seqpar_worker_lease_left_seconds",
                                  "seqpar_device_executors_started_total"})

    def test_unknown_names_are_found(self):
        self.assertEqual(monitoring.unknown_names('sum by (node) (seqpar_jobs{state="PENDING", phase="plan"})'), {"(node)"})
        self.assertEqual(monitoring.unknown_names('rate(seqpar_job_total{a="b"}[5m])'), {"seqpar_job_total"})
        self.assertEqual(monitoring.unknown_names('seqpar_jobs{stat="x"}'), {"seqpar_jobs{stat}"})
        self.assertEqual(monitoring.unknown_names('seqpar_job_queue_wait_seconds'), {"seqpar_job_queue_wait_seconds"})
        self.assertEqual(monitoring.unknown_names('DCGM_FI_DEV_X * on (uuid) seqpar_device_info'),
                         {"DCGM_FI_DEV_X", "(uuid)"})
        # Values as well, each of a pattern's.
        self.assertEqual(monitoring.unknown_names('rate(seqpar_store_errors_total{operation=~"write|insert"}[5m]) > 0'),
                         {"seqpar_store_errors_total{operation=insert}"})
        self.assertEqual(monitoring.unknown_names('seqpar_jobs{state!="ENDED", phase=~"$phase"}'), {"seqpar_jobs{state=ENDED}"})
        self.assertEqual(monitoring.unknown_names('seqpar_rpcs_open{method!~".*/(WatchJob|Attach)"}'), set())
        self.assertEqual(monitoring.unknown_names('seqpar_rpcs_open{method!~".*/(WatchJobs|Attaches)"}'),
                         {"seqpar_rpcs_open{method=.*/(WatchJobs|Attaches)}"})

    def test_queries_are_promql(self):
        """promtool parses them, each as a rule, with every variable given a value."""
        rules = []
        for name, panel in monitoring.panels():
            for target in panel["targets"]:
                expr = re.sub(r"\$(__rate_interval|__range|window|resolution)\b", "1m", target["expr"])
                rules.append({"record": f"{name}:{len(rules)}", "expr": VARIABLE.sub("x", expr)})
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "rules.yml"  # JSON is YAML
            path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
            code, out = monitoring.promtool("check", "rules", path)
            self.assertEqual(code, 0, out)
            self.assertIn(f"SUCCESS: {len(rules)} rules found", out)

    def test_variables_are_defined_and_links_lead_somewhere(self):
        for name in UIDS:
            dashboard = load(name)
            defined = {variable["name"] for variable in dashboard["templating"]["list"]}
            used = {variable for text in strings(dashboard) for variable in VARIABLE.findall(text)
                    if not variable.startswith("__auto_interval_")}
            self.assertLessEqual(used, defined | BUILT_IN, name)
            self.assertLessEqual(defined, used | {"datasource"}, f"{name}: a variable that nothing uses")
            for uid, query in re.findall(r"/d/([\w-]+)\?(\S*)", " ".join(strings(dashboard))):
                self.assertIn(uid, UIDS.values())
                target = load(next(n for n, u in UIDS.items() if u == uid))
                known = {variable["name"] for variable in target["templating"]["list"]}
                self.assertLessEqual(set(re.findall(r"var-(\w+)=", query)), known, f"{name} -> {uid}")
            self.assertEqual([(link["type"], link["tags"]) for link in dashboard["links"]], [("dashboards", ["seqpar"])])
            self.assertIn("seqpar", dashboard["tags"])

    def test_provisioning_names_what_is_there(self):
        import yaml
        provisioning = monitoring.ROOT / "deploy/grafana/provisioning"
        source, = yaml.safe_load((provisioning / "datasources/seqpar.yml").read_text())["datasources"]
        self.assertEqual((source["type"], source["uid"]), ("prometheus", "prometheus"))
        scraping = yaml.safe_load((monitoring.ROOT / "deploy/prometheus/prometheus.yml").read_text())["global"]
        self.assertEqual(source["jsonData"]["timeInterval"], scraping["scrape_interval"])
        provider, = yaml.safe_load((provisioning / "dashboards/seqpar.yml").read_text())["providers"]
        self.assertEqual(provider["type"], "file")


if __name__ == "__main__":
    unittest.main()
