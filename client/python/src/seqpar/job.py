"""What a client submits, as typed values: the job file's fields under the job file's names.

A field that is None is left out, and then means what the job file says (proto/seqpar/v1/job.proto). Sizes are counts,
`deadline` is in seconds. What is wrong with a job the service says, all of it at once.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import List, Literal, Mapping, Optional, Union

Workload = Literal["layers"]
DataType = Literal["float32", "bfloat16"]
Pass = Literal["forward", "forward_backward"]
Norm = Literal["none", "layernorm", "rmsnorm"]
Mlp = Literal["none", "gelu", "gelu_tanh", "swiglu"]
MaskKind = Literal["full", "causal", "window"]
Strategy = Literal["auto", "megatron_sp", "ulysses", "ring", "gather", "hybrid"]
Core = Literal["ring", "gather"]
Layout = Literal["auto", "contiguous", "zigzag", "striped"]
Recompute = Literal["none", "mlp", "attention", "layer", "auto"]
DeviceKind = Literal["auto", "cpu", "cuda"]


@dataclass(kw_only=True)
class ModelConfig:
    """The layers, named as in Hugging Face's config.json."""

    hidden_size: int
    num_attention_heads: int
    num_hidden_layers: int
    num_key_value_heads: Optional[int] = None
    head_dim: Optional[int] = None
    intermediate_size: Optional[int] = None
    norm: Optional[Norm] = None
    norm_eps: Optional[float] = None
    mlp: Optional[Mlp] = None
    rope_theta: Optional[float] = None
    qkv_bias: Optional[bool] = None
    attention_out_bias: Optional[bool] = None
    mlp_bias: Optional[bool] = None


@dataclass(kw_only=True)
class Mask:
    """Who sees whom. window: a query at p sees p - left to p + right, both included; documents: lengths, nothing is seen
    across them."""

    kind: Optional[MaskKind] = None
    left: Optional[int] = None
    right: Optional[int] = None
    documents: Optional[List[int]] = None


@dataclass(kw_only=True)
class TensorSource:
    """Either a file under a data root of the service or a seed."""

    file: Optional[str] = None
    seed: Optional[int] = None


@dataclass(kw_only=True)
class Input:
    """hidden_states [batch, tokens, hidden_size]: a file under a data root, or a seed and `tokens`."""

    file: Optional[str] = None
    seed: Optional[int] = None
    batch: Optional[int] = None
    tokens: Optional[int] = None


@dataclass(kw_only=True)
class Output:
    """The safetensors file that the job writes, under a data root of the service."""

    file: str
    tensors: Optional[List[str]] = None
    overwrite: Optional[bool] = None


@dataclass(kw_only=True)
class Parallelism:
    """How to split the work; left out, the planner decides."""

    strategy: Optional[Strategy] = None
    tensor: Optional[int] = None
    ulysses: Optional[int] = None
    ring: Optional[int] = None
    inner: Optional[int] = None
    core: Optional[Core] = None
    layout: Optional[Layout] = None


@dataclass(kw_only=True)
class Workers:
    """How many ranks."""

    min: Optional[int] = None
    max: Optional[int] = None


@dataclass(kw_only=True)
class Devices:
    """Which devices: of one kind, on nodes that have these labels."""

    kind: Optional[DeviceKind] = None
    selector: Optional[Mapping[str, str]] = None


@dataclass(kw_only=True)
class Verify:
    """Sampled rows of each layer that are recomputed in float64; a job above the bound fails."""

    rows: int
    max_error: Optional[float] = None


@dataclass(kw_only=True)
class Job:
    """One run of a stack of transformer layers over one long sequence."""

    config: ModelConfig
    input: Input
    name: Optional[str] = None
    workload: Optional[Workload] = None
    dtype: Optional[DataType] = None
    mask: Optional[Mask] = None
    # `pass` in a job file, which Python keeps for itself.
    pass_: Optional[Pass] = None
    weights: Optional[TensorSource] = None
    grad_output: Optional[TensorSource] = None
    output: Optional[Output] = None
    parallelism: Optional[Union[Parallelism, Strategy]] = None
    workers: Optional[Workers] = None
    verify: Optional[Verify] = None
    labels: Optional[Mapping[str, str]] = None
    priority: Optional[int] = None
    deadline: Optional[float] = None
    max_attempts: Optional[int] = None
    recompute: Optional[Recompute] = None
    devices: Optional[Union[Devices, DeviceKind]] = None
    deterministic: Optional[bool] = None
