"""The alert rules: right for Prometheus, complete, with a runbook each, and tested at their real durations by promtool."""
import pathlib
import re
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import monitoring  # noqa: E402

monitoring.need("yaml", programs=["promtool"])

import yaml  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
ALERTS = {"SeqparCoordinatorDown", "SeqparWorkerLost", "SeqparDeviceSetAside", "SeqparAttemptsFailing", "SeqparQueueStuck",
          "SeqparLeaseMarginLow", "SeqparStoreSlow", "SeqparDiskFilling", "SeqparSlowRank", "SeqparVerificationError",
          "SeqparPredictionDrift", "SeqparCertificateExpiring"}


class Rules(unittest.TestCase):
    def test_configuration_is_right(self):
        code, out = monitoring.promtool("check", "config", monitoring.ROOT / "deploy/prometheus/prometheus.yml")
        self.assertEqual(code, 0, out)
        self.assertIn(f"SUCCESS: {len(ALERTS)} rules found", out)

    def test_fire_and_do_not(self):
        code, out = monitoring.promtool("test", "rules", *sorted(HERE.glob("*_rules.yml")))
        self.assertEqual(code, 0, out)

    def test_each_is_seen_to_fire_and_not_to(self):
        fires, quiet = set(), set()
        for path in HERE.glob("*_rules.yml"):
            for test in yaml.safe_load(path.read_text())["tests"]:
                for case in test.get("alert_rule_test", []):
                    (fires if case["exp_alerts"] else quiet).add(case["alertname"])
        self.assertEqual((fires, quiet), (ALERTS, ALERTS))

    def test_are_complete(self):
        alerts = monitoring.alerts()
        self.assertEqual(set(alerts), ALERTS)
        sections = re.findall(r"^## (\w+)$", (monitoring.ROOT / "docs/runbooks.md").read_text(), flags=re.M)
        self.assertEqual(sorted(sections), sorted(ALERTS))
        for name, rule in alerts.items():
            with self.subTest(alert=name):
                self.assertIn(rule["labels"]["severity"], ("critical", "warning"))
                self.assertEqual(set(rule["annotations"]), {"summary", "description", "runbook_url"})
                self.assertEqual(rule["annotations"]["runbook_url"], f"docs/runbooks.md#{name.lower()}")
                self.assertEqual(monitoring.unknown_names(rule["expr"]), set())

    def test_each_runbook_says_what_to_do(self):
        text = (monitoring.ROOT / "docs/runbooks.md").read_text()
        for section in re.split(r"^## ", text, flags=re.M)[1:]:
            for part in ("**Means**", "**Look.**", "**Do.**"):
                self.assertIn(part, section, section.splitlines()[0])


if __name__ == "__main__":
    unittest.main()
