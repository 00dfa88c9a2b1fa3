"""networkpolicies.yaml: who reaches whom, asked of the rules as a cluster's network would."""
import ipaddress

from chart import ChartTest, main

OURS, MONITORING = {"kubernetes.io/metadata.name": "default"}, {"kubernetes.io/metadata.name": "monitoring"}


def matches(selector, labels):
    return selector.get("matchLabels", {}).items() <= labels.items()


def allowed(rules, side, peer, port, protocol="TCP"):
    """Whether `rules` ("ingress" or "egress" of a policy) let `peer`, (namespace labels, pod labels) or an address."""
    for rule in rules:
        ports = rule.get("ports")
        if ports is not None and not any(p["protocol"] == protocol and p["port"] == port for p in ports):
            continue
        if side not in rule:
            return True
        for where in rule[side]:
            if "ipBlock" in where:
                if isinstance(peer, str) and ipaddress.ip_address(peer) in ipaddress.ip_network(where["ipBlock"]["cidr"]):
                    return True
            elif not isinstance(peer, str):
                namespace, labels = peer
                here = matches(where["namespaceSelector"], namespace) if "namespaceSelector" in where else namespace == OURS
                if here and matches(where.get("podSelector", {}), labels):
                    return True
    return False


class NetworkPolicies(ChartTest):
    def setUp(self):
        self.labels = {c: self.one("StatefulSet", f"r-seqpar-{c}")["spec"]["template"]["metadata"]["labels"]
                       for c in ("coordinator", "worker")}

    def policy(self, component, values=None):
        spec = self.one("NetworkPolicy", f"r-seqpar-{component}", values)["spec"]
        self.assertTrue(matches(spec["podSelector"], self.labels[component]))
        self.assertEqual(spec["policyTypes"], ["Ingress", "Egress"])
        return spec

    def test_into_the_coordinator(self):
        rules = self.policy("coordinator")["ingress"]
        worker, client = (OURS, self.labels["worker"]), (OURS, {"app": "notebook"})
        self.assertTrue(allowed(rules, "from", worker, 7700))
        self.assertTrue(allowed(rules, "from", client, 7700))
        self.assertFalse(allowed(rules, "from", ({"kubernetes.io/metadata.name": "else"}, client[1]), 7700))
        self.assertFalse(allowed(rules, "from", "10.0.0.1", 7700))
        self.assertTrue(allowed(rules, "from", (MONITORING, {"app": "prometheus"}), 7701))
        self.assertFalse(allowed(rules, "from", (MONITORING, {"app": "prometheus"}), 7700))
        self.assertFalse(allowed(rules, "from", client, 7701))

    def test_into_a_worker(self):
        rules = self.policy("worker")["ingress"]
        for port in (1, 7702, 40000, 65535):
            self.assertTrue(allowed(rules, "from", (OURS, self.labels["worker"]), port))
        self.assertFalse(allowed(rules, "from", (OURS, self.labels["coordinator"]), 40000))
        self.assertFalse(allowed(rules, "from", (OURS, {"app": "notebook"}), 40000))
        self.assertTrue(allowed(rules, "from", (MONITORING, {}), 7702))
        self.assertFalse(allowed(rules, "from", (MONITORING, {}), 40000))

    def test_out(self):
        worker, coordinator = self.policy("worker")["egress"], self.policy("coordinator")["egress"]
        self.assertTrue(allowed(worker, "to", (OURS, self.labels["worker"]), 40000))
        self.assertTrue(allowed(worker, "to", (OURS, self.labels["coordinator"]), 7700))
        self.assertFalse(allowed(worker, "to", (OURS, self.labels["coordinator"]), 7701))
        self.assertFalse(allowed(worker, "to", "1.1.1.1", 443))
        self.assertFalse(allowed(coordinator, "to", (OURS, self.labels["worker"]), 40000))
        for rules in (worker, coordinator):
            for protocol in ("UDP", "TCP"):
                for port in (53, 5353):  # a policy sees the port of the pod behind a service: OpenShift's is the second
                    self.assertTrue(allowed(rules, "to", ({"kubernetes.io/metadata.name": "kube-system"}, {}), port, protocol))

    def test_prometheus_elsewhere(self):
        values = {"networkPolicy": {"prometheusNamespaceLabels": {"kubernetes.io/metadata.name": None, "team": "obs"},
                                    "prometheusPodLabels": {"app": "prometheus"}}}
        for component, port in (("coordinator", 7701), ("worker", 7702)):
            rules = self.policy(component, values)["ingress"]
            self.assertTrue(allowed(rules, "from", ({"team": "obs"}, {"app": "prometheus"}), port))
            self.assertFalse(allowed(rules, "from", ({"team": "obs"}, {"app": "other"}), port))
            self.assertFalse(allowed(rules, "from", (MONITORING, {"app": "prometheus"}), port))

    def test_workers_on_the_hosts_network_come_from_their_nodes(self):
        values = {"worker": {"hostNetwork": True}, "networkPolicy": {"nodeCidrs": ["10.1.0.0/16", "fd00::/8"]}}
        for component, port in (("coordinator", 7700), ("worker", 40000)):
            rules = self.policy(component, values)["ingress"]
            self.assertTrue(allowed(rules, "from", "10.1.2.3", port))
            self.assertFalse(allowed(rules, "from", "10.2.2.3", port))
        self.assertTrue(allowed(self.policy("worker", values)["egress"], "to", "10.1.2.3", 40000))
        self.refused({"worker": {"hostNetwork": True}}, "networkPolicy.nodeCidrs")

    def test_none_where_they_are_switched_off(self):
        values = {"networkPolicy": {"enabled": False}}
        self.assertFalse([kind for kind, _ in self.render(values) if kind == "NetworkPolicy"])
        self.assertIn("nothing of this chart keeps others away", self.result(values)["notes"])
        self.assertIn("admits this namespace's pods only", self.result()["notes"])
        self.render({"networkPolicy": {"enabled": False}, "worker": {"hostNetwork": True}})


if __name__ == "__main__":
    main()
