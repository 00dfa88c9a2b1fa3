"""seqpar from Python: submit transformer jobs over long sequences, follow them, and read their results.

    import seqpar

    with seqpar.Client("127.0.0.1:7700") as client:
        job = client.submit("job.yaml")
        job = client.wait(job)
        arrays = client.results(job)
"""
from seqpar._convert import parse_job
from seqpar._version import __version__
from seqpar.client import Client
from seqpar.errors import (AlreadyExistsError, DeadlineError, DeniedError, ExhaustedError, InfeasibleError, InvalidError,
                           JobCancelledError, JobFailedError, NotFoundError, SeqparError, UnavailableError, Violation)
from seqpar.job import Devices, Input, Job, Mask, ModelConfig, Output, Parallelism, TensorSource, Verify, Workers
from seqpar.results import Results, ResultsError, widen_bfloat16
from seqpar.security import Tls
from seqpar.types import Attempt, Candidate, JobInfo, JobState, Mesh, Node, NodeState, Plan, Rejected

__all__ = [
    "AlreadyExistsError", "Attempt", "Candidate", "Client", "DeadlineError", "DeniedError", "Devices", "ExhaustedError",
    "InfeasibleError", "Input", "InvalidError", "Job", "JobCancelledError", "JobFailedError", "JobInfo", "JobState", "Mask", "Mesh", "ModelConfig",
    "Node", "NodeState", "NotFoundError", "Output", "Parallelism", "Plan", "Rejected", "Results", "ResultsError",
    "SeqparError", "TensorSource", "Tls", "UnavailableError", "Verify", "Violation", "Workers", "__version__", "parse_job",
    "widen_bfloat16",
]
