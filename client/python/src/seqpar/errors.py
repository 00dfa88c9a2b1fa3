"""What goes wrong, as exceptions: each has the service's code, its stable reason, and every violation of the input."""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, Iterable, Mapping, Optional, Tuple, Type

import grpc

from seqpar.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo, Status

if TYPE_CHECKING:
    from seqpar.types import JobInfo

_DETAILS_KEY = "grpc-status-details-bin"
_NEAREST = " (nearest: "
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


@dataclass(frozen=True)
class Violation:
    """One thing that is wrong with an input.

    `field` is a path as in the job file ("config.head_dim"), `nearest` the nearest legal value ("" where none makes sense).
    """

    field: str
    description: str
    nearest: str = ""

    def __str__(self) -> str:
        text = f"{self.field}: {self.description}" if self.field else self.description
        return f"{text}{_NEAREST}{self.nearest})" if self.nearest else text


class SeqparError(Exception):
    """An error of the service, or of asking it.

    code: the gRPC code's name ("INVALID_ARGUMENT"). reason: stable, for programs ("INVALID_JOB", "INFEASIBLE"; "" where the
    service could not say). message: for people. violations: every one, where an input was refused. metadata: of the reason.
    retry_seconds: after how long the same may succeed, as the service says; 0: it does not.
    """

    def __init__(self, message: str, *, code: str = "UNKNOWN", reason: str = "",
                 violations: Iterable[Violation] = (), metadata: Optional[Mapping[str, str]] = None,
                 retry_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.violations: Tuple[Violation, ...] = tuple(violations)
        self.metadata: Dict[str, str] = dict(metadata or {})
        self.retry_seconds = retry_seconds

    def __str__(self) -> str:
        return f"{self.reason or self.code}: {self.message}"


class InvalidError(SeqparError, ValueError):
    """The job, or another argument, cannot be meant: see `violations`."""


class InfeasibleError(SeqparError):
    """Valid, but it cannot be done now: no plan fits (INFEASIBLE), the job would wait for devices (TOO_FEW_DEVICES), or the
    output is in use: `reason` says which."""


class AlreadyExistsError(SeqparError):
    """The request_id has started another job."""


class NotFoundError(SeqparError, LookupError):
    """There is no such job or node."""


class DeniedError(SeqparError, PermissionError):
    """The coordinator does not know who asks (UNAUTHENTICATED), or they may not (PERMISSION_DENIED)."""


class ExhaustedError(SeqparError):
    """There is too much for now: of calls, of jobs, of what a tenant may have, on the coordinator's disk (`reason` says which:
    OVERLOADED, TOO_MANY_JOBS, TENANT_LIMIT, STORAGE). Try again after `retry_seconds`; where that is 0, waiting does not help."""


class UnavailableError(SeqparError, ConnectionError):
    """The coordinator cannot be reached, or has not answered for as long as the client tries again."""


class DeadlineError(SeqparError, TimeoutError):
    """No answer in time. What was asked for may still happen: a job that is waited for goes on."""


class JobFailedError(SeqparError):
    """A job ended as FAILED. `job` is that job; code, reason and violations are those of its error."""

    job: "JobInfo"


class JobCancelledError(SeqparError):
    """A job ended as CANCELLED. `job` is that job."""

    job: "JobInfo"


_CLASSES: Dict[str, Type[SeqparError]] = {
    "INVALID_ARGUMENT": InvalidError,
    "OUT_OF_RANGE": InvalidError,
    "FAILED_PRECONDITION": InfeasibleError,
    "ALREADY_EXISTS": AlreadyExistsError,
    "NOT_FOUND": NotFoundError,
    "UNAUTHENTICATED": DeniedError,
    "PERMISSION_DENIED": DeniedError,
    "RESOURCE_EXHAUSTED": ExhaustedError,
    "UNAVAILABLE": UnavailableError,
    "DEADLINE_EXCEEDED": DeadlineError,
}
# Devices are what is unavailable then; the coordinator has answered, and answers the same a moment later.
_CLASSES_BY_REASON: Dict[str, Type[SeqparError]] = {"TOO_FEW_DEVICES": InfeasibleError}


def passes(error: SeqparError) -> bool:
    """Whether the same call may succeed soon: the service is away, or has too many calls for now. CANCELLED, which nobody here
    asked for: the server gave up what was open when it was told to stop."""
    return isinstance(error, UnavailableError) or error.code == "CANCELLED" or error.reason == "OVERLOADED"


def invalid(violations: Iterable[Violation]) -> InvalidError:
    """As the service would refuse a job with these violations. REQUIRES: at least one."""
    found = tuple(violations)
    return InvalidError("\n".join(map(str, found)), code="INVALID_ARGUMENT", reason="INVALID_JOB", violations=found)


def from_rpc(error: grpc.RpcError) -> SeqparError:
    """The exception that a failed call means."""
    call: Any = error
    status = Status(code=call.code().value[0], message=call.details() or "")
    for key, value in call.trailing_metadata() or ():
        if key == _DETAILS_KEY:
            told = Status.FromString(value)
            status.details.extend(told.details)
    return from_status(status)


def from_status(status: Any, cls: Optional[Type[SeqparError]] = None) -> SeqparError:
    """The exception that a google.rpc.Status means; of class `cls` where given."""
    code = _CODES.get(status.code, "UNKNOWN")
    reason, metadata, violations = "", {}, []
    info, bad, retry, retry_seconds = ErrorInfo(), BadRequest(), RetryInfo(), 0.0
    for detail in status.details:
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad):
            violations = [_violation(v.field, v.description) for v in bad.field_violations]
        elif detail.Unpack(retry):
            retry_seconds = retry.retry_delay.seconds + retry.retry_delay.nanos * 1e-9
    cls = cls or _CLASSES_BY_REASON.get(reason) or _CLASSES.get(code, SeqparError)
    return cls(status.message, code=code, reason=reason, violations=violations, metadata=metadata,
               retry_seconds=retry_seconds)


def _violation(field: str, description: str) -> Violation:
    """BadRequest has no field for the nearest legal value: it ends the description."""
    at = description.rfind(_NEAREST)
    if at < 0 or not description.endswith(")"):
        return Violation(field, description)
    return Violation(field, description[:at], description[at + len(_NEAREST):-1])
