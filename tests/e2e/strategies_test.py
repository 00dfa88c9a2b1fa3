"""Each strategy, submitted by the command line, gives what one worker gives, forward and backward."""
import unittest

from harness import ClusterTest, read_safetensors, relative_error

STRATEGIES = {
    "megatron_sp": {"strategy": "megatron_sp", "tensor": 4},
    "ulysses": {"strategy": "ulysses", "ulysses": 4},
    "ring": {"strategy": "ring", "ring": 4},
    "double_ring": {"strategy": "ring", "ring": 4, "inner": 2, "layout": "striped"},
    "gather": {"strategy": "gather", "ring": 4},
    "hybrid_ulysses_ring": {"strategy": "hybrid", "ulysses": 2, "ring": 2},
    "hybrid_tensor_ring": {"strategy": "hybrid", "tensor": 2, "ring": 2, "core": "gather"},
    "auto": "auto",
}


class Strategies(ClusterTest):
    def run_job(self, name, **changes):
        path = self.write_job(f"{name}.yaml", output={"file": f"{name}.safetensors"}, **changes)
        job = self.wait_succeeded(self.submit(path))
        return job, read_safetensors(self.data / f"{name}.safetensors")

    def compare(self, dtype, bound, **changes):
        common = {"pass": "forward_backward", "grad_output": {"seed": 3}, "dtype": dtype, "verify": {"rows": 4},
                  **changes}
        _, want = self.run_job("one", workers={"min": 1, "max": 1}, **common)
        self.assertIn("hidden_states.grad", want)
        self.assertIn("model.layers.1.mlp.down_proj.weight.grad", want)
        for name, parallelism in STRATEGIES.items():
            with self.subTest(strategy=name):
                job, got = self.run_job(name, parallelism=parallelism, **common)
                self.assertEqual(len(job["report"]["ranks"]), 4)
                self.assertTrue(job["report"]["verification"]["ran"])
                self.assertEqual(list(got), list(want))
                for tensor, (kind, shape, values) in got.items():
                    self.assertEqual((kind, shape), want[tensor][:2])
                    self.assertLess(relative_error(values, want[tensor][2]), bound, tensor)

    def test_float32(self):
        self.compare("float32", 2e-5)

    def test_bfloat16_window_and_documents(self):
        self.compare("bfloat16", 3e-2, mask={"kind": "window", "left": 20, "right": 3, "documents": [31, 60, 40]})


if __name__ == "__main__":
    unittest.main()
