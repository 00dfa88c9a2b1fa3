"""values.yaml and its schema: what is refused, by whom, and that lint finds nothing."""
import re

import yaml

from chart import CHART, EXAMPLES, ChartTest, main


def keys(values, path=""):
    for key, value in values.items():
        yield f"{path}{key}"
        if isinstance(value, dict):
            yield from keys(value, f"{path}{key}.")


class Values(ChartTest):
    def test_lint_finds_nothing(self):
        self.assertEqual(set(self.result(lint=True)["lint"]) - {"INFO"}, set())

    def test_every_example_renders(self):
        for example in EXAMPLES:
            with self.subTest(example):
                self.assertGreater(len(self.render(example=example)), 8)

    def test_unknown_keys_are_refused_at_every_depth(self):
        for values in ({"wokrer": {}}, {"worker": {"replica": 2}}, {"worker": {"image": {"tags": "x"}}},
                       {"coordinator": {"store": {"class": "x"}}}, {"global": {"registry": "x"}},
                       {"coordinator": {"flags": {"lease-seconds": "6s"}}}, {"data": {"path": "/x"}},
                       {"worker": {"tolerations": [{"keys": "x"}]}}, {"networkPolicy": {"enable": True}},
                       {"monitoring": {"alerts": True}}):
            with self.subTest(str(values)):
                self.refused(values, "additional properties", "not allowed")

    def test_wrong_values_are_refused(self):
        for values, field in (({"worker": {"kind": "Deployment"}}, "kind"), ({"worker": {"memory": "4GB"}}, "memory"),
                              ({"worker": {"cpus": 1.5}}, "cpus"),
                              ({"worker": {"tmp": ""}}, "tmp"), ({"worker": {"state": "500m"}}, "state"),
                              ({"coordinator": {"tmp": 0}}, "tmp"), ({"coordinator": {"port": 80}}, "port"),
                              ({"coordinator": {"image": {"digest": "sha256:1"}}}, "digest"),
                              ({"coordinator": {"flags": {"lease": 6}}}, "lease"),
                              ({"data": {"accessMode": "ReadOnlyMany"}}, "accessMode"),
                              ({"worker": {"extraEnv": {"KUBERNETES_NODE": "x"}}}, "KUBERNETES_NODE")):
            with self.subTest(str(values)):
                self.refused(values, field)

    def test_every_value_is_in_the_schema_and_explained(self):
        text = (CHART / "values.yaml").read_text()
        defaults = yaml.safe_load(text)
        schema = yaml.safe_load((CHART / "values.schema.json").read_text())
        resolve = lambda node: schema["definitions"][node["$ref"].split("/")[-1]] if "$ref" in node else node

        def named(node, path=""):
            for key, child in node.get("properties", {}).items():
                child = resolve(child)
                yield f"{path}{key}"
                if child.get("additionalProperties") is False:
                    yield from named(child, f"{path}{key}.")
        in_schema = {k for k in named(schema) if ".flags." not in k}
        free_maps = ("worker.labels.", "networkPolicy.prometheusNamespaceLabels.", "monitoring.dashboardLabels.")
        self.assertEqual(in_schema, {k for k in keys(defaults) if not k.startswith(free_maps)})
        self.assertLess(len(text.splitlines()), 125, "values are to be few")
        for flag in resolve(schema["properties"]["coordinator"])["properties"]["flags"]["properties"]:
            self.assertRegex(text, rf"\b{re.escape(flag)}\b")

    def test_names_fit_whatever_the_release_is_called(self):
        for release, prefix in (("seqpar", "seqpar"), ("my-seqpar", "my-seqpar"), ("x" * 53, "x" * 40)):
            names = {name for _, name in self.render(release=release)}
            self.assertIn(f"{prefix}-coordinator", names)
            self.assertLessEqual(max(map(len, names)), 52)  # controllers append a hash of 11 to label values of 63

    def test_a_registry_of_ones_own_secrets_and_digests(self):
        digest = "sha256:" + "0" * 64
        values = {"global": {"imageRegistry": "registry.example.com/mirror/", "imagePullSecrets": ["pull"]},
                  "worker": {"image": {"digest": digest}}, "coordinator": {"image": {"tag": "1.2"}},
                  "imagePullPolicy": "Always"}
        for component, image in (("coordinator", "registry.example.com/mirror/seqpar/coordinator:1.2"),
                                 ("worker", f"registry.example.com/mirror/seqpar/worker@{digest}")):
            spec, container = self.pod(component, values)
            self.assertEqual(container["image"], image)
            self.assertEqual(container["imagePullPolicy"], "Always")
            self.assertEqual(spec["imagePullSecrets"], [{"name": "pull"}])
        self.assertEqual(self.one("Pod", "r-seqpar-test", values)["spec"]["imagePullSecrets"], [{"name": "pull"}])


class Security(ChartTest):
    """The Pod Security Standards' rules that these pods come near."""

    def pods(self, example):
        rendered = self.render(example=example)
        for (kind, name), manifest in rendered.items():
            if kind in ("StatefulSet", "DaemonSet"):
                yield name, manifest["spec"]["template"]["spec"]
            elif kind == "Pod":
                yield name, manifest["spec"]

    def level(self, spec):
        """The strictest level that takes the pod."""
        added = [c for container in spec["containers"] for c in container["securityContext"]["capabilities"].get("add", [])]
        volumes = [v for v in spec["volumes"] if not {"persistentVolumeClaim", "emptyDir", "configMap", "secret", "csi"} & set(v)]
        ports = [p for c in spec["containers"] for p in c.get("ports", []) if "hostPort" in p]
        if spec.get("hostNetwork") or added or volumes or ports:
            return "privileged"
        security = spec["securityContext"]
        restricted = (security["runAsNonRoot"] and security["runAsUser"] != 0 and
                      security["seccompProfile"]["type"] == "RuntimeDefault" and
                      all(c["securityContext"]["allowPrivilegeEscalation"] is False and
                          c["securityContext"]["capabilities"]["drop"] == ["ALL"] for c in spec["containers"]))
        return "restricted" if restricted else "baseline"

    def test_each_example_needs_the_level_that_its_head_and_the_notes_name(self):
        order = ("restricted", "baseline", "privileged")
        for example in EXAMPLES:
            with self.subTest(example):
                level = max((self.level(spec) for _, spec in self.pods(example)), key=order.index)
                self.assertEqual(level, "privileged" if example == "values-rdma-cluster.yaml" else "restricted")
                notes = self.result(example=example)["notes"]
                self.assertIn(f"Pod Security level that the namespace must allow: {level}", notes)
                if example is not None:
                    self.assertIn(f"Pod Security level: {level}", (CHART.parent / example).read_text())

    def test_every_pod(self):
        for example in EXAMPLES:
            for name, spec in self.pods(example):
                with self.subTest(example=example, pod=name):
                    self.assertIs(spec["automountServiceAccountToken"], False)
                    # Else SEQPAR_COORDINATOR_PORT and its kin would be taken for flags.
                    self.assertIs(spec["enableServiceLinks"], False)
                    for volume in spec["volumes"]:  # of what they hold nobody else may be short
                        self.assertRegex(volume.get("emptyDir", {"sizeLimit": "1Mi"}).get("sizeLimit", ""), "^[1-9][0-9]*[MGT]i$")
                    for container in spec["containers"]:
                        self.assertIs(container["securityContext"]["readOnlyRootFilesystem"], True)
                        self.assertIs(container["securityContext"]["allowPrivilegeEscalation"], False)
                        self.assertIn("memory", container["resources"]["limits"])
                        self.assertIn("memory", container["resources"]["requests"])

    def test_one_user_writes_the_data(self):
        values = {"runAsUser": 1000}
        for component in ("coordinator", "worker"):
            security = self.pod(component, values)[0]["securityContext"]
            self.assertEqual({security[k] for k in ("runAsUser", "runAsGroup", "fsGroup")}, {1000})

    def test_service_accounts_without_tokens(self):
        for component in ("coordinator", "worker"):
            account = self.one("ServiceAccount", f"r-seqpar-{component}")
            self.assertIs(account["automountServiceAccountToken"], False)
            self.assertEqual(self.pod(component)[0]["serviceAccountName"], account["metadata"]["name"])


if __name__ == "__main__":
    main()
