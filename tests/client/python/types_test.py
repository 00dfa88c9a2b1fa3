"""The values over the service's messages, and errors as exceptions."""
import datetime
import unittest

import grpc

import seqpar
from seqpar import errors, rpc, v1
from seqpar.types import describe


def refusal():
    status = rpc.Status(code=3, message="config.head_dim: is odd")
    status.details.add().Pack(rpc.ErrorInfo(reason="INVALID_JOB", domain="seqpar", metadata={"k": "v"}))
    bad = rpc.BadRequest()
    bad.field_violations.add(field="config.head_dim", description="is odd (nearest: 8)")
    bad.field_violations.add(field="name", description="(nearest: none)")
    status.details.add().Pack(bad)
    return status


class FakeRpcError(grpc.RpcError):
    def __init__(self, code, details, metadata):
        super().__init__()
        self._answers = code, details, metadata

    def code(self):
        return self._answers[0]

    def details(self):
        return self._answers[1]

    def trailing_metadata(self):
        return self._answers[2]


class Errors(unittest.TestCase):
    def test_reason_and_violations_of_a_refusal(self):
        error = errors.from_rpc(FakeRpcError(grpc.StatusCode.INVALID_ARGUMENT, "config.head_dim: is odd",
                                             [("a", "b"), ("grpc-status-details-bin", refusal().SerializeToString())]))
        self.assertIs(type(error), seqpar.InvalidError)
        self.assertEqual((error.code, error.reason, error.metadata), ("INVALID_ARGUMENT", "INVALID_JOB", {"k": "v"}))
        self.assertEqual(error.violations, (seqpar.Violation("config.head_dim", "is odd", "8"),
                                            seqpar.Violation("name", "(nearest: none)")))

    def test_an_error_without_details(self):
        error = errors.from_rpc(FakeRpcError(grpc.StatusCode.UNAVAILABLE, "refused", None))
        self.assertIs(type(error), seqpar.UnavailableError)
        self.assertIsInstance(error, ConnectionError)
        self.assertEqual((error.reason, str(error)), ("", "UNAVAILABLE: refused"))
        self.assertIs(type(errors.from_rpc(FakeRpcError(grpc.StatusCode.INTERNAL, None, ()))), seqpar.SeqparError)

    def test_what_there_is_too_much_of_and_when_to_ask_again(self):
        status = rpc.Status(code=8, message="the coordinator has more calls than it can answer")
        status.details.add().Pack(rpc.ErrorInfo(reason="OVERLOADED", domain="seqpar"))
        delay = rpc.RetryInfo()
        delay.retry_delay.seconds, delay.retry_delay.nanos = 1, 500_000_000
        status.details.add().Pack(delay)
        error = errors.from_status(status)
        self.assertIs(type(error), seqpar.ExhaustedError)
        self.assertEqual((error.reason, error.retry_seconds, errors.passes(error)), ("OVERLOADED", 1.5, True))
        limit = errors.from_status(rpc.Status(code=8, message="a message of 17 MiB"))
        self.assertIs(type(limit), seqpar.ExhaustedError)
        self.assertEqual((limit.retry_seconds, errors.passes(limit)), (0, False))
        self.assertTrue(errors.passes(seqpar.UnavailableError("refused")))

    def test_the_usual_exceptions_are_their_bases(self):
        for cls, base in ((seqpar.DeadlineError, TimeoutError), (seqpar.NotFoundError, LookupError),
                          (seqpar.InvalidError, ValueError)):
            self.assertTrue(issubclass(cls, base))


class Values(unittest.TestCase):
    def test_a_failed_job(self):
        message = v1.Job(id="j-1", state=v1.JOB_STATE_FAILED, phase=v1.JOB_PHASE_EXECUTE, attempt=2, error=refusal())
        message.attempts.add(attempt=1, mesh="R4", devices=["a/0", "a/1"], error=refusal(), consequences=["rank 1: followed"])
        message.attempts.add(attempt=2)
        message.create_time.seconds, message.create_time.nanos = 1700000000, 5000
        job = seqpar.JobInfo(message)
        self.assertEqual((job.state, job.ended, job.phase), (seqpar.JobState.FAILED, True, "execute"))
        self.assertIsInstance(job.error, seqpar.JobFailedError)
        self.assertEqual((job.error.reason, job.error.job), ("INVALID_JOB", job))
        self.assertEqual(job.attempts[0].devices, ("a/0", "a/1"))
        self.assertEqual(job.attempts[0].error.violations[0].nearest, "8")
        self.assertIsNone(job.attempts[1].error)
        self.assertEqual(job.create_time, datetime.datetime(2023, 11, 14, 22, 13, 20, 5, datetime.timezone.utc))
        self.assertEqual((job.start_time, job.report, job.output), (None, None, ""))
        self.assertIn("j-1 FAILED attempt 2", repr(job))

    def test_a_cancelled_job_without_an_error_has_one(self):
        job = seqpar.JobInfo(v1.Job(id="j-1", state=v1.JOB_STATE_CANCELLED))
        self.assertIsInstance(job.error, seqpar.JobCancelledError)
        self.assertIn("j-1", str(job.error))

    def test_a_word_that_this_package_does_not_know_is_no_error(self):
        self.assertEqual(seqpar.JobInfo(v1.Job(phase=77)).phase, "")
        self.assertEqual(describe(seqpar.JobInfo(v1.Job())), "(not submitted) PENDING")

    def test_meshes_are_written_as_in_reports(self):
        for (tensor, ulysses, ring, inner), text in (((1, 1, 1, 1), "1"), ((2, 1, 4, 4), "T2 x R4"),
                                                     ((1, 2, 4, 2), "U2 x R4 (inner 2)"), ((1, 2, 4, 1), "U2 x R4")):
            mesh = seqpar.Mesh(tensor, ulysses, ring, inner)
            self.assertEqual((str(mesh), mesh.ranks), (text, tensor * ulysses * ring))


if __name__ == "__main__":
    unittest.main()
