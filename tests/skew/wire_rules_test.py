#!/usr/bin/env python3
"""The tree keeps the wire contract of the last release; and each rule of wire_rules.py finds what it is there for."""
import os
import pathlib
import re
import unittest

from google.protobuf import descriptor_pb2

import wire_rules

ROOT = pathlib.Path(os.environ["SEQPAR_SOURCE_DIR"])
RELEASE = ROOT / "tests/skew/release"
Field = descriptor_pb2.FieldDescriptorProto


def released():
    return descriptor_pb2.FileDescriptorSet.FromString((RELEASE / "descriptors.binpb").read_bytes())


def find(descriptors, name):
    return next(d for d in descriptors if d.name == name)


def number(fields, n):
    return next(f for f in fields if f.number == n)


class TheTree(unittest.TestCase):
    def test_keeps_the_contract_of_the_last_release(self):
        self.assertEqual(wire_rules.violations(released(), wire_rules.descriptors_of(ROOT)), [])

    def test_has_every_file_in_the_contract(self):
        protos = {p.relative_to(ROOT / "proto").as_posix() for p in (ROOT / "proto").rglob("*.proto")}
        self.assertEqual(protos - set(wire_rules.FILES), set())
        self.assertEqual({f.name for f in released().file}, set(wire_rules.FILES))

    def test_serves_workers_of_that_release_and_none_before(self):
        oldest = re.search(r'kOldestServed\[\] = "([^"]+)"', (ROOT / "common/base/version.h").read_text()).group(1)
        version = (RELEASE / "RELEASE").read_text().split()[0]
        self.assertEqual(oldest.split(".")[:2], version.split(".")[:2],
                         "kOldestServed is the release that tests/skew/release keeps: tests/skew/renew makes it anew")


class EachRule(unittest.TestCase):
    """What changes the contract of the release, and what is said about it."""

    def setUp(self):
        self.now = released()
        self.job = find(self.now.file, "seqpar/v1/job.proto")
        self.fleet = find(self.now.file, "seqpar/v1/fleet.proto")
        self.service = find(self.now.file, "seqpar/v1/service.proto")

    def said(self):
        return wire_rules.violations(released(), self.now)

    def assertSays(self, *expected):
        self.assertEqual(self.said(), list(expected))

    def test_nothing_where_nothing_changed(self):
        self.assertSays()

    def test_nothing_of_what_is_added(self):
        message = find(self.job.message_type, "Job")
        message.field.add(name="more", number=90, type=Field.TYPE_STRING, label=Field.LABEL_OPTIONAL)
        message.reserved_range.add(start=95, end=96)
        find(self.job.enum_type, "Mlp").value.add(name="MLP_RELU", number=5)
        self.job.message_type.add(name="More")
        self.job.enum_type.add(name="Kinds").value.add(name="KINDS_UNSPECIFIED", number=0)
        find(self.service.service, "JobService").method.add(name="Again", input_type=".a.B", output_type=".a.C")
        self.now.file.add(name="seqpar/v1/more.proto", package="seqpar.v1", syntax="proto3")
        self.assertSays()

    def test_file(self):
        self.fleet.name = "seqpar/v1/nodes.proto"
        self.job.package = "seqpar.v2"
        self.assertSays("file seqpar/v1/job.proto: was package seqpar.v1 in proto3, is seqpar.v2 in proto3",
                        "file seqpar/v1/fleet.proto: is gone")

    def test_message(self):
        find(self.job.message_type, "Verify").name = "Check"
        nested = find(self.fleet.message_type, "StartRanks").nested_type
        nested.remove(find(nested, "Placement"))
        self.assertSays("message seqpar.v1.Verify: is gone", "message seqpar.v1.StartRanks.Placement: is gone")

    def test_field_with_another_name(self):
        number(find(self.job.message_type, "Workers").field, 1).name = "least"
        self.assertSays("field seqpar.v1.Workers.min = 1: was 'int32 min', is 'int32 least'")

    def test_fields_that_changed_numbers(self):
        fields = find(self.job.message_type, "Workers").field
        number(fields, 1).number = 3
        number(fields, 2).number = 1
        self.assertSays("field seqpar.v1.Workers.min = 1: was 'int32 min', is 'int32 max'",
                        'removed seqpar.v1.Workers.max = 2: reserve both, the number 2 and the name "max"')

    def test_field_of_another_type(self):
        number(find(self.job.message_type, "Workers").field, 1).type = Field.TYPE_SINT32
        number(find(self.job.message_type, "Job").field, 7).type_name = ".seqpar.v1.Input"
        self.assertSays("field seqpar.v1.Workers.min = 1: was 'int32 min', is 'sint32 min'",
                        "field seqpar.v1.Job.weights = 7: was 'message .seqpar.v1.TensorSource weights', "
                        "is 'message .seqpar.v1.Input weights'")

    def test_field_of_another_label(self):
        number(find(self.job.message_type, "Mask").field, 4).label = Field.LABEL_OPTIONAL
        self.assertSays("field seqpar.v1.Mask.documents = 4: was 'repeated int64 documents', is 'int64 documents'")

    def test_field_of_another_presence(self):
        message = find(self.job.message_type, "Verify")
        field = number(message.field, 2)
        field.ClearField("proto3_optional")
        field.ClearField("oneof_index")
        message.oneof_decl.pop()
        self.assertSays("field seqpar.v1.Verify.max_error = 2: was 'optional double max_error', is 'double max_error'")

    def test_field_of_another_oneof(self):
        number(find(self.job.message_type, "TensorSource").field, 2).ClearField("oneof_index")
        self.assertSays("field seqpar.v1.TensorSource.seed = 2: was 'in oneof source: uint64 seed', is 'uint64 seed'")

    def test_key_of_a_map(self):
        entry = find(find(self.fleet.message_type, "Hello").nested_type, "SetAsideEntry")
        number(entry.field, 1).type = Field.TYPE_INT64
        self.assertSays("field seqpar.v1.Hello.SetAsideEntry.key = 1: was 'int32 key', is 'int64 key'")

    def test_removed_field(self):
        message = find(self.job.message_type, "Workers")
        message.field.remove(number(message.field, 2))
        told = 'removed seqpar.v1.Workers.max = 2: reserve both, the number 2 and the name "max"'
        self.assertSays(told)
        message.reserved_range.add(start=2, end=3)
        self.assertSays(told)
        message.reserved_name.append("max")
        self.assertSays()
        message.reserved_range[0].start = 3
        message.reserved_range[0].end = 5
        self.assertSays(told)

    def test_removed_value(self):
        enum = find(self.job.enum_type, "Mlp")
        enum.value.remove(number(enum.value, 3))
        told = 'removed seqpar.v1.Mlp.MLP_GELU_TANH = 3: reserve both, the number 3 and the name "MLP_GELU_TANH"'
        self.assertSays(told)
        enum.reserved_name.append("MLP_GELU_TANH")
        self.assertSays(told)
        enum.reserved_range.add(start=3, end=3)
        self.assertSays()

    def test_reserved(self):
        message = find(self.fleet.message_type, "CoordinatorMessage")
        self.assertEqual([(r.start, r.end) for r in message.reserved_range], [(6, 7)])
        message.reserved_range[0].start = 8
        message.reserved_range[0].end = 9
        self.assertSays("reserved seqpar.v1.CoordinatorMessage: numbers 6 to 6 are no longer reserved")
        message.reserved_range.add(start=1, end=7)
        self.assertSays()

    def test_reserved_name(self):
        old = released()
        find(find(old.file, "seqpar/v1/job.proto").message_type, "Job").reserved_name.append("gone")
        find(find(old.file, "seqpar/v1/job.proto").enum_type, "Mlp").reserved_range.add(start=7, end=8)
        self.assertEqual(wire_rules.violations(old, self.now),
                         ['reserved seqpar.v1.Job: the name "gone" is no longer reserved',
                          "reserved seqpar.v1.Mlp: numbers 7 to 8 are no longer reserved"])

    def test_value(self):
        number(find(self.job.enum_type, "Mlp").value, 3).name = "MLP_RELU"
        kinds = find(find(self.fleet.message_type, "RankEvent").enum_type, "Kind")
        number(kinds.value, 1).name = "BEGUN"
        self.assertSays("value seqpar.v1.Mlp.MLP_GELU_TANH = 3: is MLP_RELU now",
                        "value seqpar.v1.RankEvent.Kind.STARTED = 1: is BEGUN now")

    def test_enum(self):
        self.job.enum_type.remove(find(self.job.enum_type, "Core"))
        self.assertSays("enum seqpar.v1.Core: is gone")

    def test_method(self):
        methods = find(self.service.service, "JobService").method
        find(methods, "WatchJob").server_streaming = False
        find(methods, "GetJob").output_type = ".seqpar.v1.JobEvent"
        methods.remove(find(methods, "CancelJob"))
        self.assertSays(
            "method seqpar.v1.JobService.GetJob: was (.seqpar.v1.GetJobRequest) -> .seqpar.v1.Job, "
            "is (.seqpar.v1.GetJobRequest) -> .seqpar.v1.JobEvent",
            "method seqpar.v1.JobService.WatchJob: was (.seqpar.v1.WatchJobRequest) -> stream .seqpar.v1.JobEvent, "
            "is (.seqpar.v1.WatchJobRequest) -> .seqpar.v1.JobEvent",
            "method seqpar.v1.JobService.CancelJob: is gone")

    def test_service(self):
        find(self.service.service, "ClusterService").name = "NodeService"
        self.assertSays("service seqpar.v1.ClusterService: is gone")


if __name__ == "__main__":
    unittest.main()
