"""Message classes from the descriptors that the build made of the .proto files.

They live in a pool of their own: nothing here meets what other packages of the process register under the same names
(googleapis-common-protos has google/rpc/error_details.proto too). Works with every protobuf from 4.21 (that is 3.21) on, whichever protoc
made the descriptors.
"""
from __future__ import annotations

import importlib.resources
from typing import Any, Dict, Iterator

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


def _load() -> descriptor_pool.DescriptorPool:
    try:
        raw = importlib.resources.files("seqpar").joinpath("descriptors.pb").read_bytes()
    except FileNotFoundError:
        raise ImportError("seqpar was not built: run `pip install ./client/python` from the tree, or `pip install -e`")
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(raw).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


POOL = _load()

if hasattr(message_factory, "GetMessageClass"):
    _class_of = message_factory.GetMessageClass
else:  # protobuf before 4.22
    _class_of = getattr(message_factory.MessageFactory(POOL), "GetPrototype")


def message_class(full_name: str) -> Any:
    """The class of a message; the same one at each call."""
    return _class_of(POOL.FindMessageTypeByName(full_name))


def method_paths(service: str) -> Iterator[Any]:
    """(name, path, request class, response class, whether the server streams) of each method."""
    for method in POOL.FindServiceByName(service).methods:
        proto = descriptor_pb2.MethodDescriptorProto()
        method.CopyToProto(proto)
        yield (method.name, f"/{service}/{method.name}", _class_of(method.input_type), _class_of(method.output_type),
               proto.server_streaming)


def publish(file: str, module: Dict[str, Any]) -> None:
    """Puts a file's messages, enums and enum values into a module's namespace, as protoc's own modules have them."""
    descriptor = POOL.FindFileByName(file)
    names: Dict[str, Any] = {}
    for name, message in descriptor.message_types_by_name.items():
        names[name] = _class_of(message)
        _say_where(names[name], message, name, module["__name__"])
    for name, enum in descriptor.enum_types_by_name.items():
        names[name] = _enum_wrapper(enum)
        names.update({value.name: value.number for value in enum.values})
    module.update(names, DESCRIPTOR=descriptor, __all__=sorted(names))


def _say_where(cls: Any, descriptor: Any, qualified: str, module: str) -> None:
    """Where the class is found, so that its messages can be pickled."""
    cls.__module__, cls.__qualname__ = module, qualified
    for nested in descriptor.nested_types:
        if not nested.GetOptions().map_entry:
            _say_where(_class_of(nested), nested, f"{qualified}.{nested.name}", module)


def _enum_wrapper(enum: Any) -> Any:
    from google.protobuf.internal import enum_type_wrapper
    return enum_type_wrapper.EnumTypeWrapper(enum)
