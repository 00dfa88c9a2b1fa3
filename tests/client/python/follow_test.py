"""Following a job: what comes, in which order, and when it gives up; by a clock that only the test moves."""
import unittest

from seqpar import DeadlineError, ExhaustedError, JobInfo, NotFoundError, SeqparError, UnavailableError
from seqpar._watch import Backoff, follow
from seqpar.v1 import job_pb2


def info(revision, state=job_pb2.JOB_STATE_RUNNING):
    return revision, JobInfo(job_pb2.Job(id="j-1", revision=revision, state=state))


DONE = job_pb2.JOB_STATE_SUCCEEDED
LOST = UnavailableError("connection refused", code="UNAVAILABLE")


class World:
    """Streams as a script: each a list of events, then the error that ends it (None: in order). The last repeats."""

    def __init__(self, *streams):
        self.streams = list(streams)
        self.opened = []
        self.slept = []
        self.now = 0.0

    def open(self, revision, seconds):
        self.opened.append((revision, seconds))
        events, error = self.streams[0]
        if len(self.streams) > 1:
            self.streams.pop(0)
        yield from events
        if isinstance(error, DeadlineError):
            self.now += seconds
        if error is not None:
            raise error

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds

    def follow(self, timeout=None, reconnect=60.0, revision=0):
        return follow(self.open, "j-1", revision, timeout, reconnect, now=lambda: self.now, sleep=self.sleep,
                      backoff=Backoff(uniform=lambda low, high: high))


class Follow(unittest.TestCase):
    def test_a_broken_stream_goes_on_from_the_last_revision(self):
        world = World(([info(3), info(5)], LOST), ([], LOST), ([info(5), info(8)], None), ([info(9, DONE)], None))
        self.assertEqual([job.revision for job in world.follow()], [3, 5, 8, 9])
        self.assertEqual([revision for revision, _ in world.opened], [0, 5, 5, 0])
        self.assertEqual(world.slept, [0.2, 0.4, 0.2])  # twice as long while it is away; anew once it was there

    def test_an_end_already_seen_ends_it(self):
        world = World(([], None), ([info(3, DONE)], None))  # the service tells only what is newer
        self.assertEqual([job.revision for job in world.follow(revision=3)], [])
        self.assertEqual([revision for revision, _ in world.opened], [3, 0])

    def test_the_bound_of_a_stream_is_no_failure(self):
        world = World(([info(1)], DeadlineError("", code="DEADLINE_EXCEEDED")), ([info(2, DONE)], None))
        self.assertEqual([job.revision for job in world.follow()], [1, 2])
        self.assertEqual((world.slept, world.opened[0][1]), ([], 30.0))

    def test_unreachable_for_too_long(self):
        world = World(([info(1)], LOST), ([], LOST))
        seen = []
        with self.assertRaises(UnavailableError):
            for job in world.follow(reconnect=20):
                seen.append(job.revision)
        self.assertEqual(seen, [1])
        self.assertGreaterEqual(world.now, 20)
        self.assertLess(world.now, 26)
        self.assertEqual(max(world.slept), 5.0)

    def test_reachable_again_the_count_begins_anew(self):
        away = [([], LOST)] * 4
        world = World(*away, ([info(1)], LOST), *away, ([info(2, DONE)], None))
        self.assertEqual([job.revision for job in world.follow(reconnect=4)], [1, 2])

    def test_the_deadline_of_all(self):
        world = World(([info(1)], None), ([], None))
        with self.assertRaisesRegex(DeadlineError, "has not ended after 7 s"):
            list(world.follow(timeout=7))
        self.assertAlmostEqual(world.now, 7)
        self.assertLessEqual(max(seconds for _, seconds in world.opened), 7)

    def test_a_stream_that_a_server_gave_up_is_no_cancelled_job(self):
        world = World(([info(3)], SeqparError("the call was cancelled", code="CANCELLED")), ([info(5, DONE)], None))
        self.assertEqual([job.revision for job in world.follow()], [3, 5])

    def test_a_service_with_too_many_calls_is_asked_again_when_it_says(self):
        full = ExhaustedError("too many calls", code="RESOURCE_EXHAUSTED", reason="OVERLOADED", retry_seconds=3)
        world = World(([info(3)], full), ([info(5, DONE)], None))
        self.assertEqual([job.revision for job in world.follow()], [3, 5])
        self.assertEqual(world.slept, [3])
        world = World(([], full))
        with self.assertRaises(ExhaustedError):
            list(world.follow(reconnect=20))

    def test_other_errors_come_as_they_are(self):
        for error in (NotFoundError("no job"), ExhaustedError("a limit", reason="TENANT_LIMIT", retry_seconds=9)):
            with self.assertRaises(type(error)):
                list(World(([], error)).follow())

    def test_waits_differ_between_clients(self):
        waits = [Backoff().next() for _ in range(50)]
        self.assertGreater(len(set(waits)), 10)
        self.assertTrue(all(0.1 <= wait <= 0.2 for wait in waits))


if __name__ == "__main__":
    unittest.main()
