"""The client: one method for each thing that the service does."""
from __future__ import annotations

import os
import pathlib
import time
import uuid
from typing import Any, Dict, Iterator, List, Mapping, Optional, Union

import grpc

from seqpar import errors
from seqpar._convert import ClusterLike, JobLike, cluster_message, read_job
from seqpar._descriptors import method_paths
from seqpar._version import __version__
from seqpar._watch import Backoff, follow
from seqpar.progress import ProgressLike, display_for
from seqpar.results import Results
from seqpar.security import Tls, secure_channel
from seqpar.types import JobInfo, JobState, Node, Plan, node_of
from seqpar.v1 import service_pb2 as pb
from seqpar.v1.job_pb2 import JobState as States
from seqpar.words import nearest

JobRef = Union[str, JobInfo]
DEFAULT_SERVER = "127.0.0.1:7700"
_PAGE_SIZE = 200
_REST_SECONDS = 5.0  # for an answer that is only better by what it may add
_CONNECT_SECONDS = 1.0  # that a call waits for a connection at most; the next goes on from there
# A plan of every candidate for a large cluster is larger than gRPC's default of 4 MiB. A coordinator that restarts is found
# again within a second or two, not within gRPC's two minutes; one that vanished without a word (its machine, the network) by the
# pings that it does not answer: the end of a stream's time says nothing about a job that waits.
_CHANNEL_OPTIONS = [("grpc.max_receive_message_length", 256 << 20), ("grpc.max_send_message_length", 256 << 20),
                    ("grpc.primary_user_agent", f"seqpar-python/{__version__}"),
                    ("grpc.initial_reconnect_backoff_ms", 200), ("grpc.min_reconnect_backoff_ms", 5000),
                    ("grpc.max_reconnect_backoff_ms", 1000), ("grpc.keepalive_time_ms", 20000),
                    ("grpc.keepalive_timeout_ms", 10000), ("grpc.http2.max_pings_without_data", 0),
                    ("grpc.http2.ping_timeout_ms", 10000)]  # newer ones wait for a minute beside the other


class Client:
    """A connection to one coordinator; thread-safe. Use it as a context manager, or call `close`.

    Every call has a deadline (`timeout` seconds, settable at each call) and raises errors.SeqparError. A call that cannot
    reach the coordinator, or meets one with too many calls, is tried again for `retry` seconds: all of them may be repeated, submits by their request_id.
    """

    def __init__(self, server: Optional[str] = None, *, timeout: float = 30.0, retry: float = 10.0,
                 paths: Optional[Mapping[str, str]] = None, tls: Optional[Tls] = None,
                 channel: Optional[grpc.Channel] = None) -> None:
        """server: host:port; default $SEQPAR_SERVER, else 127.0.0.1:7700. Connects at the first call.
        paths: folders of the coordinator -> the same folders here, for `results`; what is not named has the same path.
        tls: how it is reached over TLS, and the token that says who you are; default: as the environment says, as for
        `seqpar` (Tls.from_environment), else in the clear.
        channel: one of your own (interceptors, credentials), in the place of `server`; it is not closed."""
        self.server = server or os.environ.get("SEQPAR_SERVER") or DEFAULT_SERVER
        self.timeout = timeout
        self.retry = retry
        self.paths = dict(paths or {})
        self._own = channel is None
        if channel is None:
            tls = tls or Tls.from_environment()
            channel = (secure_channel(self.server, tls, _CHANNEL_OPTIONS) if tls else
                       grpc.insecure_channel(self.server, options=_CHANNEL_OPTIONS))
        self._channel = channel
        self._unreachable = False  # at the last call
        self._calls: Dict[str, Any] = {}
        for service in ("seqpar.v1.JobService", "seqpar.v1.ClusterService"):
            for name, path, request, response, streams in method_paths(service):
                make = self._channel.unary_stream if streams else self._channel.unary_unary
                self._calls[name] = make(path, request_serializer=request.SerializeToString,
                                         response_deserializer=response.FromString)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        if self._own:
            self._channel.close()

    # --- jobs ---

    def submit(self, job: JobLike, *, request_id: Optional[str] = None, timeout: Optional[float] = None) -> JobInfo:
        """Submits a job (a path of a YAML file, a dict, a seqpar.Job, or a message); it is durable when this returns.

        request_id: the same one with the same job never starts a second job, from this process or a later one; one is made
        where it is left out, so that trying again within this call is safe. InvalidError with every violation;
        InfeasibleError where no plan fits or the output is in use; AlreadyExistsError where the request_id started another
        job; UnavailableError and DeadlineError where it is not known whether the job was accepted: submit it again with the
        error's `metadata["request_id"]`.
        """
        request = pb.CreateJobRequest(job=self._message(job), request_id=request_id or f"py-{uuid.uuid4().hex}")
        try:
            return JobInfo(self._call("CreateJob", request, timeout))
        except errors.SeqparError as error:
            if errors.passes(error) or isinstance(error, errors.DeadlineError):
                error.metadata["request_id"] = request.request_id
            raise

    def validate(self, job: JobLike, *, timeout: Optional[float] = None) -> JobInfo:
        """The job as the service understands it; nothing is submitted. Raises as `submit` does."""
        return JobInfo(self._call("CreateJob", pb.CreateJobRequest(job=self._message(job), validate_only=True), timeout))

    def plan(self, job: JobLike, *, cluster: Optional[ClusterLike] = None, all_candidates: bool = False,
             timeout: Optional[float] = None) -> Plan:
        """Which mesh, why, and what was rejected, without running anything.

        cluster: machines that need not exist (a path of a YAML file, a dict, or a message); default: the nodes that are
        attached. InfeasibleError where nothing fits, with the nearest miss in its message, and where the job would wait for
        devices (TOO_FEW_DEVICES)."""
        request = pb.PlanJobRequest(job=self._message(job), all_candidates=all_candidates)
        if cluster is not None:
            request.cluster.CopyFrom(cluster_message(cluster))
        answer = self._call("PlanJob", request, timeout)
        return Plan(answer.plan, answer.explanation)

    def get(self, job: JobRef, *, timeout: Optional[float] = None) -> JobInfo:
        """The job as it is now, with its report once it has ended."""
        return JobInfo(self._call("GetJob", pb.GetJobRequest(id=_id(job)), timeout))

    def list(self, *, states: Optional[List[Union[JobState, str]]] = None, labels: Optional[Mapping[str, str]] = None,
             timeout: Optional[float] = None) -> Iterator[JobInfo]:
        """Jobs, newest first, fetched page by page as the iterator goes on; without reports. `timeout` is a page's."""
        request = pb.ListJobsRequest(page_size=_PAGE_SIZE, labels=labels or {})
        request.states.extend(map(_state_number, states or []))
        return self._pages("ListJobs", request, "jobs", JobInfo, timeout)

    def cancel(self, job: JobRef, *, timeout: Optional[float] = None) -> JobInfo:
        """Ends the job; one that has ended is returned as it is."""
        return JobInfo(self._call("CancelJob", pb.CancelJobRequest(id=_id(job)), timeout))

    def watch(self, job: JobRef, *, revision: int = 0, timeout: Optional[float] = None,
              reconnect: float = 60.0) -> Iterator[JobInfo]:
        """The job as it is, then each change, until it has ended; through restarts of the coordinator.

        revision: only what is newer. timeout: of all of it (None: no bound); DeadlineError after that. reconnect: how long the
        coordinator may be unreachable in one go before UnavailableError."""
        job_id = _id(job)
        return follow(lambda after, seconds: self._events(job_id, after, seconds), job_id, revision, timeout, reconnect)

    def wait(self, job: JobRef, *, timeout: Optional[float] = None, reconnect: float = 60.0,
             progress: ProgressLike = None, check: bool = True) -> JobInfo:
        """Waits until the job has ended and returns it, with its report; timeout and reconnect as for `watch`.

        progress: None shows a bar in a notebook or on a terminal, True also lines elsewhere, False nothing; a callable is
        called with each change. check: JobFailedError and JobCancelledError (their `job` has the rest) where it did not
        succeed; without it look at `state`."""
        display = display_for(progress)
        last = None
        try:
            for last in self.watch(job, timeout=timeout, reconnect=reconnect):
                display.show(last)
        finally:
            display.close()
        if last is None or (last.state == JobState.SUCCEEDED and last.report is None):
            last = self.get(job)  # events may come without the report
        if check and last.error is not None:
            raise last.error
        return last

    def run(self, job: JobLike, **wait: Any) -> JobInfo:
        """submit, then wait with the arguments given."""
        return self.wait(self.submit(job), **wait)

    def logs(self, job: JobRef, *, rank: Optional[int] = None, attempt: Optional[int] = None,
             timeout: Optional[float] = None) -> List[pb.RankLog]:
        """The last of each executor's output, by attempt, then rank; default: every rank of the last attempt."""
        request = pb.GetJobLogsRequest(id=_id(job), rank=rank, attempt=attempt)
        return list(self._call("GetJobLogs", request, timeout).logs)

    def results(self, job: JobRef, *, timeout: Optional[float] = None) -> Results:
        """The arrays that a job wrote, by name; bfloat16 comes as float32.

        The file is read where the coordinator wrote it, or under `paths` of the constructor. OSError where it is not there;
        the job's own error where it did not succeed; ValueError where it writes none."""
        info = job if isinstance(job, JobInfo) and job.report is not None else self.get(job, timeout=timeout)
        if info.error is not None:
            raise info.error
        if not info.ended:
            raise ValueError(f"job {info.id} has not ended: wait for it")
        if not info.output:
            raise ValueError(f"job {info.id} writes no output: its job has no output.file")
        return Results(self._local(info.output))

    # --- nodes ---

    def nodes(self, *, timeout: Optional[float] = None) -> List[Node]:
        return list(self._pages("ListNodes", pb.ListNodesRequest(page_size=_PAGE_SIZE), "nodes", node_of, timeout))

    def node(self, name: str, *, timeout: Optional[float] = None) -> Node:
        return node_of(self._call("GetNode", pb.GetNodeRequest(name=name), timeout))

    def drain(self, name: str, *, undo: bool = False, timeout: Optional[float] = None) -> Node:
        """No new ranks on this node, until `undo`; running ones finish."""
        return node_of(self._call("DrainNode", pb.DrainNodeRequest(name=name, undo=undo), timeout))

    # --- calls ---

    def _call(self, name: str, request: Any, timeout: Optional[float]) -> Any:
        begin = time.monotonic()
        limit = self.timeout if timeout is None else timeout
        backoff = Backoff()
        while True:
            try:
                self._wait_out_failure(limit - (time.monotonic() - begin))
                return self._calls[name](request, timeout=max(limit - (time.monotonic() - begin), 0.001))
            except grpc.RpcError as rpc_error:
                error = self._error(rpc_error)
            seconds = max(backoff.next(), error.retry_seconds)
            if not errors.passes(error) or time.monotonic() - begin + seconds >= min(limit, self.retry):
                raise error
            time.sleep(seconds)

    def _error(self, rpc_error: grpc.RpcError) -> errors.SeqparError:
        error = errors.from_rpc(rpc_error)
        self._unreachable = isinstance(error, errors.UnavailableError)
        return error

    def _wait_out_failure(self, limit: float) -> None:
        """Before a call: where the last one could not reach the coordinator, waits until there is a connection, for `limit`
        seconds and _CONNECT_SECONDS at most. Older gRPC goes on with a connection only while somebody waits for something, and
        a call on a channel that has failed to connect fails at once: left to such calls a connection over TLS, which takes
        several round trips, would never be made again. Without one the call then says why."""
        if not self._unreachable:
            return
        ready = grpc.channel_ready_future(self._channel)
        try:
            ready.result(timeout=max(0.0, min(limit, _CONNECT_SECONDS)))
            self._unreachable = False
        except grpc.FutureTimeoutError:
            pass
        finally:
            ready.cancel()

    def _message(self, job: JobLike) -> Any:
        """InvalidError with every violation: of the form, and as the service sees it, if it can be reached, of the rest."""
        message, unread = read_job(job)
        if not unread:
            return message
        refused = errors.invalid(unread)
        if not all(violation.field for violation in unread):
            raise refused  # there is no rest
        request = pb.CreateJobRequest(job=message, validate_only=True)
        for violation in unread:
            request.unread.add(field=violation.field, description=violation.description, nearest=violation.nearest)
        try:
            self._calls["CreateJob"](request, timeout=min(self.timeout, _REST_SECONDS))
        except grpc.RpcError as rpc_error:
            told = self._error(rpc_error)
            if told.violations[:len(unread)] == refused.violations:
                raise told from None
        raise refused

    def _events(self, job: str, revision: int, seconds: float) -> Iterator[Any]:
        end = time.monotonic() + seconds
        self._wait_out_failure(seconds)
        stream = self._calls["WatchJob"](pb.WatchJobRequest(id=job, revision=revision),
                                         timeout=max(end - time.monotonic(), 0.001))
        try:
            for event in stream:
                yield event.revision, JobInfo(event.job)
        except grpc.RpcError as error:
            raise self._error(error) from None
        finally:
            stream.cancel()

    def _pages(self, name: str, request: Any, field: str, make: Any, timeout: Optional[float]) -> Iterator[Any]:
        while True:
            page = self._call(name, request, timeout)
            yield from map(make, getattr(page, field))
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def _local(self, path: str) -> pathlib.Path:
        """The longest of `paths` that holds it."""
        there = pathlib.PurePosixPath(path)
        for folder in sorted(self.paths, key=len, reverse=True):
            if there.is_relative_to(folder):
                return pathlib.Path(self.paths[folder]) / there.relative_to(folder)
        return pathlib.Path(path)


def _state_number(state: Union[JobState, str]) -> Any:
    """InvalidError for a word that is no state."""
    word = str(state).lower()
    names = [s.value for s in JobState]
    if word not in names:
        raise errors.invalid([errors.Violation("states", f"must be one of {', '.join(names)}, is '{word}'",
                                               nearest(word, names))])
    return States.Value(f"JOB_STATE_{word.upper()}")


def _id(job: JobRef) -> str:
    return job.id if isinstance(job, JobInfo) else job
