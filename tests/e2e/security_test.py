"""TLS, tokens, tenants and workers' names, with real processes and certificates made by openssl."""
import json
import os
import socket
import ssl
import subprocess
import time
import unittest

from certificates import Authority, Tokens
from harness import BIN, ClusterTest, environment, scaled, wait_for

TLS_NAMES = "DNS:localhost,IP:127.0.0.1"


class SecurityTest(ClusterTest):
    """A coordinator over TLS, a worker with a certificate, and users of two tenants."""
    autostart = False
    slots = 2

    def setUp(self):
        super().setUp()
        self.certs = self.dir / "certs"
        self.certs.mkdir()
        self.ca = Authority(self.certs)
        self.server_cert, self.server_key = self.ca.issue("coordinator", TLS_NAMES)
        self.tokens = Tokens(self.certs)
        for name, role, tenant in (("root", "operator", "ops"), ("ann", "submitter", "search"),
                                   ("vic", "viewer", "search"), ("bob", "submitter", "vision")):
            self.tokens.add(name, role=role, tenant=tenant)
        for tenant in ("search", "vision"):
            (self.dir / tenant).mkdir()
        self.audit = self.dir / "audit"
        self.as_user("root")

    def as_user(self, name, ca=None):
        self.flags = ["--tls-ca", ca or self.ca.cert]
        if name:
            self.flags += ["--token-file", self.certs / f"{name}.token"]

    def run_cli(self, *args, timeout=120):
        return super().run_cli(*self.flags, *args, timeout=timeout)

    def start_secure(self, *more):
        return self.start_coordinator("--tls-cert", self.server_cert, "--tls-key", self.server_key, "--tls-client-ca",
                                      self.ca.cert, "--tokens", self.tokens.file, "--audit-log", self.audit,
                                      *(a for t in ("search", "vision") for a in ("--data-root", f"{t}/data={self.dir / t}")),
                                      *more)

    def start_tls_worker(self, name, certificate, *more):
        roots = [a for t in ("search", "vision") for a in ("--data-root", f"{t}/data={self.dir / t}")]
        return self.start_worker(name, "--tls-ca", self.ca.cert, "--tls-cert", certificate[0], "--tls-key", certificate[1],
                                 *roots, *more)

    def put_a_stranger_in_its_place(self):
        """Ends the coordinator, and answers one connection on its port with a certificate of an authority that nobody knows."""
        self.coordinator.kill()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*Authority(self.certs, "stranger").issue("stranger", TLS_NAMES))
        context.set_alpn_protocols(["h2"])
        with socket.create_server(("127.0.0.1", self.port)) as listener:
            listener.settimeout(scaled(60))
            with listener.accept()[0] as raw, self.assertRaises(ssl.SSLError):
                raw.settimeout(scaled(30))
                context.wrap_socket(raw, server_side=True)

    def refused(self, *args, code, text):
        """The command fails with that exit code and says `text`."""
        got, out, err = self.run_cli(*args)
        self.assertEqual(got, code, f"{args}: {out}{err}")
        self.assertIn(text, err)
        return err

    def audited(self, message, **fields):
        records = [json.loads(line) for line in self.audit.read_text().splitlines()]
        return [r for r in records if r["message"] == message and all(r.get(k) == v for k, v in fields.items())]


class Encrypted(SecurityTest):
    def test_a_job_of_a_tenant_from_submit_to_output(self):
        self.start_secure()
        node = self.ca.issue("node-a", "URI:seqpar://node/node-a")
        self.start_tls_worker("node-a", node)
        self.wait_ready("node-a")
        out = self.dir / "search/out.safetensors"
        self.as_user("ann")
        path = self.write_job(workers={"min": 2, "max": 2}, output={"file": str(out)})
        job = self.submit(path, "--request-id", "nightly")
        done = self.wait_succeeded(job)
        self.assertEqual(done["tenant"], "search")
        self.assertTrue(out.exists())

        self.as_user("bob")  # of another tenant: for him the job never was
        for command in ("get", "cancel", "logs", "watch", "trace"):
            absent = self.refused(command, "j-0123456789abcdef", code=4, text="j-0123456789abcdef")
            foreign = self.refused(command, job, code=4, text=job)
            self.assertEqual(foreign.replace(job, "j-0123456789abcdef"), absent)
        self.assertEqual(self.cli("list").get("jobs", []), [])
        self.refused("submit", "-f", path, code=3, text="none of the data roots")
        other = self.write_job("other.yaml", workers={"min": 2, "max": 2})
        self.wait_succeeded(self.submit(other, "--request-id", "nightly"))  # his own, though ann's has that id

        self.as_user("vic")  # looks, and changes nothing
        self.assertEqual([j["id"] for j in self.cli("list")["jobs"]], [job])
        self.refused("submit", "-f", other, code=8, text="vic is viewer")
        self.refused("cancel", job, code=8, text="vic is viewer")
        self.as_user("ann")
        self.refused("drain", "node-a", code=8, text="needs operator")
        self.as_user("root")
        self.assertEqual(len(self.cli("list")["jobs"]), 2)
        self.cli("drain", "node-a")

        submitted = self.audited("change", method="/seqpar.v1.JobService/CreateJob", object=job)
        self.assertEqual([(r["who"], r["tenant"], r["outcome"]) for r in submitted], [("ann", "search", "OK")])
        self.assertTrue(submitted[0]["from"].startswith("ipv4:127.0.0.1:"))
        self.assertEqual(len(self.audited("change", who="root", object="node-a")), 1)
        self.assertEqual(len(self.audited("change", who="seqpar://node/node-a", object="node-a")), 1)
        self.assertEqual(len(self.audited("refused", method="/seqpar.v1.JobService/CancelJob")), 1)

    def test_who_is_not_let_in(self):
        self.start_secure()
        self.as_user(None)
        self.refused("list", code=8, text="nothing says who calls")
        (self.certs / "forged.token").write_text("0" * 64)
        self.as_user("forged")
        self.refused("list", code=8, text="not known")
        self.tokens.add("late", expires="2020-01-01", role="viewer", tenant="search")
        self.as_user("late")
        wait_for(lambda: "late has expired" in self.run_cli("list")[2], "the tokens to be read again")
        wrong = Authority(self.certs, "wrong")
        self.as_user("root", wrong.cert)
        self.refused("--timeout", 5, "list", code=5, text="")
        self.flags = []  # in the clear
        self.assertNotEqual(self.run_cli("--timeout", 5, "list")[0], 0)
        self.flags = ["--token-file", self.certs / "root.token"]
        self.refused("list", code=2, text="never sent without TLS")
        self.flags = ["--tls-ca", self.ca.cert, "--token-file", self.certs / "root.token", "--tls-server-name", "other"]
        self.refused("--timeout", 5, "list", code=5, text="")
        self.as_user("root")
        self.assertEqual(self.cli("list").get("jobs", []), [])

    def test_workers_are_who_their_certificates_say(self):
        self.start_secure()
        node = self.ca.issue("node-b", "URI:seqpar://node/node-b")
        stranger = Authority(self.certs, "stranger").issue("node-s", "URI:seqpar://node/node-s")
        late = self.ca.issue("node-l", "URI:seqpar://node/node-l", past=True)
        user = self.ca.issue("user", "DNS:node-u")
        as_another = self.start_tls_worker("node-a", node)
        wait_for(lambda: "may attach as node node-b, not as node-a" in as_another.log.read_text(), "the refusal")
        unnamed = self.start_tls_worker("node-u", user)
        wait_for(lambda: "nothing says who calls" in unnamed.log.read_text(), "the refusal")
        self.assertNotEqual(self.start_tls_worker("node-l", late).popen.wait(scaled(30)), 0)
        self.assertIn("ended at 2020-01-02", (self.dir / "node-l.log").read_text())
        self.start_tls_worker("node-s", stranger)
        worker_token = self.tokens.add("rack", role="worker", node="node-t")
        self.start_worker("node-t", "--tls-ca", self.ca.cert, "--token-file", worker_token)
        self.start_tls_worker("node-b", node)
        self.wait_ready("node-b", "node-t")
        self.assertEqual(sorted(self.node_states()), ["node-b", "node-t"])
        # A worker's rights end there.
        self.flags = ["--tls-ca", self.ca.cert, "--token-file", worker_token]
        self.refused("list", code=8, text="rack is worker")
        self.as_user("root")

    def test_certificates_and_tokens_change_without_a_restart(self):
        self.metrics = True
        coordinator = self.start_secure()
        node = self.ca.issue("node-a", "URI:seqpar://node/node-a")
        self.start_tls_worker("node-a", node)
        self.wait_ready("node-a")

        def shown():
            context = ssl.create_default_context(cafile=self.ca.cert)
            context.set_alpn_protocols(["h2"])
            with socket.create_connection(("127.0.0.1", self.port), timeout=10) as raw:
                with context.wrap_socket(raw, server_hostname="localhost") as tls:
                    return tls.getpeercert()["serialNumber"]
        def days_left(process, certificate):
            (found,) = self.scrape(process).find("seqpar_tls_certificate_expiry_timestamp_seconds", certificate=certificate)
            return (found[1] - time.time()) / 86400
        before = shown()
        self.assertGreater(days_left("coordinator", "own"), 365)
        self.ca.issue("coordinator", TLS_NAMES, days=20)
        wait_for(lambda: shown() != before, "the new certificate")
        self.ca.issue("node-a", "URI:seqpar://node/node-a", days=10)
        self.assertEqual([round(days_left(p, c)) for p in ("coordinator", "node-a") for c in ("own", "authority")],
                         [20, 2, 10, 2])
        self.assertIn("node-a", self.node_states())

        self.tokens.add("eve", role="viewer", tenant="search")
        self.as_user("eve")
        wait_for(lambda: self.run_cli("list")[0] == 0, "the new token to count")
        self.tokens.remove("eve")
        wait_for(lambda: self.run_cli("list")[0] == 8, "the token to count no more")
        self.tokens.file.write_text("name=\n")  # nonsense: what was read before it stays
        self.as_user("root")
        wait_for(lambda: "the tokens stay as they were" in coordinator.log.read_text() or self.run_cli("list")[0] != 0,
                 "the coordinator to see it")
        self.cli("list")
        self.tokens.write()

    def test_a_watch_ends_with_its_token(self):
        self.start_secure()
        self.tokens.add("eve", role="viewer", tenant="search")
        self.as_user("ann")
        job = self.submit(self.write_job())  # waits: there is no worker
        self.as_user("eve")
        wait_for(lambda: self.run_cli("get", job)[0] == 0, "the new token to count")
        watch = self.start_cli(*self.flags, "watch", job)
        self.assertIn(job, watch.stdout.readline())  # its stream is open
        self.tokens.remove("eve")
        _, said = watch.communicate(timeout=scaled(60))
        self.assertEqual(watch.returncode, 8, said)
        self.assertIn("this token is not known here", said)
        self.as_user("ann")  # who ends the job

    def test_an_authority_is_replaced_without_a_restart_of_the_worker(self):
        self.start_secure()
        node = self.ca.issue("node-a", "URI:seqpar://node/node-a")
        worker = self.start_tls_worker("node-a", node)
        self.wait_ready("node-a")
        following = Authority(self.certs, "following")
        renewed = (*following.issue("coordinator-2", TLS_NAMES), *following.issue("node-a-2", "URI:seqpar://node/node-a"),
                   following.cert)
        for new, old in zip(renewed, (self.server_cert, self.server_key, *node, self.ca.cert)):
            new.rename(old)
        # The stream goes on with what it was made with: a new one cannot.
        self.coordinator.kill()
        self.start_secure()
        self.wait_ready("node-a")
        self.assertEqual(worker.log.read_text().count(" worker starts"), 1)

    def test_an_authority_is_replaced_while_a_command_waits(self):
        self.start_secure()
        self.as_user("ann")
        path = self.write_job()  # for devices that there are not
        waiting = self.start_cli(*self.flags, "submit", "-f", path, "--wait")
        submitted, job = waiting.stderr.readline().split()
        self.assertEqual(submitted, "submitted")
        self.put_a_stranger_in_its_place()
        following = Authority(self.certs, "following")
        renewed = (*following.issue("coordinator-2", TLS_NAMES), following.cert)
        for new, old in zip(renewed, (self.server_cert, self.server_key, self.ca.cert)):
            new.rename(old)
        self.start_secure()
        wait_for(lambda: self.cli("get", job, check=False), "the coordinator to answer a new command")
        self.cli("cancel", job)
        out, err = waiting.communicate(timeout=scaled(60))
        self.assertEqual(waiting.returncode, 7, out + err)
        self.assertIn("the coordinator answers again", out)

    def test_mutual_tls_asks_users_for_certificates_too(self):
        self.start_secure("--tls-require-client-cert")
        user = self.ca.issue("user", "DNS:user")
        self.refused("--timeout", 5, "list", code=5, text="")
        self.flags += ["--tls-cert", user[0], "--tls-key", user[1]]
        self.assertEqual(self.cli("list").get("jobs", []), [])


class Refusals(SecurityTest):
    def try_coordinator(self, *args):
        """(exit code, what it said) of a coordinator that does not start."""
        done = subprocess.run([str(BIN / "seqpar-coordinator"), "--listen", "127.0.0.1:0", "--state-dir",
                               str(self.dir / "state"), *map(str, args)], capture_output=True, text=True,
                              timeout=scaled(60), env=environment(), input="")
        return done.returncode, done.stdout + done.stderr

    def test_what_is_wrong_is_said(self):
        other = self.ca.issue("other", TLS_NAMES)
        late = self.ca.issue("late", TLS_NAMES, past=True)
        pair, tokens = ("--tls-cert", self.server_cert, "--tls-key", self.server_key), ("--tokens", self.tokens.file)
        broken = self.dir / "broken"
        broken.write_text("name=x rol=viewer\n")
        for args, text in (
                (pair, "--tokens"),
                (tokens, "never travels without TLS"),
                (("--tls-cert", self.server_cert, *tokens), "needs its --tls-key"),
                (("--tls-cert", self.server_cert, "--tls-key", other[1], *tokens), "does not belong"),
                (("--tls-cert", self.server_key, "--tls-key", self.server_key, *tokens), "no certificate"),
                (("--tls-cert", self.server_cert, "--tls-key", self.dir / "absent", *tokens), "No such file"),
                (("--tls-cert", late[0], "--tls-key", late[1], *tokens), "ended at 2020-01-02"),
                ((*pair, *tokens, "--tls-require-client-cert"), "--tls-client-ca"),
                ((*pair, *tokens, "--tls-client-ca", self.server_key), "no certificate"),
                ((*pair, "--tokens", broken), "line 1"),
                ((*pair, *tokens, "--test-hold", "plan:/x"), "not with TLS"),
                ((*pair, *tokens, "--audit-log", self.dir / "no/such/folder"), "--audit-log"),
                (("--data-root", f"search/data={self.dir}"), "one tenant's alone"),
                ((*pair, *tokens, "--data-root", f"all={self.dir}", "--data-root", f"search/data={self.dir / 'search'}"),
                 "one is inside the other")):
            code, said = self.try_coordinator(*args)
            self.assertIn(code, (1, 2), f"{args}: {said}")
            self.assertIn(text, said)

    def test_a_token_is_hashed_from_standard_input(self):
        def hashed(token):
            return subprocess.run([str(BIN / "seqpar-coordinator"), "--hash-token"], input=token, capture_output=True,
                                  text=True, timeout=scaled(60), env=environment())
        token = (self.certs / "ann.token").read_text()
        self.assertIn(hashed(token).stdout.strip(), self.tokens.lines["ann"])
        self.assertEqual(hashed("short\n").returncode, 2)

    def test_no_token_stands_in_the_arguments(self):
        for binary in ("seqpar", "seqpar-coordinator", "seqpar-worker"):
            done = subprocess.run([str(BIN / binary), "--token", "x", "list"], capture_output=True, text=True,
                                  timeout=scaled(60), env=environment())
            self.assertEqual(done.returncode, 2, binary)


if __name__ == "__main__":
    unittest.main()
