"""The Python client over TLS, with a token, from arguments and from the environment."""
import concurrent.futures
import unittest
from unittest import mock

import seqpar
from harness import scaled, wait_for
from security_test import SecurityTest


class Secure(SecurityTest):
    def client(self, **options):
        client = seqpar.Client(self.server, timeout=scaled(30), retry=0, **options)
        self.addCleanup(client.close)
        return client

    def test_a_token_says_who_asks(self):
        self.start_secure()
        ann = self.client(tls=seqpar.Tls(ca=self.ca.cert, token_file=self.certs / "ann.token"))
        job = ann.submit(self.write_job())
        self.assertEqual(job.message.tenant, "search")
        bob = self.client(tls=seqpar.Tls(ca=self.ca.cert, token=(self.certs / "bob.token").read_text()))
        with self.assertRaises(seqpar.NotFoundError):
            bob.get(job)
        self.assertEqual(list(bob.list()), [])
        with mock.patch.dict("os.environ", {"SEQPAR_TLS_CA": str(self.ca.cert),
                                            "SEQPAR_TOKEN_FILE": str(self.certs / "vic.token")}):
            vic = self.client()
        self.assertEqual([j.id for j in vic.list()], [job.id])
        with self.assertRaises(seqpar.DeniedError) as denied:
            vic.cancel(job)
        self.assertEqual(denied.exception.code, "PERMISSION_DENIED")
        with self.assertRaises(seqpar.DeniedError) as stranger:
            self.client(tls=seqpar.Tls(ca=self.ca.cert)).get(job)
        self.assertEqual(stranger.exception.code, "UNAUTHENTICATED")
        ann.cancel(job)

    def test_mutual_tls_and_the_name_of_the_server(self):
        self.start_secure("--tls-require-client-cert")
        cert, key = self.ca.issue("user", "DNS:user")
        token = self.certs / "vic.token"
        self.assertEqual(list(self.client(tls=seqpar.Tls(ca=self.ca.cert, cert=cert, key=key, token_file=token)).list()), [])
        for tls in (seqpar.Tls(ca=self.ca.cert, token_file=token),
                    seqpar.Tls(ca=self.ca.cert, cert=cert, key=key, token_file=token, server_name="other")):
            with self.assertRaises((seqpar.UnavailableError, seqpar.DeadlineError)):
                list(self.client(tls=tls).list(timeout=5))
        self.flags += ["--tls-cert", cert, "--tls-key", key]  # for what the harness asks at the end


    def test_wait_goes_on_after_a_connection_that_it_refused(self):
        self.start_secure()
        self.as_user("ann")
        ann = self.client(tls=seqpar.Tls(ca=self.ca.cert, token_file=self.certs / "ann.token"))
        job = ann.submit(self.write_job())  # for devices that there are not
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(ann.wait, job, check=False, progress=False, timeout=scaled(120))
            self.put_a_stranger_in_its_place()
            self.start_secure()
            wait_for(lambda: self.cli("get", job.id, check=False), "the coordinator to answer a new command")
            self.cli("cancel", job.id)
            self.assertEqual(waiting.result().state, seqpar.JobState.CANCELLED)
        self.assertEqual(ann.get(job).state, seqpar.JobState.CANCELLED)


class Refusals(unittest.TestCase):
    def test_a_token_without_tls(self):
        with self.assertRaises(seqpar.InvalidError) as refused:
            seqpar.Tls.from_environment({"SEQPAR_TOKEN": "x"})
        self.assertIn("never sent without TLS", str(refused.exception))
        self.assertIsNone(seqpar.Tls.from_environment({}))
        self.assertEqual(seqpar.Tls.from_environment({"SEQPAR_TLS": "1", "SEQPAR_TOKEN": "x"}), seqpar.Tls(token="x"))

    def test_files_that_are_not_there(self):
        for tls, text in ((seqpar.Tls(ca="/absent"), "tls.ca"), (seqpar.Tls(cert="/absent"), "given together"),
                          (seqpar.Tls(token_file="/absent"), "tls.token_file"), (seqpar.Tls(token="two words"), "one word")):
            with self.assertRaises(seqpar.InvalidError) as refused:
                seqpar.Client("127.0.0.1:1", tls=tls)
            self.assertIn(text, str(refused.exception))


if __name__ == "__main__":
    unittest.main()
