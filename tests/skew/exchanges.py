"""What processes of a release said to each other, as files that people can read.

A file of tests/skew/release/exchanges is a list of messages, each with what it means and with the bytes that the release
sent:

    # what this is
    message seqpar.v1.GetJobRequest
      id: "j-1"
    bytes
      0a036a2d31

The text is protobuf's text format, the bytes are hexadecimal. tests/skew/exchanges_test.cc reads the same format.
"""
import pathlib
import textwrap

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

Field = descriptor_pb2.FieldDescriptorProto


def pool_of(descriptors: descriptor_pb2.FileDescriptorSet) -> descriptor_pool.DescriptorPool:
    """A pool of its own, with what the files import of protobuf itself."""
    from google.protobuf import any_pb2, duration_pb2, timestamp_pb2
    pool = descriptor_pool.DescriptorPool()
    for module in (any_pb2, duration_pb2, timestamp_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    for file in descriptors.file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


def class_of(pool, name):
    descriptor = pool.FindMessageTypeByName(name)
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    return message_factory.MessageFactory(pool).GetPrototype(descriptor)


def read(path: pathlib.Path):
    """[(comment lines, message name, text)] of a file."""
    records, comment, name, text, in_text = [], [], None, [], False

    def end():
        if name is not None:
            records.append((comment, name, "\n".join(text)))
    for line in path.read_text().splitlines():
        if line.startswith("#") or not line.strip():
            if name is not None and not in_text:
                end()
                comment, name, text = [], None, []
            if line.startswith("#"):
                comment = comment + [line]
        elif line.startswith("message "):
            if name is not None:
                end()
                comment = []
            name, text, in_text = line.split()[1], [], True
        elif line.strip() == "bytes" and not line.startswith(" "):
            in_text = False
        elif in_text:
            text.append(line)
    end()
    return records


def write(path: pathlib.Path, pool, records):
    """Writes [(comment lines, message name, text or message)], with the bytes by `pool`."""
    out = []
    for comment, name, value in records:
        message = value
        if isinstance(value, str):
            message = text_format.Parse(value, class_of(pool, name)(), descriptor_pool=pool)
            text = textwrap.dedent(value)
        else:
            text = text_format.MessageToString(message, use_short_repeated_primitives=True, descriptor_pool=pool)
        hexadecimal = message.SerializeToString(deterministic=True).hex()
        out += [*comment, f"message {name}", textwrap.indent(text.rstrip("\n"), "  "), "bytes",
                *(f"  {hexadecimal[i:i + 116]}" for i in range(0, len(hexadecimal), 116)), ""]
    path.write_text("\n".join(out))


class Filler:
    """Makes messages in which, together, every field is set. A type that was whole once is short from then on."""

    def __init__(self, pool):
        self.pool = pool
        self.set = set()  # full names of fields
        self.values = [0]

    def messages(self, name):
        """One for each choice of the type's own oneof."""
        descriptor = self.pool.FindMessageTypeByName(name)
        choices = max((len(o.fields) for o in descriptor.oneofs), default=1)
        return [self._fill(descriptor, choice) for choice in range(choices)]

    def _fill(self, descriptor, choice=None):
        message = class_of(self.pool, descriptor.full_name)()
        whole = all(field.full_name in self.set for field in descriptor.fields)
        for field in descriptor.fields:
            oneof = field.containing_oneof
            if oneof is not None and len(oneof.fields) > 1:
                unset = [f for f in oneof.fields if f.full_name not in self.set] or oneof.fields
                if field is not (unset[0] if choice is None else oneof.fields[choice]):
                    continue
            elif whole and field.number > 1:
                continue
            self._set(message, field)
            self.set.add(field.full_name)
        return message

    def _set(self, message, field):
        if field.message_type is None:
            if field.label == Field.LABEL_REPEATED:
                getattr(message, field.name).extend(_scalar(field, self.values) for _ in range(2))
            else:
                setattr(message, field.name, _scalar(field, self.values))
        elif field.message_type.GetOptions().map_entry:
            entry = field.message_type.fields_by_name
            key = _scalar(entry["key"], self.values)
            if entry["value"].message_type is not None:
                getattr(message, field.name)[key].CopyFrom(self._fill(entry["value"].message_type))
            else:
                getattr(message, field.name)[key] = _scalar(entry["value"], self.values)
            self.set.update(f.full_name for f in field.message_type.fields)
        elif field.message_type.full_name == "google.protobuf.Any":
            detail = class_of(self.pool, "google.rpc.ErrorInfo")(reason="RANK_FAILED", domain="seqpar")
            getattr(message, field.name).add(type_url="type.googleapis.com/google.rpc.ErrorInfo",
                                             value=detail.SerializeToString())
        elif field.label == Field.LABEL_REPEATED:
            getattr(message, field.name).add().CopyFrom(self._fill(field.message_type))
        else:
            getattr(message, field.name).CopyFrom(self._fill(field.message_type))


def _scalar(field, counter):
    """A value that is not the default, and other than those before it."""
    counter[0] += 1
    n = counter[0]
    if field.enum_type is not None:
        return field.enum_type.values[1 + n % (len(field.enum_type.values) - 1)].number
    if field.type in (Field.TYPE_DOUBLE, Field.TYPE_FLOAT):
        return n + 0.5
    if field.type == Field.TYPE_BOOL:
        return True
    if field.type == Field.TYPE_STRING:
        return f"{field.name}-{n}"
    if field.type == Field.TYPE_BYTES:
        return bytes([n % 256, 0, 255])
    # Some need more bytes than a 32-bit number has, and some are negative.
    if field.type == Field.TYPE_INT64 and n % 3 == 0:
        return -n - (1 << 40)
    return n
