"""coordinator-statefulset.yaml, coordinator-service.yaml, its disruption budget."""
from chart import ChartTest, main

NAME = "r-seqpar-coordinator"


class Coordinator(ChartTest):
    def test_one_with_a_store_that_only_it_may_mount(self):
        spec = self.one("StatefulSet", NAME)["spec"]
        self.assertEqual(spec["replicas"], 1)
        (claim,) = spec["volumeClaimTemplates"]
        self.assertEqual(claim["spec"]["accessModes"], ["ReadWriteOncePod"])
        self.assertEqual(claim["spec"]["resources"]["requests"]["storage"], "10Gi")
        self.assertNotIn("storageClassName", claim["spec"])
        _, container = self.pod("coordinator")
        mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
        self.assertIn(f"--state-dir={mounts[claim['metadata']['name']]}", container["args"])

    def test_the_store_as_the_cluster_can(self):
        store = {"accessMode": "ReadWriteOnce", "storageClass": "fast", "size": "5Gi"}
        (claim,) = self.one("StatefulSet", NAME, {"coordinator": {"store": store}})["spec"]["volumeClaimTemplates"]
        self.assertEqual(claim["spec"], {"accessModes": ["ReadWriteOnce"], "storageClassName": "fast",
                                         "resources": {"requests": {"storage": "5Gi"}}})

    def test_its_tmp_is_limited(self):
        (volume,) = [v for v in self.pod("coordinator", {"coordinator": {"tmp": "5Mi"}})[0]["volumes"] if v["name"] == "tmp"]
        self.assertEqual(volume["emptyDir"], {"sizeLimit": "5Mi"})

    def test_it_mounts_the_data_where_workers_do(self):
        values = {"data": {"name": "lake", "mountPath": "/srv/lake"}}
        for component in ("coordinator", "worker"):
            spec, container = self.pod(component, values)
            self.assertIn("--data-root=lake=/srv/lake", container["args"])
            self.assertIn({"name": "data", "mountPath": "/srv/lake"}, container["volumeMounts"])
            self.assertIn({"name": "data", "persistentVolumeClaim": {"claimName": "r-seqpar-data"}}, spec["volumes"])

    def test_it_listens_off_loopback_knowingly(self):
        _, container = self.pod("coordinator", {"coordinator": {"port": 9000, "metricsPort": 9001}})
        for argument in ("--listen=0.0.0.0:9000", "--allow-insecure", "--metrics-listen=0.0.0.0:9001",
                         "--log-format=json"):
            self.assertIn(argument, container["args"])
        self.assertEqual({p["name"]: p["containerPort"] for p in container["ports"]}, {"grpc": 9000, "metrics": 9001})

    def test_flags(self):
        _, container = self.pod("coordinator", {"coordinator": {"flags": {"lease": "10s", "max-attempts": 5}}})
        self.assertLessEqual({"--lease=10s", "--max-attempts=5"}, set(container["args"]))
        for factor in (0, 1.2, 2.5, 3):
            _, container = self.pod("coordinator", {"coordinator": {"flags": {"replace-slow-ranks": factor}}})
            self.assertIn(f"--replace-slow-ranks={factor}", container["args"])
        self.refused({"coordinator": {"flags": {"replace-slow-ranks": 1.1}}}, "replace-slow-ranks")
        for idle in ("off", "5m"):
            _, container = self.pod("coordinator", {"coordinator": {"flags": {"measure-links": idle}}})
            self.assertIn(f"--measure-links={idle}", container["args"])
        self.refused({"coordinator": {"flags": {"measure-links": False}}}, "measure-links")
        _, container = self.pod("coordinator", {"coordinator": {"flags": {"keep-jobs": 20_000_000, "keep-days": 0}}})
        self.assertLessEqual({"--keep-jobs=20000000", "--keep-days=0"}, set(container["args"]))

    def test_tenants(self):
        self.assertNotIn(("ConfigMap", f"{NAME}-tenants"), self.render())
        few = {"tenants": {"search": {"devices": 64}, "*": {"queuedJobs": 1_000_000, "runningJobs": 2, "devices": 16,
                                                            "outputBytes": "2Ti"}}}
        self.assertEqual(self.one("ConfigMap", f"{NAME}-tenants", few)["data"]["tenants"].split("\n"), [
            "tenant=* devices=16 queued_jobs=1000000 running_jobs=2 output_bytes=2Ti", "tenant=search devices=64", ""])
        spec, container = self.pod("coordinator", few)
        self.assertIn({"name": "tenants", "configMap": {"name": f"{NAME}-tenants"}}, spec["volumes"])
        (mount,) = [m for m in container["volumeMounts"] if m["name"] == "tenants"]
        self.assertIn(f"--tenants={mount['mountPath']}/tenants", container["args"])
        # Another file is read by another pod; the same one by the same.
        notes = [self.one("StatefulSet", NAME, values)["spec"]["template"]["metadata"].get("annotations") for values in
                 (few, {"tenants": {**few["tenants"], "search": {"devices": 65}}}, {**few, "runAsUser": 7}, {})]
        self.assertNotEqual(notes[0], notes[1])
        self.assertEqual(notes[0], notes[2])
        self.assertIsNone(notes[3])
        for wrong, word in (({"a b": {"devices": 1}}, "a b"), ({"a": {"devices": 0}}, "/tenants/a/devices"),
                            ({"a": {"device": 1}}, "'device'"), ({"a": {"outputBytes": 5}}, "/tenants/a/outputBytes")):
            self.refused({"tenants": wrong}, word)

    def test_probes(self):
        _, container = self.pod("coordinator")
        for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
            self.assertEqual(container[probe]["httpGet"], {"path": path, "port": "metrics"})

    def test_the_service_finds_it(self):
        service = self.one("Service", NAME, {"coordinator": {"port": 9000, "metricsPort": 9001}})["spec"]
        template = self.one("StatefulSet", NAME)["spec"]["template"]["metadata"]["labels"]
        self.assertLessEqual(service["selector"].items(), template.items())
        self.assertFalse(service["selector"].items() <= self.one("StatefulSet", "r-seqpar-worker")["spec"]["template"][
            "metadata"]["labels"].items())
        self.assertEqual({p["name"]: p["port"] for p in service["ports"]}, {"grpc": 9000, "metrics": 9001})
        self.assertNotIn("type", service)  # ClusterIP: nobody outside
        self.assertIn(f"--coordinator={NAME}:9000", self.pod("worker", {"coordinator": {"port": 9000,
                                                                                       "metricsPort": 9001}})[1]["args"])

    def test_no_disruption_budget_unless_asked_for(self):
        self.assertNotIn(("PodDisruptionBudget", NAME), self.render())
        budget = self.one("PodDisruptionBudget", NAME, {"coordinator": {"podDisruptionBudget": True}})["spec"]
        self.assertEqual(budget["maxUnavailable"], 0)

    def test_where_it_runs(self):
        spec, _ = self.pod("coordinator", {"coordinator": {
            "nodeSelector": {"a": "b"}, "tolerations": [{"key": "k", "operator": "Exists"}], "priorityClassName": "p"}})
        self.assertEqual(spec["nodeSelector"], {"a": "b"})
        self.assertEqual(spec["tolerations"], [{"key": "k", "operator": "Exists"}])
        self.assertEqual(spec["priorityClassName"], "p")

    def test_ports_that_collide_are_refused(self):
        self.refused({"coordinator": {"port": 7701}}, "coordinator.metricsPort", "7701")


if __name__ == "__main__":
    main()
