"""Enum values as the words of job files, and the nearest of several words."""
from __future__ import annotations

from typing import Any, Iterable, List

_UNSPECIFIED = "UNSPECIFIED"


def short_name(value: Any) -> str:
    """JOB_STATE_RUNNING -> "running"."""
    zero = value.type.values[0].name
    prefix = zero[:-len(_UNSPECIFIED)] if zero.endswith(_UNSPECIFIED) else ""
    return value.name[len(prefix):].lower() if value.name.startswith(prefix) else value.name.lower()


def short_names(enum: Any) -> List[str]:
    """Of every value but the unspecified one."""
    return [short_name(v) for v in enum.values if not v.name.endswith(_UNSPECIFIED)]


def word(message: Any, field: str) -> str:
    """The short name of an enum field's value; "" where it is unspecified or newer than this package."""
    number = getattr(message, field)
    value = message.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number.get(number)
    return "" if value is None or value.name.endswith(_UNSPECIFIED) else short_name(value)


def nearest(wanted: str, names: Iterable[str]) -> str:
    """The name with the smallest edit distance; "" where there are none."""
    return min(names, key=lambda name: _distance(wanted, name), default="")


def _distance(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]
