"""worker.yaml as StatefulSet and DaemonSet, its service, its disruption budget."""
from chart import ChartTest, main

NAME = "r-seqpar-worker"
RWX = {"accessMode": "ReadWriteMany"}
DAEMONSET = {"worker": {"kind": "DaemonSet", "nodeSelector": {"seqpar": "worker"}}, "data": RWX}


def terms(spec, kind):
    return spec.get("affinity", {}).get(kind, {}).get("requiredDuringSchedulingIgnoredDuringExecution", [])


def selects(selector, labels):
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        e["operator"] == "In" and labels.get(e["key"]) in e["values"] for e in selector.get("matchExpressions", []))


class Worker(ChartTest):
    def test_a_statefulset_whose_pods_are_replaced_only_by_hand(self):
        spec = self.one("StatefulSet", NAME, {"worker": {"replicas": 3}, "data": RWX})["spec"]
        self.assertEqual(spec["replicas"], 3)
        self.assertEqual(spec["podManagementPolicy"], "Parallel")
        self.assertEqual(spec["updateStrategy"], {"type": "OnDelete"})
        service = self.one("Service", spec["serviceName"])["spec"]
        self.assertEqual(service["clusterIP"], "None")
        self.assertLessEqual(service["selector"].items(), spec["template"]["metadata"]["labels"].items())

    def test_no_two_on_a_node(self):
        for values in ({}, DAEMONSET):
            (term,) = terms(self.pod("worker", values)[0], "podAntiAffinity")
            self.assertEqual(term["topologyKey"], "kubernetes.io/hostname")
            self.assertEqual(term["labelSelector"]["matchLabels"]["app.kubernetes.io/component"], "worker")

    def test_a_daemonset_by_value(self):
        spec = self.one("DaemonSet", NAME, DAEMONSET)["spec"]
        self.assertEqual(spec["updateStrategy"], {"type": "OnDelete"})
        self.assertEqual(spec["template"]["spec"]["nodeSelector"], {"seqpar": "worker"})
        (name,) = [e for e in spec["template"]["spec"]["containers"][0]["env"] if e["name"] == "SEQPAR_WORKER_NODE_NAME"]
        self.assertEqual(name["valueFrom"]["fieldRef"]["fieldPath"], "spec.nodeName")
        rendered = self.render(DAEMONSET)
        self.assertNotIn(("StatefulSet", NAME), rendered)
        self.assertNotIn(("Service", NAME), rendered)
        self.assertNotIn(("PodDisruptionBudget", NAME), rendered)  # the budget's controller knows no DaemonSets
        self.refused({"worker": {"kind": "DaemonSet"}, "data": RWX}, "worker.nodeSelector")

    def test_the_nodes_name_is_the_pods(self):
        _, container = self.pod("worker")
        (name,) = [e for e in container["env"] if e["name"] == "SEQPAR_WORKER_NODE_NAME"]
        self.assertEqual(name["valueFrom"]["fieldRef"]["fieldPath"], "metadata.name")

    def test_a_disruption_budget_that_never_holds_broken_pods(self):
        budget = self.one("PodDisruptionBudget", NAME)["spec"]
        self.assertEqual(budget["maxUnavailable"], 1)
        self.assertEqual(budget["unhealthyPodEvictionPolicy"], "AlwaysAllow")
        self.assertEqual(budget["selector"]["matchLabels"]["app.kubernetes.io/component"], "worker")
        self.assertNotIn(("PodDisruptionBudget", NAME), self.render({"worker": {"podDisruptionBudget": False}}))

    def test_it_may_drain_before_it_is_killed(self):
        for seconds in (0, 300, 7200):
            spec, container = self.pod("worker", {"worker": {"drainSeconds": seconds}})
            self.assertIn({"name": "SEQPAR_WORKER_DRAIN_SECONDS", "value": str(seconds)}, container["env"])
            self.assertEqual(spec["terminationGracePeriodSeconds"], seconds + 30)

    def test_shared_memory_counts_into_the_limit(self):
        spec, container = self.pod("worker", {"worker": {"memory": "6Gi", "sharedMemory": "512Mi", "cpus": 4,
                                                         "cpuSlots": 3}})
        (volume,) = [v for v in spec["volumes"] if v["name"] == "shared-memory"]
        self.assertEqual(volume["emptyDir"], {"medium": "Memory", "sizeLimit": "512Mi"})
        self.assertIn({"name": "shared-memory", "mountPath": "/dev/shm"}, container["volumeMounts"])
        want = {"cpu": 4, "memory": f"{6 * 1024 + 512}Mi"}
        self.assertEqual(container["resources"], {"limits": want, "requests": want})
        # Tensors get none of it: their slots share four fifths of `memory`.
        self.assertIn(f"--memory-per-slot={6 * 1024 * 4 // 5 // 3}Mi", container["args"])
        self.assertIn("--threads-per-slot=1", container["args"])
        self.assertIn("--cpu-slots=3", container["args"])

    def test_folders_of_the_node_are_limited(self):
        spec, container = self.pod("worker", {"worker": {"state": "3Gi", "tmp": "5Mi"}})
        limits = {v["name"]: v["emptyDir"] for v in spec["volumes"] if v["name"] in ("state", "tmp")}
        self.assertEqual(limits, {"state": {"sizeLimit": "3Gi"}, "tmp": {"sizeLimit": "5Mi"}})
        mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
        self.assertEqual((mounts["state"], mounts["tmp"]), ("/var/lib/seqpar", "/tmp"))
        self.assertIn(f"--state-dir={mounts['state']}", container["args"])

    def test_slots_need_cpus(self):
        self.refused({"worker": {"cpuSlots": 4, "cpus": 2}}, "worker.cpuSlots", "worker.cpus is 2")

    def test_gpus(self):
        values = {"worker": {"gpus": 4, "runtimeClassName": "nvidia", "nodeSelector": {"gpu": "h100"},
                             "priorityClassName": "training", "extraEnv": {"NCCL_DEBUG": "INFO", "NCCL_BUFFSIZE": 8388608, "UCX_RNDV_PERF_DIFF": 1.5},
                             "tolerations": [{"key": "reserved", "operator": "Exists", "effect": "NoExecute"}]}}
        spec, container = self.pod("worker", values)
        self.assertEqual(container["resources"]["limits"]["nvidia.com/gpu"], 4)
        self.assertEqual(container["image"], "seqpar/worker-cuda:0.1.0")
        self.assertIn("--devices=cuda", container["args"])
        self.assertFalse([a for a in container["args"] if a.startswith("--cpu-slots")])
        self.assertEqual(spec["tolerations"], [
            {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
            {"key": "reserved", "operator": "Exists", "effect": "NoExecute"}])
        self.assertEqual((spec["runtimeClassName"], spec["nodeSelector"], spec["priorityClassName"]),
                         ("nvidia", {"gpu": "h100"}, "training"))
        # Never all devices by the environment: the device plugin says which.
        self.assertEqual({e["name"]: e["value"] for e in container["env"] if "value" in e},
                         {"SEQPAR_WORKER_DRAIN_SECONDS": "300", "NCCL_DEBUG": "INFO", "NCCL_BUFFSIZE": "8388608",
                          "UCX_RNDV_PERF_DIFF": "1.5"})

    def test_without_gpus_nothing_of_them(self):
        spec, container = self.pod("worker")
        self.assertNotIn("tolerations", spec)
        self.assertEqual(set(container["resources"]["limits"]), {"cpu", "memory"})
        self.assertEqual(container["image"], "seqpar/worker:0.1.0")
        self.assertIn("--devices=cpu", container["args"])

    def test_rdma(self):
        spec, container = self.pod("worker", {"worker": {"rdma": True, "extraResources": {"rdma/hca": 2},
                                                         "extraEnv": {"UCX_NET_DEVICES": "mlx5_0:1"},
                                                         "dataInterface": ""}})
        self.assertEqual(container["securityContext"]["capabilities"], {"drop": ["ALL"], "add": ["IPC_LOCK"]})
        for section in ("limits", "requests"):
            self.assertEqual(container["resources"][section]["rdma/hca"], 2)
        self.assertFalse([a for a in container["args"] if a.startswith("--data-interface")])
        self.assertNotIn("add", self.pod("worker")[1]["securityContext"]["capabilities"])
        # Only the worker's.
        self.assertNotIn("add", self.pod("coordinator", {"worker": {"rdma": True}})[1]["securityContext"]["capabilities"])

    def test_the_hosts_network_with_ports_of_ones_choice(self):
        values = {"worker": {"hostNetwork": True, "metricsPort": 17702}, "networkPolicy": {"nodeCidrs": ["10.0.0.0/16"]}}
        spec, container = self.pod("worker", values)
        self.assertIs(spec["hostNetwork"], True)
        self.assertEqual(spec["dnsPolicy"], "ClusterFirstWithHostNet")
        self.assertIn("--metrics-listen=0.0.0.0:17702", container["args"])
        self.assertEqual(container["ports"], [{"name": "metrics", "containerPort": 17702}])
        self.assertNotIn("hostNetwork", self.pod("coordinator", values)[0])
        plain, _ = self.pod("worker")
        self.assertNotIn("hostNetwork", plain)
        self.assertNotIn("dnsPolicy", plain)

    def test_on_one_node_with_the_coordinator_where_the_volume_is_on_one(self):
        pods = {c: self.one("StatefulSet", f"r-seqpar-{c}")["spec"]["template"] for c in ("coordinator", "worker")}
        for component, pod in pods.items():
            with self.subTest(component):
                (term,) = terms(pod["spec"], "podAffinity")
                self.assertEqual(term["topologyKey"], "kubernetes.io/hostname")
                # Each goes where the other is, whichever is replaced. It is among those that it asks for itself: the
                # scheduler then lets the first of all go anywhere, where else each would wait for the other.
                for template in pods.values():
                    self.assertTrue(selects(term["labelSelector"], template["metadata"]["labels"]))
                # The pod of `helm test` has no part in the volume, nor has another release.
                test = self.one("Pod", "r-seqpar-test")["metadata"]["labels"]
                self.assertFalse(selects(term["labelSelector"], test))
                others = {**pod["metadata"]["labels"], "app.kubernetes.io/instance": "other"}
                self.assertFalse(selects(term["labelSelector"], others))
                self.assertEqual(terms(self.pod(component, {"data": RWX})[0], "podAffinity"), [])

    def test_more_than_one_need_a_shared_volume(self):
        self.refused({"worker": {"replicas": 2}}, "data.accessMode", "ReadWriteMany", "worker.replicas 2")
        self.refused(dict(DAEMONSET, data={}), "data.accessMode", "ReadWriteMany", "DaemonSet")
        self.refused({"worker": {"replicas": 2}, "data": {"existingClaim": "mine"}}, "data.accessMode")
        self.render({"worker": {"replicas": 2}, "data": {"existingClaim": "mine", **RWX}})

    def test_labels_and_spread(self):
        values = {"worker": {"labels": {"pool": "h100"}, "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]}}
        spec, container = self.pod("worker", values)
        self.assertLessEqual({"--labels=kubernetes_node=$(KUBERNETES_NODE)", "--labels=pool=h100"}, set(container["args"]))
        (spread,) = spec["topologySpreadConstraints"]
        self.assertEqual(spread["labelSelector"]["matchLabels"]["app.kubernetes.io/component"], "worker")
        self.assertEqual((spread["maxSkew"], spread["topologyKey"]), (1, "zone"))

    def test_probes_do_not_ask_the_coordinator_and_give_time_to_measure(self):
        _, container = self.pod("worker")
        self.assertEqual(container["livenessProbe"]["httpGet"], {"path": "/healthz", "port": "metrics"})
        self.assertEqual(container["readinessProbe"]["httpGet"], {"path": "/readyz", "port": "metrics"})
        startup = container["startupProbe"]
        self.assertGreaterEqual(startup["periodSeconds"] * startup["failureThreshold"], 300)


if __name__ == "__main__":
    main()
