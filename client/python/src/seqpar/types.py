"""What the service says, as typed values over its messages; `message` is always the whole of it."""
from __future__ import annotations

import datetime
import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

from seqpar import errors
from seqpar.words import word

if TYPE_CHECKING:
    from seqpar.rpc.error_details_pb2 import Status
    from seqpar.v1.job_pb2 import Job as JobMessage
    from seqpar.v1.job_pb2 import Progress
    from seqpar.v1.plan_pb2 import Candidate as CandidateMessage
    from seqpar.v1.plan_pb2 import Explanation, Prediction, RankPlan
    from seqpar.v1.plan_pb2 import Plan as PlanMessage
    from seqpar.v1.report_pb2 import Report
    from seqpar.v1.service_pb2 import Node as NodeMessage
    from seqpar.v1.service_pb2 import NodeDevice


class JobState(str, enum.Enum):
    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    def __str__(self) -> str:
        return self.value


class NodeState(str, enum.Enum):
    READY = "ready"
    DRAINING = "draining"
    LOST = "lost"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Attempt:
    """One try at running a job: `mesh` as in "U2 x R2", `devices` by rank, `error` the first cause (None: it succeeded, or
    runs), `consequences` what followed from it."""

    number: int
    mesh: str
    devices: Tuple[str, ...]
    start_time: Optional[datetime.datetime]
    end_time: Optional[datetime.datetime]
    error: Optional[errors.SeqparError]
    consequences: Tuple[str, ...]


class JobInfo:
    """A job as it was at one moment (`revision`); it does not change. Times are UTC."""

    def __init__(self, message: "JobMessage") -> None:
        self.message = message

    @property
    def id(self) -> str:
        return self.message.id

    @property
    def name(self) -> str:
        return self.message.name

    @property
    def labels(self) -> Dict[str, str]:
        return dict(self.message.labels)

    @property
    def state(self) -> JobState:
        return JobState(word(self.message, "state") or "pending")

    @property
    def ended(self) -> bool:
        return self.state in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)

    @property
    def phase(self) -> str:
        """submit, validate, plan, place, bootstrap, shard, execute, merge or report."""
        return word(self.message, "phase")

    @property
    def reason(self) -> str:
        """Why it is pending, in words."""
        return self.message.reason

    @property
    def attempt(self) -> int:
        return self.message.attempt

    @property
    def attempts(self) -> List[Attempt]:
        return [Attempt(a.attempt, a.mesh, tuple(a.devices), _time(a, "start_time"), _time(a, "end_time"),
                        _error(a.error), tuple(a.consequences)) for a in self.message.attempts]

    @property
    def progress(self) -> "Progress":
        return self.message.progress

    @property
    def revision(self) -> int:
        return self.message.revision

    @property
    def create_time(self) -> Optional[datetime.datetime]:
        return _time(self.message, "create_time")

    @property
    def start_time(self) -> Optional[datetime.datetime]:
        return _time(self.message, "start_time")

    @property
    def end_time(self) -> Optional[datetime.datetime]:
        return _time(self.message, "end_time")

    @property
    def error(self) -> Optional[errors.SeqparError]:
        """Why it failed or was cancelled."""
        if self.state == JobState.FAILED:
            return self._ended_error(errors.JobFailedError, f"job {self.id} failed")
        if self.state == JobState.CANCELLED:
            return self._ended_error(errors.JobCancelledError, f"job {self.id} was cancelled")
        return None

    @property
    def report(self) -> Optional["Report"]:
        """Predicted and measured figures, rank by rank; None before a job has ended in an attempt, and in lists."""
        return self.message.report if self.message.HasField("report") else None

    @property
    def output(self) -> str:
        """The path of its result as the coordinator has it; "" where it writes none or has not ended."""
        return self.message.report.output

    def _ended_error(self, cls: Any, otherwise: str) -> errors.SeqparError:
        error = errors.from_status(self.message.error, cls)
        if not error.message:
            error = cls(otherwise, code="CANCELLED" if cls is errors.JobCancelledError else "UNKNOWN")
        error.job = self  # type: ignore[attr-defined]
        return error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JobInfo) and self.message == other.message

    __hash__ = None  # type: ignore[assignment]  # compared as a value; ids are for sets

    def __repr__(self) -> str:
        return f"<JobInfo {describe(self)}>"


def describe(job: JobInfo) -> str:
    """"j-1 RUNNING execute attempt 2 backward layer 1/2 42.0% 12.3 s left"; what is not known is left out."""
    words = [job.id or "(not submitted)", job.state.value.upper()]
    if job.phase and not job.ended:
        words.append(job.phase)
    if job.attempt > 1:
        words.append(f"attempt {job.attempt}")
    progress = job.progress
    if job.state == JobState.RUNNING and job.phase == "execute" and job.message.HasField("progress"):
        words += filter(None, [getattr(progress, "pass")])
        if progress.layers:
            words.append(f"layer {progress.layer}/{progress.layers}")
        words.append(f"{progress.percent:.1f}%")
        if progress.seconds_left > 0:
            words.append(f"{progress.seconds_left:.1f} s left")
    if job.state == JobState.PENDING and job.reason:
        words.append(job.reason)
    return " ".join(words)


@dataclass(frozen=True)
class Mesh:
    """tensor x ulysses x ring ranks; `inner` ranks of the ring are a ring of their own (equal to ring: a plain ring)."""

    tensor: int
    ulysses: int
    ring: int
    inner: int

    @property
    def ranks(self) -> int:
        return self.tensor * self.ulysses * self.ring

    def __str__(self) -> str:
        axes = [f"{axis}{degree}" for axis, degree in (("T", self.tensor), ("U", self.ulysses), ("R", self.ring))
                if degree != 1]
        inner = f" (inner {self.inner})" if 1 < self.inner < self.ring else ""
        return (" x ".join(axes) or "1") + (inner if axes else "")


class Candidate:
    """One way to run the job, and why it was not taken (`reason`; "" for the one that was)."""

    def __init__(self, message: "CandidateMessage") -> None:
        self.message = message

    @property
    def mesh(self) -> Mesh:
        return _mesh(self.message)

    @property
    def strategy(self) -> str:
        return word(self.message, "strategy")

    @property
    def core(self) -> str:
        return word(self.message, "core")

    @property
    def layout(self) -> str:
        return word(self.message, "layout")

    @property
    def recompute(self) -> str:
        return word(self.message, "recompute")

    @property
    def feasible(self) -> bool:
        return self.message.feasible

    @property
    def prediction(self) -> "Prediction":
        """Seconds, bytes and flops: see proto/seqpar/v1/plan.proto."""
        return self.message.prediction

    @property
    def reason(self) -> str:
        return self.message.reason

    def __repr__(self) -> str:
        why = f": {self.reason}" if self.reason else ""
        return f"<Candidate {self.mesh} {self.strategy} {self.prediction.step_seconds:.3g} s{why}>"


@dataclass(frozen=True)
class Rejected:
    """`count` candidates that were refused for the same reason, and the nearest miss among them."""

    reason: str
    count: int
    nearest: Optional[Candidate]


class Plan:
    """The plan that was chosen, and the explanation: what else was considered, and why it was not taken.

    `print(plan)` is a table of it.
    """

    def __init__(self, message: "PlanMessage", explanation: "Explanation") -> None:
        self.message = message
        self.explanation = explanation

    @property
    def mesh(self) -> Mesh:
        return _mesh(self.message)

    @property
    def strategy(self) -> str:
        return word(self.message, "strategy")

    @property
    def core(self) -> str:
        return word(self.message, "core")

    @property
    def layout(self) -> str:
        return word(self.message, "layout")

    @property
    def recompute(self) -> str:
        return word(self.message, "recompute")

    @property
    def reason(self) -> str:
        """Why this one, in a sentence."""
        return self.message.reason

    @property
    def prediction(self) -> "Prediction":
        return self.message.prediction

    @property
    def ranks(self) -> List["RankPlan"]:
        """Which tokens and heads each rank holds, and its groups and neighbours."""
        return list(self.message.ranks)

    @property
    def best(self) -> List[Candidate]:
        """What would work, by predicted time; the chosen one first."""
        return [Candidate(c) for c in self.explanation.best]

    @property
    def rejected(self) -> List[Rejected]:
        return [_rejected(r) for r in self.explanation.rejected]

    @property
    def slower(self) -> Optional[Rejected]:
        """Of what would work and is beyond `best`: how many, and the fastest."""
        return _rejected(self.explanation.slower) if self.explanation.slower.count else None

    @property
    def candidates(self) -> List[Candidate]:
        """Every one, where `all_candidates` asked for them."""
        return [Candidate(c) for c in self.explanation.all]

    @property
    def feasible(self) -> int:
        return self.explanation.feasible

    @property
    def considered(self) -> int:
        return self.explanation.considered

    def __str__(self) -> str:
        lines = [f"{self.mesh}  {self.strategy}  {self.layout}  {self.core}  recompute {self.recompute}: {self.reason}",
                 f"{self.feasible} of {self.considered} candidates are feasible"]
        rows: List[Tuple[str, ...]] = [
            ("mesh", "strategy", "layout", "core", "recompute", "step s", "GB/rank", "sent GB/rank", "why not")]
        rows += [_row(c, c.reason) for c in self.best]
        rows += [_row(r.nearest, f"{r.reason} ({r.count})") for r in self.rejected if r.nearest is not None]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Plan {self.mesh} {self.strategy} {self.prediction.step_seconds:.3g} s>"


def _row(candidate: Candidate, why: str) -> Tuple[str, ...]:
    prediction = candidate.prediction
    return (str(candidate.mesh), candidate.strategy, candidate.layout, candidate.core, candidate.recompute,
            f"{prediction.step_seconds:.3g}", f"{prediction.peak_bytes / 1e9:.3g}",
            f"{prediction.bytes_sent / 1e9:.3g}", why)


@dataclass(frozen=True)
class Node:
    """One machine with its devices. `drained`: by a user, until it is undone."""

    name: str
    state: Optional[NodeState]
    drained: bool
    version: str
    labels: Dict[str, str]
    devices: List["NodeDevice"]
    message: "NodeMessage"


def node_of(message: "NodeMessage") -> Node:
    state = word(message, "state")
    return Node(message.name, NodeState(state) if state else None, message.drained, message.version,
                dict(message.labels), list(message.devices), message)


def _mesh(message: Any) -> Mesh:
    mesh = message.mesh
    return Mesh(mesh.tensor, mesh.ulysses, mesh.ring, mesh.inner)


def _rejected(message: Any) -> Rejected:
    nearest = Candidate(message.nearest) if message.HasField("nearest") else None
    return Rejected(message.reason, message.count, nearest)


def _time(message: Any, field: str) -> Optional[datetime.datetime]:
    if not message.HasField(field):
        return None
    stamp = getattr(message, field)
    return datetime.datetime.fromtimestamp(stamp.seconds, datetime.timezone.utc) + datetime.timedelta(
        microseconds=stamp.nanos // 1000)


def _error(status: "Status") -> Optional[errors.SeqparError]:
    return errors.from_status(status) if status.code else None
