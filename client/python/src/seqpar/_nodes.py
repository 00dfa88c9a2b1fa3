"""A job's text or values as a tree of nodes, whichever it came as: YAML, dicts and lists, or the dataclasses of job.py."""
from __future__ import annotations

import dataclasses
import numbers
from typing import Any, List, Tuple, Union

import yaml

from seqpar.errors import Violation, invalid


@dataclasses.dataclass(frozen=True)
class Scalar:
    text: str
    quoted: bool  # text, never a number
    where: str  # " (line 3)"; "" where the value came from Python


@dataclasses.dataclass(frozen=True)
class Sequence:
    items: List["Node"]
    where: str


@dataclasses.dataclass(frozen=True)
class Mapping:
    entries: List[Tuple["Node", "Node"]]
    where: str


@dataclasses.dataclass(frozen=True)
class Null:
    where: str


Node = Union[Scalar, Sequence, Mapping, Null]


def describe(node: Node) -> str:
    if isinstance(node, Sequence):
        return "a list"
    if isinstance(node, Mapping):
        return "a mapping"
    if isinstance(node, Null):
        return "nothing"
    return f"the text '{node.text}'" if node.quoted else f"'{node.text}'"


def from_yaml(text: str) -> Node:
    """The one document in `text`. InvalidError where it is no YAML, or not one document."""
    try:
        documents = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
        nodes = [_from_yaml_node(d) for d in documents if d is not None]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark is not None else ""
        raise invalid([Violation("", f"is not YAML: {getattr(error, 'problem', None) or error}{where}")]) from None
    except RecursionError:
        raise invalid([Violation("", "is nested too deeply")]) from None
    if len(nodes) != 1 or isinstance(nodes[0], Null):
        count = "0" if not nodes or isinstance(nodes[0], Null) else "2 or more"
        raise invalid([Violation("", f"must hold one YAML document, holds {count}")])
    return nodes[0]


def _from_yaml_node(node: Any) -> Node:
    where = f" (line {node.start_mark.line + 1})"
    if isinstance(node, yaml.SequenceNode):
        return Sequence([_from_yaml_node(item) for item in node.value], where)
    if isinstance(node, yaml.MappingNode):
        return Mapping([(_from_yaml_node(k), _from_yaml_node(v)) for k, v in node.value], where)
    if node.style is None and node.value in ("", "~", "null", "Null", "NULL"):
        return Null(where)
    return Scalar(node.value, node.style is not None, where)


def from_value(value: Any) -> Node:
    """From Python's own values. A None in a mapping or a dataclass is left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name.rstrip("_"): getattr(value, f.name) for f in dataclasses.fields(value)}
    if value is None:
        return Null("")
    if hasattr(value, "items"):
        return Mapping([(from_value(k), from_value(v)) for k, v in value.items() if v is not None], "")
    if isinstance(value, str):
        return Scalar(value, True, "")
    if isinstance(value, (bool,)) or type(value).__name__ in ("bool_", "bool"):
        return Scalar("true" if value else "false", False, "")
    if isinstance(value, numbers.Integral):
        return Scalar(str(int(value)), False, "")
    if isinstance(value, numbers.Real):
        return Scalar(repr(float(value)), False, "")
    if isinstance(value, (list, tuple)) or hasattr(value, "tolist"):
        return Sequence([from_value(item) for item in value], "")
    raise TypeError(f"a job cannot hold a {type(value).__name__}")
