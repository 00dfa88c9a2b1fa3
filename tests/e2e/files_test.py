"""Weights, inputs and gradients from files: what a job computes from them is what the files say, in each of their types."""
import json
import math
import struct
import unittest

from harness import ClusterTest

CONFIG = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
          "intermediate_size": 48, "num_hidden_layers": 2, "rope_theta": 10000.0}
TOKENS = 67
HIDDEN = [1, TOKENS, 32]


def layer_shapes(layer):
    """docs/job.md, "Tensors in files", of CONFIG."""
    name = f"model.layers.{layer}."
    return {name + "input_layernorm.weight": [32], name + "self_attn.q_proj.weight": [32, 32],
            name + "self_attn.k_proj.weight": [16, 32], name + "self_attn.v_proj.weight": [16, 32],
            name + "self_attn.o_proj.weight": [32, 32], name + "post_attention_layernorm.weight": [32],
            name + "mlp.gate_proj.weight": [48, 32], name + "mlp.up_proj.weight": [48, 32],
            name + "mlp.down_proj.weight": [32, 48]}


def bfloat16_bits(value):
    """The nearest bfloat16, ties to even: of eight significant bits."""
    fraction, exponent = math.frexp(value)
    nearest = math.ldexp(round(fraction * 256), exponent - 8)
    return struct.unpack("<I", struct.pack("<f", nearest))[0] >> 16


PACK = {"F32": lambda values: struct.pack(f"<{len(values)}f", *values),
        "F16": lambda values: struct.pack(f"<{len(values)}e", *values),
        "BF16": lambda values: struct.pack(f"<{len(values)}H", *map(bfloat16_bits, values)),
        "I64": lambda values: struct.pack(f"<{len(values)}q", *values)}


def write_safetensors(path, tensors):
    """tensors: {name: (type, shape, values)}"""
    header, data = {}, b""
    for name, (kind, shape, values) in tensors.items():
        packed = PACK[kind](values)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(data), len(data) + len(packed)]}
        data += packed
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def philox(counter, key):
    """Philox4x32-10, from the paper."""
    c, k = list(counter), list(key)
    for _ in range(10):
        low, high = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(high >> 32) ^ c[1] ^ k[0], high & 0xFFFFFFFF, (low >> 32) ^ c[3] ^ k[1], low & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def seeded(seed, name, shape):
    """docs/formulas.md, "Seeded values": in float64, not rounded."""
    if name.endswith("layernorm.weight"):
        return [1.0] * math.prod(shape)
    hashed = 0xCBF29CE484222325
    for byte in name.encode():
        hashed = (hashed ^ byte) * 0x100000001B3 % 2**64
    bound = math.sqrt(3 / (shape[-1] if len(shape) == 2 else 1))
    words = []
    for block in range(-(-math.prod(shape) // 4)):
        words += philox((block, 0, hashed % 2**32, hashed >> 32), (seed, 0))
    return [(2 * ((word >> 8) / 2**24) - 1) * bound for word in words[:math.prod(shape)]]


def short_values(shape, salt):
    """Multiples of 1/64 within 1/2: exact in every type."""
    return [((i * 37 + salt * 11) % 65 - 32) / 64 for i in range(math.prod(shape))]


class Files(ClusterTest):
    def output_of(self, name, **changes):
        """(the ended job, the bytes of its output)"""
        job = {"config": CONFIG, "input": {"seed": 2, "tokens": TOKENS}, "pass": "forward_backward",
               "grad_output": {"seed": 3}, "parallelism": {"strategy": "hybrid", "tensor": 2, "ring": 2},
               "output": {"file": f"{name}.out"}} | changes
        ended = self.wait_succeeded(self.submit(self.write_job(f"{name}.yaml", **job)))
        return ended, (self.data / f"{name}.out").read_bytes()

    def test_files_of_what_a_seed_means_give_what_the_seed_gives(self):
        shapes = layer_shapes(0) | layer_shapes(1)
        for dtype, kind in (("float32", "F32"), ("bfloat16", "BF16")):
            with self.subTest(dtype=dtype):
                write_safetensors(self.data / "weights", {n: (kind, s, seeded(1, n, s)) for n, s in shapes.items()})
                for name, seed in (("hidden_states", 2), ("grad_output", 3)):
                    write_safetensors(self.data / name, {name: (kind, HIDDEN, seeded(seed, name, HIDDEN))})
                _, by_seed = self.output_of(f"seed-{kind}", dtype=dtype)
                _, by_file = self.output_of(f"file-{kind}", dtype=dtype, weights={"file": "weights"},
                                            input={"file": "hidden_states"}, grad_output={"file": "grad_output"})
                self.assertEqual(by_file, by_seed)

    def test_weights_mean_the_same_in_every_type_and_in_a_folder(self):
        shapes = layer_shapes(0) | layer_shapes(1)
        values = {name: short_values(shape, salt) for salt, (name, shape) in enumerate(shapes.items())}
        for kind in ("F32", "BF16", "F16"):
            write_safetensors(self.data / kind, {n: (kind, s, values[n]) for n, s in shapes.items()})
        folder = self.data / "checkpoint"
        folder.mkdir()
        more = {"model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", [4], [1, 0.1, 0.01, 0.001]),
                "model.embed_tokens.weight": ("F16", [3, 32], short_values([3, 32], 5)), "lm_head.steps": ("I64", [1], [7]),
                **{n: ("F16", s, short_values(s, 3)) for n, s in layer_shapes(2).items()}}
        files = {"model-1.safetensors": {n: ("F16", s, values[n]) for n, s in layer_shapes(0).items()} | more,
                 "model-2.safetensors": {n: ("BF16", s, values[n]) for n, s in layer_shapes(1).items()}}
        for file, tensors in files.items():
            write_safetensors(folder / file, tensors)
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"weight_map": {name: file for file, tensors in files.items() for name in tensors}}))
        config = {"model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-5, **CONFIG, "num_hidden_layers": 3}
        (folder / "config.json").write_text(json.dumps(config))
        _, want = self.output_of("plain", weights={"file": "F32"})
        for source in ("BF16", "F16", "checkpoint"):
            with self.subTest(weights=source):
                job, got = self.output_of(f"from-{source}", weights={"file": source})
                self.assertEqual(got, want)
                self.assertEqual(int(job["report"].get("ignored_tensors", 0)), len(more) if source == "checkpoint" else 0)

        (folder / "config.json").write_text(json.dumps(config | {"rope_scaling": {"type": "linear", "factor": 2.0}}))
        code, _, err = self.run_cli("submit", "-f", self.write_job("scaled.yaml", config=CONFIG,
                                                                   weights={"file": "checkpoint"}))
        self.assertEqual(code, 3, err)
        self.assertIn("rope_scaling", err)


if __name__ == "__main__":
    unittest.main()
