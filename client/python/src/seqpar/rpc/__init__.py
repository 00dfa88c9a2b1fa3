"""The messages of google.rpc's error model that the service's errors carry."""
from seqpar.rpc.error_details_pb2 import *  # noqa: F401,F403
