"""Builds what the package takes from the tree's .proto files; everything else is in pyproject.toml.

Of each file there are made, by protoc, its descriptors (descriptors.pb, read by seqpar._descriptors) and a stub for type
checkers, and a three-line module. protoc's own Python modules are not used: those of a new protoc refuse an older protobuf,
and they register google/rpc/error_details.proto where googleapis-common-protos registers its own.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = pathlib.Path(__file__).resolve().parent
# The package's modules that hold a file's messages, by the folder of the file.
FOLDERS = {"seqpar/v1": "seqpar/v1", "google/rpc": "seqpar/rpc"}
PROTOS = ["google/rpc/error_details.proto", "seqpar/v1/report.proto", "seqpar/v1/trace.proto", "seqpar/v1/job.proto",
          "seqpar/v1/plan.proto", "seqpar/v1/service.proto"]
MODULE = '''"""Messages of {proto}. Made at build time."""
from seqpar._descriptors import publish

publish("{proto}", globals())
'''


def proto_root() -> pathlib.Path:
    """In a source distribution beside this file, in the tree at its root."""
    for folder in (HERE / "proto", HERE.parent.parent / "proto"):
        if (folder / PROTOS[-1]).is_file():
            return folder
    raise SystemExit(f"no {PROTOS[-1]} in {HERE / 'proto'} or {HERE.parent.parent / 'proto'}: build from the tree of "
                     "seqpar or from a source distribution")


def protoc() -> list:
    try:
        import grpc_tools  # noqa: F401
        return [sys.executable, "-m", "grpc_tools.protoc"]
    except ImportError:
        found = shutil.which("protoc")
        if found is None:
            raise SystemExit("no protoc: install grpcio-tools, or Debian's protobuf-compiler")
        return [found]


def module_of(proto: str) -> str:
    folder, name = proto.rsplit("/", 1)
    return f"{FOLDERS[folder]}/{name[:-len('.proto')]}_pb2"


def generate(target: pathlib.Path, scratch: pathlib.Path) -> list:
    """Writes the files into `target`, the folder that holds the package; returns them."""
    scratch.mkdir(parents=True, exist_ok=True)
    descriptors = target / "seqpar" / "descriptors.pb"
    descriptors.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([*protoc(), f"-I{proto_root()}", "--include_imports", f"--descriptor_set_out={descriptors}",
                    f"--pyi_out={scratch}", *PROTOS], check=True)
    made = [descriptors]
    for proto in PROTOS:
        stem = target / module_of(proto)
        stem.parent.mkdir(parents=True, exist_ok=True)
        stub = (scratch / proto).with_name(stem.name + ".pyi").read_text()
        stub = re.sub(r"^from google\.rpc import", "from seqpar.rpc import", stub, flags=re.M)
        for suffix, text in ((".py", MODULE.format(proto=proto)), (".pyi", stub)):
            path = stem.with_name(stem.name + suffix)
            path.write_text(text)
            made.append(path)
    return made


class BuildWithMessages(build_py):
    def run(self):
        super().run()
        # An editable install reads the sources where they are: there the made files are ignored by git.
        editable = getattr(self, "editable_mode", False)
        target = HERE / "src" if editable else pathlib.Path(self.build_lib)
        scratch = pathlib.Path(self.get_finalized_command("build").build_temp) / "proto"
        self.made = [os.fspath(p) for p in generate(target, scratch)]

    def get_outputs(self, include_bytecode=1):
        return super().get_outputs(include_bytecode) + getattr(self, "made", [])


class SdistWithProto(sdist):
    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, files)
        for proto in PROTOS:
            copy = pathlib.Path(base_dir) / "proto" / proto
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(proto_root() / proto, copy)


setup(cmdclass={"build_py": BuildWithMessages, "sdist": SdistWithProto})
