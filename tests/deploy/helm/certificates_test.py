"""certificates.yaml, and what _tls.tpl puts into the pods: flags, folders, and what is refused."""
import re

from chart import EXAMPLES, ChartTest, main, values_of  # first: it goes on in the python that has the others

import cert_manager
import jsonschema

TOKENS = {"existingSecret": "tok"}
SECRET = {"tls": {"mode": "secret"}, "tokens": TOKENS}
CERT_MANAGER = {"tls": {"mode": "certManager"}, "tokens": TOKENS}
SHARED = {"tls": {"mode": "certManager", "workerCertificates": "shared"}, "tokens": TOKENS}
DAEMONSET = {"worker": {"kind": "DaemonSet", "nodeSelector": {"seqpar": "worker"}}, "data": {"accessMode": "ReadWriteMany"}}
HIGH = "values-high-security.yaml"


def with_tls(values, **more):
    return {**values, "tls": {**values["tls"], **more}}


class Tls(ChartTest):
    def flags(self, component, values=None, example=None):
        """{flag: value} of those about TLS and tokens."""
        found = dict(a.partition("=")[::2] for a in self.pod(component, values, example)[1]["args"])
        return {k: v for k, v in found.items() if "tls" in k or "token" in k or k == "--allow-insecure"}

    def sources(self, component, values=None, example=None):
        """{folder below /etc/seqpar: its volume}; each is mounted whole and read-only."""
        spec, container = self.pod(component, values, example)
        volumes = {v["name"]: v for v in spec["volumes"]}
        found = {}
        for mount in container["volumeMounts"]:
            if mount["mountPath"].startswith("/etc/seqpar/"):
                self.assertNotIn("subPath", mount)  # would never change again
                self.assertIs(mount["readOnly"], True)
                found[mount["mountPath"].removeprefix("/etc/seqpar/")] = volumes[mount["name"]]
        return found

    def secrets(self, component, values=None, example=None):
        return {folder: volume["secret"]["secretName"] for folder, volume in self.sources(component, values, example).items()}

    def certificates(self, values=None, example=None):
        return {name: manifest["spec"] for (kind, name), manifest in self.render(values, example).items()
                if kind == "Certificate"}

    # --- off ---

    def test_off_is_plain_and_says_so(self):
        for mode in ("off", False):  # as YAML reads a bare off
            values = {"tls": {"mode": mode}}
            self.assertEqual(self.flags("coordinator", values), {"--allow-insecure": ""})
            self.assertEqual(self.flags("worker", values), {})
            self.assertEqual((self.sources("coordinator", values), self.sources("worker", values)), ({}, {}))
            self.assertFalse([kind for kind, _ in self.render(values) if kind in ("Certificate", "Issuer")])
            self.assertIn("no TLS and no tokens", self.result(values)["notes"])

    # --- secret ---

    def test_the_coordinators_secret_its_tokens_and_no_insecure_flag(self):
        self.assertEqual(self.flags("coordinator", SECRET), {
            "--tls-cert": "/etc/seqpar/tls/tls.crt", "--tls-key": "/etc/seqpar/tls/tls.key",
            "--tls-client-ca": "/etc/seqpar/tls/ca.crt", "--tokens": "/etc/seqpar/tokens/tokens"})
        self.assertEqual(self.secrets("coordinator", SECRET), {"tls": "r-seqpar-coordinator-tls", "tokens": "tok"})
        self.assertFalse([kind for kind, _ in self.render(SECRET) if kind in ("Certificate", "Issuer")])

    def test_a_workers_files_are_called_as_its_node(self):
        node = "/etc/seqpar/tls/$(SEQPAR_WORKER_NODE_NAME)"
        for values in (SECRET, {**SECRET, **DAEMONSET}):
            self.assertEqual(self.flags("worker", values), {"--tls-ca": "/etc/seqpar/tls/ca.crt", "--tls-cert": f"{node}.crt",
                                                            "--tls-key": f"{node}.key"})
            self.assertEqual(self.secrets("worker", values), {"tls": "r-seqpar-worker-tls"})
            # The kubelet replaces only what stands among the container's variables.
            self.assertIn("SEQPAR_WORKER_NODE_NAME", [e["name"] for e in self.pod("worker", values)[1]["env"]])

    def test_or_all_share_one(self):
        values = with_tls(SECRET, workerCertificates="shared")
        self.assertEqual(self.flags("worker", values)["--tls-cert"], "/etc/seqpar/tls/tls.crt")
        self.assertEqual(self.flags("worker", values)["--tls-key"], "/etc/seqpar/tls/tls.key")
        self.assertIn("may pose as any", self.result(values)["notes"])
        self.assertNotIn("may pose as any", self.result(SECRET)["notes"])

    def test_secrets_of_ones_own_names_and_an_authority_apart(self):
        values = with_tls(SECRET, coordinatorSecret="c", workerSecret="w", caSecret="public-ca")
        self.assertEqual(self.secrets("coordinator", values), {"tls": "c", "tokens": "tok", "ca": "public-ca"})
        self.assertEqual(self.secrets("worker", values), {"tls": "w", "ca": "public-ca"})
        self.assertEqual(self.flags("coordinator", values)["--tls-client-ca"], "/etc/seqpar/ca/ca.crt")
        self.assertEqual(self.flags("worker", values)["--tls-ca"], "/etc/seqpar/ca/ca.crt")

    def test_a_worker_never_sees_the_coordinators_key_or_the_tokens(self):
        for values in (SECRET, CERT_MANAGER, SHARED):
            theirs = {"r-seqpar-coordinator-tls", "tok"}
            secrets = {v["secret"]["secretName"] for v in self.pod("worker", values)[0]["volumes"] if "secret" in v}
            self.assertFalse(secrets & theirs)

    def test_keys_are_for_the_pods_group_alone(self):
        for component in ("coordinator", "worker"):
            for volume in self.sources(component, SECRET).values():
                self.assertEqual(volume["secret"]["defaultMode"], 0o440)

    def test_mutual_tls_for_users_too(self):
        self.assertNotIn("--tls-require-client-cert", self.flags("coordinator", SECRET))
        self.assertIn("--tls-require-client-cert", self.flags("coordinator", with_tls(SECRET, requireClientCert=True)))

    # --- certManager ---

    def test_the_coordinators_certificate_has_its_services_names(self):
        values = with_tls(CERT_MANAGER, dnsNames=["seqpar.example.org"], duration="24h")
        spec = self.certificates(values)["r-seqpar-coordinator-tls"]
        self.assertEqual(spec["secretName"], self.secrets("coordinator", values)["tls"])
        self.assertEqual(spec["dnsNames"], ["r-seqpar-coordinator", "r-seqpar-coordinator.default",
                                            "r-seqpar-coordinator.default.svc",
                                            "r-seqpar-coordinator.default.svc.cluster.local", "seqpar.example.org"])
        self.assertEqual(spec["usages"], ["digital signature", "server auth"])
        self.assertEqual(spec["duration"], "24h")
        self.assertNotIn("uris", spec)  # the coordinator is no worker
        (dialled,) = [a for a in self.pod("worker", values)[1]["args"] if a.startswith("--coordinator=")]
        self.assertIn(re.fullmatch(r"--coordinator=(.*):\d+", dialled)[1], spec["dnsNames"])

    def test_each_pod_gets_a_certificate_of_its_own(self):
        volume = self.sources("worker", CERT_MANAGER)["tls"]
        cert_manager.validate_csi(volume)
        attributes = {k.rpartition("/")[2]: v for k, v in volume["csi"]["volumeAttributes"].items()}
        self.assertEqual(volume["csi"]["driver"], "csi.cert-manager.io")
        # A StatefulSet's nodes are named as their pods.
        self.assertEqual(attributes["uri-sans"], "seqpar://node/${POD_NAME}")
        (name,) = [e for e in self.pod("worker", CERT_MANAGER)[1]["env"] if e["name"] == "SEQPAR_WORKER_NODE_NAME"]
        self.assertEqual(name["valueFrom"]["fieldRef"]["fieldPath"], "metadata.name")
        self.assertIn("client auth", attributes["key-usages"].split(","))
        self.assertEqual(attributes["fs-group"], "65532")
        self.assertEqual(set(self.certificates(CERT_MANAGER)), {"r-seqpar-coordinator-tls", "r-seqpar-ca"})
        self.assertEqual(self.flags("worker", CERT_MANAGER)["--tls-cert"], "/etc/seqpar/tls/tls.crt")

    def test_root_needs_no_group(self):
        volume = self.sources("worker", {**CERT_MANAGER, "runAsUser": 0})["tls"]
        cert_manager.validate_csi(volume)
        self.assertNotIn("csi.cert-manager.io/fs-group", volume["csi"]["volumeAttributes"])

    def test_or_one_certificate_that_names_every_node(self):
        for values in (SHARED, {**SHARED, **DAEMONSET}):
            spec = self.certificates(values)["r-seqpar-worker-tls"]
            self.assertEqual(spec["uris"], ["seqpar://node/*"])
            self.assertEqual(spec["usages"], ["digital signature", "client auth"])
            self.assertEqual(spec["secretName"], self.secrets("worker", values)["tls"])

    def test_an_authority_of_its_own(self):
        rendered = self.render(CERT_MANAGER)
        spec = rendered["Certificate", "r-seqpar-ca"]["spec"]
        self.assertIs(spec["isCA"], True)
        self.assertEqual(spec["issuerRef"]["name"], "r-seqpar-self-signed")
        self.assertEqual(rendered["Issuer", "r-seqpar-self-signed"]["spec"], {"selfSigned": {}})
        self.assertEqual(rendered["Issuer", "r-seqpar-ca"]["spec"], {"ca": {"secretName": spec["secretName"]}})
        self.assertEqual(rendered["Certificate", "r-seqpar-coordinator-tls"]["spec"]["issuerRef"],
                         {"name": "r-seqpar-ca", "kind": "Issuer", "group": "cert-manager.io"})
        attributes = self.sources("worker", CERT_MANAGER)["tls"]["csi"]["volumeAttributes"]
        self.assertEqual(attributes["csi.cert-manager.io/issuer-name"], "r-seqpar-ca")

    def test_or_an_issuer_that_exists(self):
        issuer = {"name": "corp", "kind": "ClusterIssuer", "group": "cert-manager.io"}
        values = with_tls(CERT_MANAGER, issuer=issuer)
        self.assertEqual(set(self.certificates(values)), {"r-seqpar-coordinator-tls"})
        self.assertFalse([kind for kind, _ in self.render(values) if kind == "Issuer"])
        self.assertEqual(self.certificates(values)["r-seqpar-coordinator-tls"]["issuerRef"], issuer)
        attributes = self.sources("worker", values)["tls"]["csi"]["volumeAttributes"]
        self.assertEqual([attributes[f"csi.cert-manager.io/issuer-{k}"] for k in ("name", "kind", "group")],
                         ["corp", "ClusterIssuer", "cert-manager.io"])

    def test_the_schema_of_these_kinds_refuses_what_cert_manager_does(self):
        spec = self.certificates(CERT_MANAGER)["r-seqpar-coordinator-tls"]
        good = {"apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": {"name": "n", "labels": {}}, "spec": spec}
        cert_manager.validate(good)
        for broken in ({"secret": "s"}, {"usages": ["server"]}, {"privateKey": {"rotation": "Always"}}, {"duration": "7d"}):
            with self.assertRaises(jsonschema.ValidationError):
                cert_manager.validate({**good, "spec": {**spec, **broken}})

    # --- tests, notes, refusals ---

    def test_helm_test_needs_a_token_of_its_own(self):
        self.assertNotIn(("Pod", "r-seqpar-test"), self.render(SECRET))
        self.assertIn("helmTest.secret names no token", self.result(SECRET)["notes"])
        spec = self.one("Pod", "r-seqpar-test", {**SECRET, "helmTest": {"secret": "probe"}})["spec"]
        (container,) = spec["containers"]
        self.assertLessEqual({"--tls-ca=/etc/seqpar/ca/ca.crt", "--token-file=/etc/seqpar/client/token"},
                             set(container["args"]))
        volumes = {v["name"]: v for v in spec["volumes"]}
        self.assertEqual(volumes["client"]["secret"]["secretName"], "probe")
        # Of the coordinator's secret the authority alone.
        self.assertEqual(volumes["ca"]["secret"]["secretName"], "r-seqpar-coordinator-tls")
        self.assertEqual(volumes["ca"]["secret"]["items"], [{"key": "ca.crt", "path": "ca.crt"}])

    def test_helm_test_shows_a_certificate_where_one_is_asked_for(self):
        for values, folder, secret in ((SECRET, "client", "probe"), (CERT_MANAGER, "tls", "r-seqpar-test-tls")):
            values = {**with_tls(values, requireClientCert=True), "helmTest": {"secret": "probe"}}
            spec = self.one("Pod", "r-seqpar-test", values)["spec"]
            self.assertIn(f"--tls-cert=/etc/seqpar/{folder}/tls.crt", spec["containers"][0]["args"])
            (volume,) = [v for v in spec["volumes"] if v["name"] == folder]
            self.assertEqual(volume["secret"]["secretName"], secret)
        self.assertNotIn("uris", self.certificates(values)["r-seqpar-test-tls"])  # makes no worker of it

    def test_what_cannot_be_is_refused_and_the_way_named(self):
        self.refused({"allowInsecure": False}, "allowInsecure", "tls.mode")
        self.refused({"tls": {"mode": "secret"}}, "tokens.existingSecret", "is required")
        self.refused({"tokens": TOKENS}, "tokens.existingSecret", "never travels without TLS")
        self.refused({"tls": {"requireClientCert": True}}, "tls.requireClientCert", "needs tls.mode")
        self.refused({**CERT_MANAGER, **DAEMONSET}, "tls.workerCertificates", "DaemonSet", "shared", "NODE.crt")
        self.refused(with_tls(SECRET, mode="on"), "mode")
        self.refused(with_tls(SECRET, duration="7d"), "duration")
        self.render({**SECRET, "allowInsecure": False})

    def test_probes_and_metrics_stay_in_the_clear(self):
        # The kubelet and Prometheus have neither certificate nor token.
        for component in ("coordinator", "worker"):
            plain, secured = self.pod(component)[1], self.pod(component, CERT_MANAGER)[1]
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                self.assertEqual(secured[probe], plain[probe])
                self.assertEqual(secured[probe]["httpGet"]["port"], "metrics")

    def test_the_service_tells_proxies_what_it_speaks(self):
        def protocol(values):
            return [p.get("appProtocol") for p in self.one("Service", "r-seqpar-coordinator", values)["spec"]["ports"]]
        self.assertEqual(protocol({}), ["kubernetes.io/h2c", None])
        self.assertEqual(protocol(SECRET), ["https", None])

    def test_the_notes_say_how_to_connect(self):
        notes = self.result(with_tls(SECRET, requireClientCert=True))["notes"]
        for text in ("r-seqpar-coordinator-tls", "SEQPAR_TLS_CA=ca.crt", "SEQPAR_TLS_SERVER_NAME=r-seqpar-coordinator",
                     "SEQPAR_TOKEN_FILE=", "SEQPAR_TLS_CERT=",
                     "Neither encrypted nor authenticated: metrics, and tensors between workers (UCX and NCCL)"):
            self.assertIn(text, notes)

    def test_high_security_closes_what_there_is_to_close(self):
        self.assertIn("--tls-require-client-cert", self.flags("coordinator", example=HIGH))
        self.assertIn("csi", self.sources("worker", example=HIGH)["tls"])
        self.assertIn(("NetworkPolicy", "r-seqpar-coordinator"), self.render(example=HIGH))
        self.refused({"allowInsecure": False, "tls": {"mode": "off"}}, "allowInsecure")
        # On top of each other example that it can be on top of.
        for example in EXAMPLES:
            if example not in (None, HIGH, "values-rdma-cluster.yaml"):
                rendered = self.render(values_of(HIGH), example)
                self.assertIn(("Certificate", "r-seqpar-coordinator-tls"), rendered)


if __name__ == "__main__":
    main()
