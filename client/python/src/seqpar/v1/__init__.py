"""The messages of the wire contract (proto/seqpar/v1), for those who want more than the client's own types say."""
from seqpar.v1.job_pb2 import *  # noqa: F401,F403
from seqpar.v1.plan_pb2 import *  # noqa: F401,F403
from seqpar.v1.report_pb2 import *  # noqa: F401,F403
from seqpar.v1.service_pb2 import *  # noqa: F401,F403
from seqpar.v1.trace_pb2 import *  # noqa: F401,F403
