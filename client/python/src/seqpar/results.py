"""A job's output as numpy arrays: safetensors files, read through a memory map."""
from __future__ import annotations

import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any, Dict, Iterator, List, Tuple, Union

import numpy as np

_HEADER_BYTES_MAX = 100 << 20  # as the format's own reader allows
_TYPES = {"BOOL": np.dtype("?"), "U8": np.dtype("u1"), "I8": np.dtype("i1"), "U16": np.dtype("<u2"),
          "I16": np.dtype("<i2"), "U32": np.dtype("<u4"), "I32": np.dtype("<i4"), "U64": np.dtype("<u8"),
          "I64": np.dtype("<i8"), "F16": np.dtype("<f2"), "F32": np.dtype("<f4"), "F64": np.dtype("<f8"),
          "BF16": np.dtype("<u2")}  # numpy has no bfloat16: its bits


class ResultsError(ValueError):
    """The file is no safetensors file, or not a whole one."""


def widen_bfloat16(bits: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """float32 of the same values, exactly; `bits` are uint16. A copy."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


class Results(Mapping[str, Any]):
    """Name -> array. Nothing is read before it is asked for.

    Arrays are read-only views of the file's memory map, but for bfloat16, which becomes float32 by a copy: `raw` gives its
    bits, of which a slice can be widened alone (`widen_bfloat16`).
    """

    def __init__(self, path: Union[str, "os.PathLike[str]"]) -> None:
        """OSError where the file cannot be read, ResultsError where it is not what it should be."""
        self.path = pathlib.Path(path)
        size = self.path.stat().st_size
        with open(self.path, "rb") as file:
            head = file.read(8)
            length = int.from_bytes(head, "little")
            if len(head) < 8 or length > min(_HEADER_BYTES_MAX, size - 8):
                raise ResultsError(f"{self.path} is no safetensors file")
            try:
                header = json.loads(file.read(length))
            except ValueError:
                raise ResultsError(f"{self.path} has a header that is not JSON") from None
        if not isinstance(header, dict):
            raise ResultsError(f"{self.path} has a header that is not a JSON object")
        self.metadata: Dict[str, str] = dict(header.pop("__metadata__", {}))
        self._begin = 8 + length
        self._entries = {name: self._entry(name, info, size) for name, info in header.items()}

    def _entry(self, name: str, info: Any, size: int) -> Tuple[str, List[int], int]:
        try:
            dtype, shape, (begin, end) = str(info["dtype"]), [int(d) for d in info["shape"]], info["data_offsets"]
            bytes_wanted = math.prod(shape) * _TYPES[dtype].itemsize
        except (KeyError, TypeError, ValueError):
            raise ResultsError(f"{self.path}: tensor {name} is described in a way that is not understood") from None
        if not 0 <= begin <= end <= size - self._begin or end - begin != bytes_wanted or min(shape, default=0) < 0:
            raise ResultsError(f"{self.path}: tensor {name} does not lie in the file")
        return dtype, shape, self._begin + begin

    def raw(self, name: str) -> "np.ndarray[Any, Any]":
        """As stored; uint16 bits for bfloat16."""
        dtype, shape, begin = self._entries[name]
        if math.prod(shape) == 0:
            return np.zeros(shape, _TYPES[dtype])
        return np.memmap(self.path, _TYPES[dtype], "r", begin, tuple(shape))

    def dtype(self, name: str) -> str:
        """As the file says: "F32", "BF16", ..."""
        return self._entries[name][0]

    def shape(self, name: str) -> Tuple[int, ...]:
        return tuple(self._entries[name][1])

    def __getitem__(self, name: str) -> "np.ndarray[Any, Any]":
        values = self.raw(name)
        return widen_bfloat16(values) if self.dtype(name) == "BF16" else values

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        tensors = ", ".join(f"{name} {self.dtype(name)}{list(self.shape(name))}" for name in self)
        return f"<Results {self.path}: {tensors}>"
