"""monitors.yaml, rules.yaml, dashboards.yaml."""
import json

from chart import ROOT, ChartTest, main

import prometheus_operator  # these need the python that chart goes on in
import yaml

ON = {"monitoring": {"monitors": True, "rules": True, "dashboards": True, "labels": {"release": "stack"}}}
RULES = ROOT / "deploy/prometheus/rules/seqpar.yml"
DASHBOARDS = ROOT / "deploy/grafana/dashboards"


class Monitoring(ChartTest):
    def test_nothing_by_default(self):
        kinds = {kind for kind, _ in self.render()}
        self.assertFalse(kinds & {"ServiceMonitor", "PodMonitor", "PrometheusRule"})
        self.assertFalse([name for kind, name in self.render() if kind == "ConfigMap" and "dashboard" in name])

    def test_monitors_find_their_targets(self):
        rendered = self.render(ON)
        service = rendered["ServiceMonitor", "r-seqpar-coordinator"]
        self.assertLessEqual(service["spec"]["selector"]["matchLabels"].items(),
                             rendered["Service", "r-seqpar-coordinator"]["metadata"]["labels"].items())
        pods = rendered["PodMonitor", "r-seqpar-worker"]
        self.assertLessEqual(pods["spec"]["selector"]["matchLabels"].items(),
                             self.one("StatefulSet", "r-seqpar-worker")["spec"]["template"]["metadata"]["labels"].items())
        for monitor, endpoints, target in (
                (service, service["spec"]["endpoints"], rendered["Service", "r-seqpar-coordinator"]["spec"]["ports"]),
                (pods, pods["spec"]["podMetricsEndpoints"], self.pod("worker")[1]["ports"])):
            self.assertEqual(monitor["metadata"]["labels"]["release"], "stack")
            (endpoint,) = endpoints
            self.assertIn(endpoint["port"], [p["name"] for p in target])
            self.assertNotIn("path", endpoint)  # /metrics

    def test_the_schema_of_these_kinds_refuses_what_the_operator_does(self):
        rendered = self.render(ON)
        for kind, name, break_it in (
                ("ServiceMonitor", "r-seqpar-coordinator", lambda spec: spec["endpoints"][0].update(relabeling=[])),
                ("PodMonitor", "r-seqpar-worker", lambda spec: spec["podMetricsEndpoints"][0].update(interval="15 s")),
                ("PodMonitor", "r-seqpar-worker", lambda spec: spec.update(endpoints=spec.pop("podMetricsEndpoints"))),
                ("PrometheusRule", "r-seqpar", lambda spec: spec["groups"][0]["rules"][0].pop("expr"))):
            broken = json.loads(json.dumps(rendered[kind, name]))
            prometheus_operator.validate(broken)
            break_it(broken["spec"])
            with self.assertRaises(prometheus_operator.jsonschema.ValidationError):
                prometheus_operator.validate(broken)

    def test_jobs_are_called_as_in_prometheus_yml(self):
        configured = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
        rendered = self.render(ON)
        jobs = {endpoint["relabelings"][0]["replacement"]
                for endpoint in rendered["ServiceMonitor", "r-seqpar-coordinator"]["spec"]["endpoints"] +
                rendered["PodMonitor", "r-seqpar-worker"]["spec"]["podMetricsEndpoints"]}
        self.assertEqual(jobs, {config["job_name"] for config in configured if "seqpar" in config["job_name"]})

    def test_the_rules_are_those_of_deploy_prometheus(self):
        rule = self.one("PrometheusRule", "r-seqpar", ON)
        self.assertEqual(rule["metadata"]["labels"]["release"], "stack")
        self.assertEqual(rule["spec"], yaml.safe_load(RULES.read_text()))
        self.assertTrue(rule["spec"]["groups"])

    def test_runbooks_where_they_are_served(self):
        base = "https://docs.example.com/seqpar/"
        spec = self.one("PrometheusRule", "r-seqpar", {"monitoring": {**ON["monitoring"], "runbookBase": base}})["spec"]
        for group in spec["groups"]:
            for rule in group["rules"]:
                self.assertTrue(rule["annotations"]["runbook_url"].startswith(base + "runbooks.md#"), rule)

    def test_the_dashboards_are_those_of_deploy_grafana(self):
        files = sorted(DASHBOARDS.glob("*.json"))
        self.assertTrue(files)
        maps = {name: manifest for (kind, name), manifest in self.render(ON).items()
                if kind == "ConfigMap" and "-dashboard-" in name}
        self.assertEqual(set(maps), {f"r-seqpar-dashboard-{file.stem}" for file in files})
        for file in files:
            manifest = maps[f"r-seqpar-dashboard-{file.stem}"]
            self.assertEqual(manifest["data"], {file.name: file.read_text()})
            json.loads(manifest["data"][file.name])
            self.assertEqual(manifest["metadata"]["labels"]["grafana_dashboard"], "1")
            self.assertLess(len(json.dumps(manifest)), 1 << 20, "more than a ConfigMap holds")


if __name__ == "__main__":
    main()
