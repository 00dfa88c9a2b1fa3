"""Following a job through restarts of the coordinator: what to do between one stream and the next, without gRPC."""
from __future__ import annotations

import random
import time
from typing import Any, Callable, Iterator, Optional

from seqpar.errors import DeadlineError, SeqparError, passes
from seqpar.types import JobInfo

STREAM_SECONDS_MAX = 30.0  # one stream lasts no longer
_BACKOFF_FIRST = 0.2
_BACKOFF_MAX = 5.0


class Backoff:
    """Seconds until the next try: they double up to 5, each shortened by up to half at random so that clients that lost the
    same coordinator do not come back at once."""

    def __init__(self, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._uniform = uniform
        self.reset()

    def reset(self) -> None:
        self._next = _BACKOFF_FIRST

    def next(self) -> float:
        seconds, self._next = self._next, min(self._next * 2, _BACKOFF_MAX)
        return self._uniform(seconds / 2, seconds)


def follow(open_stream: Callable[[int, float], Any], job: str, revision: int, timeout: Optional[float], reconnect: float,
           now: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep,
           backoff: Optional[Backoff] = None) -> Iterator[JobInfo]:
    """The job as it is, then each change after `revision`, until it has ended; never the same revision twice.

    open_stream(revision, seconds) iterates over (revision, JobInfo) of one WatchJob call and raises SeqparError. A stream that
    breaks, or ends early, is opened again from the last revision. UnavailableError where the service could not be reached (or
    another error that passes by waiting) for `reconnect` seconds in one go, DeadlineError after `timeout` seconds (None: never); other errors come as they are.
    """
    backoff = backoff or Backoff()
    begin = now()
    lost_since: Optional[float] = None
    after = revision
    while True:
        told = 0.0  # seconds that the service asks for
        left = None if timeout is None else timeout - (now() - begin)
        if left is not None and left <= 0:
            raise DeadlineError(f"job {job} has not ended after {timeout:g} s; it goes on", code="DEADLINE_EXCEEDED",
                                reason="DEADLINE_EXCEEDED")
        try:
            for event_revision, info in open_stream(after, min(STREAM_SECONDS_MAX, left or STREAM_SECONDS_MAX)):
                lost_since = None
                backoff.reset()
                if event_revision > revision or revision == 0:
                    revision = event_revision
                    yield info
                if info.ended:
                    return
                after = revision
            lost_since = None
            after = 0  # it ended the stream in order, as where the end was told before: asked how the job is
        except DeadlineError:
            lost_since = None
            continue
        except SeqparError as error:
            if not passes(error):
                raise
            lost_since = now() if lost_since is None else lost_since
            if now() - lost_since >= reconnect:
                raise
            told = error.retry_seconds
        seconds = max(backoff.next(), told)
        sleep(seconds if timeout is None else max(0.0, min(seconds, timeout - (now() - begin))))
