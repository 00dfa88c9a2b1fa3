"""Jobs and clusters, in whichever form, as messages: field names as in the .proto, everything unknown or of the wrong kind
refused, all of it in one answer. The rules are those of `seqpar submit -f`."""
from __future__ import annotations

import math
import os
import pathlib
import re
from typing import Any, List, Mapping, Optional, Tuple, Union

from google.protobuf.descriptor import FieldDescriptor

from seqpar import _nodes
from seqpar._nodes import Node, describe
from seqpar.errors import Violation, invalid
from seqpar.job import Job
from seqpar.v1.job_pb2 import Job as JobMessage
from seqpar.v1.plan_pb2 import Cluster as ClusterMessage
from seqpar.words import nearest, short_name, short_names

JobLike = Union[Job, JobMessage, Mapping[str, Any], str, "os.PathLike[str]"]
ClusterLike = Union[ClusterMessage, Mapping[str, Any], str, "os.PathLike[str]"]

FIRST_OUTPUT_ONLY_FIELD = 100  # of Job: set by the service
_SHORTHAND = {"seqpar.v1.Parallelism": "strategy",  # `parallelism: ring` is {strategy: ring}
              "seqpar.v1.Devices": "kind"}
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_WHOLE = re.compile(r"[+-]?\d+")
_INTEGERS = {FieldDescriptor.CPPTYPE_INT32: (-2 ** 31, 2 ** 31 - 1), FieldDescriptor.CPPTYPE_INT64: (-2 ** 63, 2 ** 63 - 1),
             FieldDescriptor.CPPTYPE_UINT32: (0, 2 ** 32 - 1), FieldDescriptor.CPPTYPE_UINT64: (0, 2 ** 64 - 1)}
_EXACT_MAX = 2.0 ** 53  # whole numbers up to here may also be written as 8e9 or 8.0


def job_message(job: JobLike) -> JobMessage:
    """A string or path names a YAML file. InvalidError with every violation; OSError where the file cannot be read."""
    return _whole(*read_job(job))


def read_job(job: JobLike) -> Tuple[JobMessage, List[Violation]]:
    """What can be read of it, and what is wrong with the rest, which is left out."""
    return _message(job, JobMessage, FIRST_OUTPUT_ONLY_FIELD)


def cluster_message(cluster: ClusterLike) -> ClusterMessage:
    return _whole(*_message(cluster, ClusterMessage, 0))


def parse_job(text: str) -> JobMessage:
    """The job in YAML text. InvalidError with every violation, each with its line."""
    return _whole(*_walk(_nodes.from_yaml(text), JobMessage, FIRST_OUTPUT_ONLY_FIELD))


def _whole(message: Any, violations: List[Violation]) -> Any:
    if violations:
        raise invalid(violations)
    return message


def _message(given: Any, cls: Any, first_output_only: int) -> Tuple[Any, List[Violation]]:
    if isinstance(given, cls):
        return given, []
    if isinstance(given, (str, os.PathLike)):
        return _walk(_nodes.from_yaml(pathlib.Path(given).read_text(encoding="utf-8")), cls, first_output_only)
    return _walk(_nodes.from_value(given), cls, first_output_only)


def _walk(node: Node, cls: Any, first_output_only: int) -> Tuple[Any, List[Violation]]:
    message = cls()
    walker = _Walker(first_output_only)
    walker.read_message(node, "", message)
    return message, walker.violations


class _Refused(Exception):
    def __init__(self, description: str, nearest: Any = "") -> None:
        self.violation = (description, str(nearest))


class _Walker:
    def __init__(self, first_output_only: int) -> None:
        self._first_output_only = first_output_only
        self.violations: List[Violation] = []

    def read_message(self, node: Node, path: str, message: Any) -> None:
        descriptor = message.DESCRIPTOR
        shorthand = _SHORTHAND.get(descriptor.full_name)
        if isinstance(node, _nodes.Scalar) and shorthand:
            self._read_field(node, _join(path, shorthand), descriptor.fields_by_name[shorthand], message)
            return
        if not isinstance(node, _nodes.Mapping):
            self._add(node, path, f"must be a mapping, is {describe(node)}")
            return
        seen = set()
        for key, value in node.entries:
            name = key.text if isinstance(key, _nodes.Scalar) else ""
            at = _join(path, name)
            field = self._find(key, name, path, descriptor)
            if field is None:
                continue
            peer = _oneof_peer(message, field)
            if name in seen:
                self._add(key, at, "is given twice")
            elif peer is not None:
                self._add(key, at, f"cannot be given together with {_join(path, peer)}")
            else:
                self._read_field(value, at, field, message)
            seen.add(name)

    def _read_field(self, node: Node, path: str, field: Any, message: Any) -> None:
        if isinstance(node, _nodes.Null):
            self._add(node, path, "has no value: leave it out, or give one")
        elif _is_map(field):
            self._read_map(node, path, field, message)
        elif not _is_repeated(field):
            self._read_value(node, path, field, message)
        elif not isinstance(node, _nodes.Sequence):
            self._add(node, path, f"must be a list, is {describe(node)}")
        else:
            for i, item in enumerate(node.items):
                self._read_value(item, f"{path}[{i}]", field, message)

    def _read_map(self, node: Node, path: str, field: Any, message: Any) -> None:
        """Maps of the contract are from text to text."""
        if not isinstance(node, _nodes.Mapping):
            self._add(node, path, f"must be a mapping, is {describe(node)}")
            return
        to = getattr(message, field.name)
        for key, value in node.entries:
            if not isinstance(key, _nodes.Scalar):
                self._add(key, path, f"must have words as keys, not {describe(key)}")
            elif key.text in to:
                self._add(key, _join(path, key.text), "is given twice")
            elif isinstance(value, _nodes.Null):
                self._add(value, _join(path, key.text), "has no value: leave it out, or give one")
            elif not isinstance(value, _nodes.Scalar):
                self._add(value, _join(path, key.text), f"must be text, is {describe(value)}")
            else:
                to[key.text] = value.text

    def _read_value(self, node: Node, path: str, field: Any, message: Any) -> None:
        if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            to = getattr(message, field.name)
            if _is_repeated(field):
                to = to.add()
            else:
                to.SetInParent()
            self.read_message(node, path, to)
            return
        try:
            value = _scalar(node, field)
        except _Refused as refused:
            self._add(node, path, *refused.violation)
            return
        if _is_repeated(field):
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)

    def _find(self, node: Node, name: str, path: str, descriptor: Any) -> Optional[Any]:
        field = descriptor.fields_by_name.get(name)
        if field is None:
            self._add(node, _join(path, name), "unknown field", self._nearest_field(name, path, descriptor))
        elif not path and self._is_output_only(field):
            self._add(node, name, "is set by the service, not by whoever submits")
            return None
        return field

    def _is_output_only(self, field: Any) -> bool:
        return 0 < self._first_output_only <= field.number

    def _nearest_field(self, name: str, path: str, descriptor: Any) -> str:
        """The whole path where a sub-message has exactly this field; else the shortest name that contains the word
        ("layers" is num_hidden_layers); else the nearest by spelling."""
        fields = [f for f in descriptor.fields if path or not self._is_output_only(f)]
        for field in fields:
            inner = field.message_type
            if inner is not None and not _is_map(field) and name in inner.fields_by_name:
                return f"{field.name}.{name}"
        names = [f.name for f in fields]
        longer = [n for n in names if len(name) >= 3 and name in n]
        return min(longer, key=len) if longer else nearest(name, names)

    def _add(self, node: Node, path: str, what: str, near: str = "") -> None:
        self.violations.append(Violation(path, what + node.where, near))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _is_repeated(field: Any) -> bool:
    repeated = getattr(field, "is_repeated", None)  # protobuf before 6.31 has only the label
    return field.label == field.LABEL_REPEATED if repeated is None else repeated


def _is_map(field: Any) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _oneof_peer(message: Any, field: Any) -> Optional[str]:
    """Another member of the field's oneof that the message already has."""
    oneof = field.containing_oneof
    if oneof is None or len(oneof.fields) == 1:  # one member: what `optional` is made of
        return None
    has = message.WhichOneof(oneof.name)
    return has if has != field.name else None


def _scalar(node: Node, field: Any) -> Any:
    kind = field.cpp_type
    if kind in _INTEGERS:
        return _integer(node, *_INTEGERS[kind])
    if kind == FieldDescriptor.CPPTYPE_DOUBLE:
        number = _number(node)
        if number is None:
            raise _Refused(f"must be a number, is {describe(node)}")
        return number
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return _bool(node)
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return _enum(node, field.enum_type)
    if kind == FieldDescriptor.CPPTYPE_STRING:
        if not isinstance(node, _nodes.Scalar):
            raise _Refused(f"must be text, is {describe(node)}")
        return node.text
    raise _Refused("is of a kind which files cannot hold")


def _number(node: Node) -> Optional[float]:
    if not isinstance(node, _nodes.Scalar) or node.quoted or not _NUMBER.fullmatch(node.text):
        return None
    number = float(node.text)
    return number if math.isfinite(number) else None


def _integer(node: Node, least: int, most: int) -> int:
    number = _number(node)
    if number is None:
        raise _Refused(f"must be a whole number, is {describe(node)}")
    text = node.text  # type: ignore[union-attr]  # _number found a scalar
    value = int(text) if _WHOLE.fullmatch(text) else None
    if (number if value is None else value) < least:
        raise _Refused(f"must be at least {least}, is {text}", least)
    if (number if value is None else value) > most:
        raise _Refused(f"must be at most {most}, is {text}", most)
    if value is None:
        if not number.is_integer() or abs(number) > _EXACT_MAX:
            raise _Refused(f"must be a whole number, is {text}", int(math.copysign(math.floor(abs(number) + 0.5), number)))
        value = int(number)
    return value


def _bool(node: Node) -> bool:
    text = node.text if isinstance(node, _nodes.Scalar) and not node.quoted else ""
    if text in ("true", "false"):
        return text == "true"
    near = {"yes": "true", "on": "true", "1": "true", "True": "true",
            "no": "false", "off": "false", "0": "false", "False": "false"}
    raise _Refused(f"must be true or false, is {describe(node)}", near.get(text, ""))


def _enum(node: Node, enum: Any) -> int:
    """Short names as people write them; the full names too, which is what the service's JSON has."""
    names = short_names(enum)
    text = node.text if isinstance(node, _nodes.Scalar) else ""
    for value in enum.values[1:]:
        if text in (short_name(value), value.name) and text:
            return int(value.number)
    raise _Refused(f"must be one of {', '.join(names)}, is {describe(node)}", nearest(text, names) if text else "")
