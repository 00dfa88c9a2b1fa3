"""Jobs in every form mean the same message, and what is wrong is said as the command line says it."""
import dataclasses
import json
import os
import pathlib
import pickle
import subprocess
import tempfile
import typing
import unittest

import numpy

import seqpar
from seqpar import job as values
from seqpar._convert import FIRST_OUTPUT_ONLY_FIELD, cluster_message, job_message
from seqpar.v1 import job_pb2
from seqpar.words import short_names

ROOT = pathlib.Path(__file__).resolve().parents[3]
BIN = pathlib.Path(os.environ["SEQPAR_BIN"])

TEXT = """
name: demo
config: {hidden_size: 256, num_attention_heads: 4, num_hidden_layers: 2, norm_eps: 1e-6, qkv_bias: true}
dtype: bfloat16
mask: {kind: window, left: 5, documents: [10, 21]}
pass: forward_backward
weights: {seed: 18446744073709551615}
input: {seed: 2, tokens: 31}
parallelism: {strategy: megatron_sp, tensor: 4, layout: zigzag}
verify: {rows: 8, max_error: 0.5}
labels: {team: search, run: "7"}
deadline: 90
"""

TYPED = seqpar.Job(
    name="demo",
    config=seqpar.ModelConfig(hidden_size=256, num_attention_heads=4, num_hidden_layers=2, norm_eps=1e-6, qkv_bias=True),
    dtype="bfloat16", mask=seqpar.Mask(kind="window", left=5, documents=[10, 21]), pass_="forward_backward",
    weights=seqpar.TensorSource(seed=18446744073709551615), input=seqpar.Input(seed=2, tokens=31),
    parallelism=seqpar.Parallelism(strategy="megatron_sp", tensor=4, layout="zigzag"),
    verify=seqpar.Verify(rows=8, max_error=0.5), labels={"team": "search", "run": "7"}, deadline=90)

# Each is refused; together they meet every rule.
REFUSED = [
    "maks: 3\nconfig: {layers: 2, hidden_size: \"3\"}\nmask: {kind: causl}\n",
    "tokens: 5",
    "id: j-1\nstate: running",
    "input: {seed: 1, file: a.safetensors}",
    "weights: {seed: -1}\ninput: {seed: 18446744073709551616, tokens: 1.5}",
    "config: {hidden_size: 8e99, norm_eps: .inf, qkv_bias: yes, rope_theta: fast}",
    "config: {hidden_size: 1\n",
    "name: a\nname: b",
    "mask: causal\nlabels: [a]\nconfig: 3",
    "labels: {a: [1], b: {c: d}}",
    "mask: {documents: [1, two, 3.5]}",
    "mask: {documents: 5}",
    "workers: {min: 3000000000, max: [4]}",
    "verify: ~",
    "",
    "--- {name: a}\n--- {name: b}\n",
    "- name: a",
    "parallelism: rings",
    "deadline: soon\npriority: 1e3\nmax_attempts: 2.5",
    "name: {a: b}",
    "input: {file: 7, batch: '2'}",
    "? [a]\n: 3",
]


class Forms(unittest.TestCase):
    def test_text_values_and_dicts_are_the_same_message(self):
        want = seqpar.parse_job(TEXT)
        self.assertEqual(want.config.hidden_size, 256)
        self.assertEqual(want.weights.seed, 18446744073709551615)
        self.assertEqual(list(want.mask.documents), [10, 21])
        self.assertFalse(want.config.HasField("head_dim"))
        self.assertEqual(job_message(TYPED), want)
        as_dict = {f.name.rstrip("_"): getattr(TYPED, f.name) for f in dataclasses.fields(TYPED)}
        as_dict["config"] = {"hidden_size": numpy.int64(256), "num_attention_heads": 4, "num_hidden_layers": 2.0,
                             "norm_eps": numpy.float64(1e-6), "qkv_bias": numpy.bool_(True), "head_dim": None}
        as_dict["mask"] = {"kind": "window", "left": 5, "documents": numpy.array([10, 21])}
        self.assertEqual(job_message(as_dict), want)
        self.assertIs(job_message(want), want)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "job.yaml"
            path.write_text(TEXT)
            self.assertEqual(job_message(path), want)
            self.assertEqual(job_message(str(path)), want)
        self.assertEqual(pickle.loads(pickle.dumps(want)), want)

    def test_the_examples_of_the_tree(self):
        jobs = sorted((ROOT / "examples").glob("job-*.yaml"))
        clusters = sorted((ROOT / "examples").glob("cluster-*.yaml"))
        self.assertGreater(min(len(jobs), len(clusters)), 2)
        for path in jobs:
            self.assertTrue(job_message(path).HasField("config"), path)
        for path in clusters:
            self.assertGreater(len(cluster_message(path).nodes), 0, path)

    def test_a_value_that_no_job_holds(self):
        with self.assertRaisesRegex(TypeError, "bytes"):
            job_message({"name": b"a"})

    def test_what_is_wrong_with_a_dict_is_said_without_lines(self):
        with self.assertRaises(seqpar.InvalidError) as caught:
            job_message({"config": {"hidden_size": "256"}, "maks": {}})
        self.assertEqual([str(v) for v in caught.exception.violations],
                         ["config.hidden_size: must be a whole number, is the text '256'",
                          "maks: unknown field (nearest: mask)"])
        self.assertEqual(caught.exception.violations[1].nearest, "mask")
        self.assertIsInstance(caught.exception, ValueError)


class SameAsTheCommandLine(unittest.TestCase):
    def test_every_refusal(self):
        for text in REFUSED:
            with self.subTest(text=text):
                done = subprocess.run([BIN / "seqpar", "-o", "json", "submit", "-f", "-"], input=text, text=True,
                                      capture_output=True)
                self.assertEqual(done.returncode, 3, done.stderr)
                # Which file it is about, only the command line knows.
                want = json.loads(done.stderr or done.stdout)["message"].removeprefix("standard input: ")
                with self.assertRaises(seqpar.InvalidError) as caught:
                    seqpar.parse_job(text)
                if "is not YAML" in want:  # two parsers, two wordings
                    self.assertIn("is not YAML", caught.exception.message)
                else:
                    self.assertEqual(caught.exception.message, want)


class SameAsTheProto(unittest.TestCase):
    def test_each_dataclass_has_the_fields_of_its_message(self):
        for cls in (values.Job, values.ModelConfig, values.Mask, values.TensorSource, values.Input, values.Output,
                    values.Parallelism, values.Workers, values.Devices, values.Verify):
            fields = getattr(job_pb2, cls.__name__).DESCRIPTOR.fields
            want = {f.name for f in fields if cls is not values.Job or f.number < FIRST_OUTPUT_ONLY_FIELD}
            self.assertEqual({f.name.rstrip("_") for f in dataclasses.fields(cls)}, want, cls)

    def test_each_literal_has_the_words_of_its_enum(self):
        enums = job_pb2.DESCRIPTOR.enum_types_by_name
        for name in ("Workload", "DataType", "Pass", "Norm", "Mlp", "MaskKind", "Strategy", "Core", "Layout", "Recompute",
                     "DeviceKind"):
            self.assertEqual(set(typing.get_args(getattr(values, name))), set(short_names(enums[name])), name)


if __name__ == "__main__":
    unittest.main()
