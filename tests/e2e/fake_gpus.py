"""GPUs on a machine that has none: NVML and the plug-in are libraries that read what they say from a file (tests/fake_gpu),
and each GPU computes as a CPU slot does."""
import os
import pathlib

FAKE = pathlib.Path(os.environ["SEQPAR_FAKE_GPU"])
GIB = 1 << 30


class FakeGpus:
    """`count` GPUs of 16 GiB, all linked by a switch. What is changed counts from the next write()."""

    def __init__(self, script, count):
        self.script = script
        self.used = [600 << 20] * count  # bytes of each
        self.extra = []  # more lines of the file, such as "fail device-1 79" (tests/fake_gpu/script.h)
        self.write()

    def write(self):
        lines = [f"gpu GPU-{i} {16 * GIB} {used} 90 0000:{i + 1}b:00.0 Fake GPU" for i, used in enumerate(self.used)]
        whole = self.script.with_suffix(".new")
        whole.write_text("\n".join(lines + [f"switch GPU-{i} 18" for i in range(len(self.used))] + self.extra) + "\n")
        whole.rename(self.script)

    def environment(self):
        """Of a worker that is to find them."""
        return {"SEQPAR_CUDA_PLUGIN": str(FAKE / "libseqpar-fake-cuda.so"),
                "SEQPAR_NVML_LIBRARY": str(FAKE / "libseqpar-fake-nvml.so"), "SEQPAR_FAKE_GPUS": str(self.script)}
