"""Reading safetensors files, against the safetensors package where it is there, and refusing what is none."""
import json
import pathlib
import struct
import tempfile
import unittest

import numpy as np

import seqpar

try:
    import safetensors.numpy as reference
except ImportError:
    reference = None


def file_of(header, data=b""):
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


class Reading(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name) / "out.safetensors"

    def refused(self, raw, pattern):
        self.path.write_bytes(raw)
        with self.assertRaisesRegex(seqpar.ResultsError, pattern):
            seqpar.Results(self.path)

    def test_bfloat16_becomes_float32_exactly(self):
        bits = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)  # every bfloat16 that there is
        header = {"__metadata__": {"a": "b"}, "x": {"dtype": "BF16", "shape": [256, 256], "data_offsets": [0, 1 << 17]}}
        self.path.write_bytes(file_of(header, bits.tobytes()))
        results = seqpar.Results(self.path)
        self.assertEqual((list(results), len(results), results.metadata), (["x"], 1, {"a": "b"}))
        self.assertEqual((results.dtype("x"), results.shape("x"), results["x"].dtype), ("BF16", (256, 256), np.float32))
        self.assertTrue(np.array_equal(results.raw("x"), bits))
        self.assertEqual(results["x"].tobytes(), (bits.astype(np.uint32) * 65536).tobytes())
        self.assertEqual(seqpar.widen_bfloat16(results.raw("x")[0x3f, 0x80:0x81])[0], 1.0)

    @unittest.skipIf(reference is None, "no safetensors package: the newest interpreter's run has it")
    def test_as_the_safetensors_package_reads_and_writes(self):
        random = np.random.default_rng(1)
        want = {"f32": random.standard_normal((3, 5, 7)).astype(np.float32), "f16": np.ones((2, 2), np.float16),
                "i64": np.arange(4), "none": np.zeros((0, 3), np.float32), "one": np.array(2.5),
                "flag": np.array([True, False])}
        reference.save_file(want, self.path, metadata={"k": "v"})
        got = seqpar.Results(self.path)
        self.assertEqual((set(got), got.metadata), (set(want), {"k": "v"}))
        for name, value in want.items():
            self.assertEqual((got[name].dtype, got[name].shape), (value.dtype, value.shape), name)
            self.assertTrue(np.array_equal(got[name], value), name)

    def test_arrays_are_views_that_cannot_be_written(self):
        self.path.write_bytes(file_of({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 8))
        values = seqpar.Results(self.path)["x"]
        self.assertIsInstance(values, np.memmap)
        with self.assertRaises(ValueError):
            values[0] = 1

    def test_what_is_no_such_file(self):
        x = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
        self.refused(b"", "no safetensors")
        self.refused(b"GARBAGE!" * 4, "no safetensors")
        self.refused(struct.pack("<Q", 2) + b"{x", "not JSON")
        self.refused(file_of([1]), "not a JSON object")
        self.refused(file_of({"x": x}, b"\0" * 7), "does not lie in the file")
        self.refused(file_of({"x": {**x, "data_offsets": [0, 4]}}, b"\0" * 8), "does not lie in the file")
        self.refused(file_of({"x": {**x, "data_offsets": [-8, 0]}}, b"\0" * 8), "does not lie in the file")
        self.refused(file_of({"x": {**x, "dtype": "F4"}}, b"\0" * 8), "not understood")
        self.refused(file_of({"x": 3}, b"\0" * 8), "not understood")
        with self.assertRaises(FileNotFoundError):
            seqpar.Results(self.path.with_name("other"))
        self.path.write_bytes(file_of({"x": x}, b"\0" * 8))
        with self.assertRaises(KeyError):
            seqpar.Results(self.path)["y"]


if __name__ == "__main__":
    unittest.main()
