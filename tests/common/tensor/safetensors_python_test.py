"""Exchanges files with the Python package safetensors. Arguments: our safetensors_interop, and a Python to try
where this one lacks the package. Exit code 77 means that neither has it."""
import os
import subprocess
import sys
import tempfile

try:
    import numpy as np
    from safetensors import safe_open
    from safetensors.numpy import save_file
except ImportError:
    other = sys.argv[2] if len(sys.argv) > 2 else ""
    if os.path.exists(other):
        os.execv(other, [other] + sys.argv[:2])
    print("SKIPPED: no Python with safetensors and numpy (pip install them into tests/.venv)")
    sys.exit(77)

INTEROP = sys.argv[1]


def they_write_we_read(path):
    save_file(
        {
            "b": np.arange(6, dtype=np.float32).reshape(2, 3) / 4,
            "ints": np.array([1, 2], dtype=np.int64),
            "empty": np.zeros((0, 4), np.float32),
            "scalar": np.array(2.5, dtype=np.float64),
            "h": np.array([1.0, -2.0, 65504.0, np.inf, 2.0**-24], dtype=np.float16),
        },
        path,
        metadata={"format": "np", "quote": 'v"\u00e9'},
    )
    out = subprocess.run([INTEROP, "read", path], check=True, stdout=subprocess.PIPE).stdout.decode()
    assert out.splitlines() == [
        "b F32 [2,3,] 0 0.25 0.5 0.75 1 1.25",
        "empty F32 [0,4,]",
        "h F16 [5,] 1 -2 65504 inf 5.96046e-08",
        "scalar F64 [] 2.5",
        "ints other I64",
        "format=np",
        'quote=v"\u00e9',
    ], out


def we_write_they_read(path):
    subprocess.run([INTEROP, "write", path], check=True)
    expected = {
        "z": ("F32", [3, 5]),
        "bf": ("BF16", [7]),
        "empty": ("F32", [4, 0]),
        'a "quoted" n\u00e4me': ("F16", [1, 2, 3]),
        "scalar": ("F64", []),
    }
    with safe_open(path, framework="np") as f:
        assert f.metadata() == {"producer": "seqpar"}, f.metadata()
        assert set(f.keys()) == set(expected), f.keys()
        for name, (dtype, shape) in expected.items():
            piece = f.get_slice(name)
            assert piece.get_dtype() == dtype and piece.get_shape() == shape, name
            if dtype == "BF16":  # numpy has no such type
                continue
            tensor = f.get_tensor(name)
            assert np.array_equal(tensor.ravel(), np.arange(tensor.size) - 2.0), (name, tensor)


with tempfile.TemporaryDirectory() as folder:
    they_write_we_read(os.path.join(folder, "theirs.safetensors"))
    we_write_they_read(os.path.join(folder, "ours.safetensors"))
print("exchanged files with the Python package in both directions")
