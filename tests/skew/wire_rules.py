#!/usr/bin/env python3
"""Holds a wire contract against that of the last release: what old and new processes say to each other must mean the same.

usage: wire_rules.py RELEASED.binpb ROOT

RELEASED is the release's FileDescriptorSet (tests/skew/release/descriptors.binpb), ROOT the tree whose .proto files are
judged. Prints every violation; exit code 1 where there is one.

example: tests/skew/wire_rules.py tests/skew/release/descriptors.binpb .

The rules, each by the name that a violation begins with:
  file         a .proto file of the release is there, with its package and syntax
  message      a message is there, under its full name
  enum         an enum is there, under its full name
  service      a service is there
  field        a field's number has the same name, type (of messages and enums: the same one), label (repeated or not),
               presence (optional or not) and oneof
  value        an enum value's number has the same name
  removed      a field or enum value that is gone has its number and its name reserved
  reserved     what was reserved still is
  method       a method is there, with the same request, answer and streaming
"""
import pathlib
import subprocess
import sys
import tempfile

from google.protobuf import descriptor_pb2

# What is on the wire or on disk: clients, workers and executors, and the records of the job store.
FILES = ["google/rpc/error_details.proto", "seqpar/v1/job.proto", "seqpar/v1/report.proto", "seqpar/v1/trace.proto",
         "seqpar/v1/plan.proto", "seqpar/v1/service.proto", "seqpar/v1/fleet.proto", "seqpar/v1/executor.proto",
         "coordinator/store/stored.proto"]

Field = descriptor_pb2.FieldDescriptorProto


def descriptors_of(root: pathlib.Path) -> descriptor_pb2.FileDescriptorSet:
    """Of the tree's own .proto files, by Debian's protoc, without what they import of protobuf itself."""
    with tempfile.NamedTemporaryFile(suffix=".binpb") as out:
        subprocess.run(["protoc", f"-I{root / 'proto'}", f"-I{root}", f"--descriptor_set_out={out.name}", *FILES],
                       check=True)
        return descriptor_pb2.FileDescriptorSet.FromString(pathlib.Path(out.name).read_bytes())


def violations(released: descriptor_pb2.FileDescriptorSet, now: descriptor_pb2.FileDescriptorSet) -> list:
    """["field seqpar.v1.Job.name = 1: ...", ...] of `now` against `released`."""
    found = []
    files = {file.name: file for file in now.file}
    for old in released.file:
        new = files.get(old.name)
        if new is None:
            found.append(f"file {old.name}: is gone")
            continue
        if (old.package, old.syntax) != (new.package, new.syntax):
            found.append(f"file {old.name}: was package {old.package} in {old.syntax}, is {new.package} in {new.syntax}")
        package = old.package + "."
        _messages(package, old.message_type, new.message_type, found)
        _enums(package, old.enum_type, new.enum_type, found)
        _services(package, old.service, new.service, found)
    return found


def _by_name(descriptors):
    return {d.name: d for d in descriptors}


def _messages(prefix, released, now, found):
    names = _by_name(now)
    for old in released:
        path, new = prefix + old.name, names.get(old.name)
        if new is None:
            found.append(f"message {path}: is gone")
            continue
        _fields(path, old, new, found)
        _reserved(path, old, new, 0, found)
        _messages(path + ".", old.nested_type, new.nested_type, found)
        _enums(path + ".", old.enum_type, new.enum_type, found)


def _shape(message, field):
    """What two sides must agree on, in words."""
    kind = Field.Type.Name(field.type)[len("TYPE_"):].lower()
    oneof = ""
    if field.proto3_optional:
        oneof = "optional "
    elif field.HasField("oneof_index"):
        oneof = f"in oneof {message.oneof_decl[field.oneof_index].name}: "
    label = "repeated " if field.label == Field.LABEL_REPEATED else ""
    return f"{oneof}{label}{kind}{' ' + field.type_name if field.type_name else ''} {field.name}"


def _fields(path, old, new, found):
    numbers = {field.number: field for field in new.field}
    for field in old.field:
        here = numbers.get(field.number)
        if here is not None:
            was, now = _shape(old, field), _shape(new, here)
            if was != now:
                found.append(f"field {path}.{field.name} = {field.number}: was {was!r}, is {now!r}")
        elif not _reserves(new, field.number, field.number + 1) or field.name not in new.reserved_name:
            found.append(f"removed {path}.{field.name} = {field.number}: "
                         f"reserve both, the number {field.number} and the name \"{field.name}\"")


def _reserves(message, begin, end):
    """Whether every number of [begin, end) is reserved."""
    at = begin
    for low, high in sorted((r.start, r.end) for r in message.reserved_range):
        if low <= at < high:
            at = high
    return at >= end


def _reserved(path, old, new, inclusive, found):
    """`inclusive`: 1 for enums, whose ranges include their end in descriptors."""
    spread = type(new)()
    for r in new.reserved_range:
        spread.reserved_range.add(start=r.start, end=r.end + inclusive)
    for r in old.reserved_range:
        if not _reserves(spread, r.start, r.end + inclusive):
            found.append(f"reserved {path}: numbers {r.start} to {r.end + inclusive - 1} are no longer reserved")
    for name in old.reserved_name:
        if name not in new.reserved_name:
            found.append(f"reserved {path}: the name \"{name}\" is no longer reserved")


def _enums(prefix, released, now, found):
    names = _by_name(now)
    for old in released:
        path, new = prefix + old.name, names.get(old.name)
        if new is None:
            found.append(f"enum {path}: is gone")
            continue
        numbers = {value.number: value.name for value in new.value}
        for value in old.value:
            here = numbers.get(value.number)
            reserved = any(r.start <= value.number <= r.end for r in new.reserved_range)
            if here is not None and here != value.name:
                found.append(f"value {path}.{value.name} = {value.number}: is {here} now")
            elif here is None and not (reserved and value.name in new.reserved_name):
                found.append(f"removed {path}.{value.name} = {value.number}: "
                             f"reserve both, the number {value.number} and the name \"{value.name}\"")
        _reserved(path, old, new, 1, found)


def _services(prefix, released, now, found):
    names = _by_name(now)
    for old in released:
        path, new = prefix + old.name, names.get(old.name)
        if new is None:
            found.append(f"service {path}: is gone")
            continue
        methods = _by_name(new.method)
        for method in old.method:
            here = methods.get(method.name)
            if here is None:
                found.append(f"method {path}.{method.name}: is gone")
            elif _call(method) != _call(here):
                found.append(f"method {path}.{method.name}: was {_call(method)}, is {_call(here)}")


def _call(method):
    def side(streams, kind):
        return ("stream " if streams else "") + kind
    return f"({side(method.client_streaming, method.input_type)}) -> {side(method.server_streaming, method.output_type)}"


def main() -> int:
    if len(sys.argv) != 3 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        return 0 if sys.argv[1:2] in (["-h"], ["--help"]) else 2
    released = descriptor_pb2.FileDescriptorSet.FromString(pathlib.Path(sys.argv[1]).read_bytes())
    found = violations(released, descriptors_of(pathlib.Path(sys.argv[2])))
    for violation in found:
        print(violation)
    print(f"{len(released.file)} files of the release, {len(found)} violations")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
