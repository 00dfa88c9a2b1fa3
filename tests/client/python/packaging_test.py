"""From the tree, from a source distribution without the tree, by Debian's protoc, and editable: the same package."""
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

from build_package import copy_sources

ROOT = pathlib.Path(__file__).resolve().parents[3]
CHECK = "import seqpar, seqpar.v1; print(seqpar.__version__, seqpar.__file__); seqpar.v1.Job(name='a'); seqpar.Client"


def run(*args, **options):
    done = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode:
        raise AssertionError(f"{args}: exit code {done.returncode}\n{done.stdout}")
    return done.stdout


def files(folder):
    """Relative path -> contents, of the package alone."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted((folder / "seqpar").rglob("*"))
            if p.is_file() and "__pycache__" not in p.parts}


class Packaging(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = pathlib.Path(folder.name)
        self.env = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INDEX": "1"}
        self.env.pop("PYTHONPATH", None)

    def pip_install(self, source, *options, **env):
        run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", *options, str(source),
            env={**self.env, **env})

    def test_a_source_distribution_needs_no_tree(self):
        package = copy_sources(ROOT, self.dir / "tree")
        run(sys.executable, "setup.py", "-q", "sdist", "--dist-dir", str(self.dir / "dist"), cwd=package, env=self.env)
        (archive,) = (self.dir / "dist").iterdir()
        self.pip_install(archive, "--target", str(self.dir / "from-sdist"))
        self.pip_install(package, "--target", str(self.dir / "from-tree"))
        got, want = files(self.dir / "from-sdist"), files(self.dir / "from-tree")
        self.assertEqual(got, want)
        for name in ("py.typed", "descriptors.pb", "v1/job_pb2.py", "v1/job_pb2.pyi", "rpc/error_details_pb2.pyi"):
            self.assertIn(f"seqpar/{name}", got)
        self.assertNotIn(b"from google.rpc", got["seqpar/v1/job_pb2.pyi"])
        version = re.search(r"project\(seqpar VERSION ([\d.]+)", (ROOT / "CMakeLists.txt").read_text()).group(1)
        out = run(sys.executable, "-c", CHECK, env={**self.env, "PYTHONPATH": str(self.dir / "from-sdist")})
        self.assertEqual(out.split()[0], version)

    def test_by_debians_protoc(self):
        package = copy_sources(ROOT, self.dir / "tree")
        # A module that cannot be imported stands before grpc_tools.
        (self.dir / "hide" / "grpc_tools").mkdir(parents=True)
        (self.dir / "hide" / "grpc_tools" / "__init__.py").write_text("raise ImportError('hidden')")
        self.pip_install(package, "--target", str(self.dir / "target"), PYTHONPATH=str(self.dir / "hide"))
        run(sys.executable, "-c", CHECK, env={**self.env, "PYTHONPATH": str(self.dir / "target")})

    def test_editable(self):
        package = copy_sources(ROOT, self.dir / "tree")
        run(sys.executable, "-m", "venv", "--system-site-packages", "--without-pip", str(self.dir / "venv"))
        python = self.dir / "venv" / "bin" / "python"
        libraries = run(sys.executable, "-c", "import site; print(site.getsitepackages()[0])").strip()
        env = {**self.env, "PYTHONPATH": libraries}  # pip, setuptools, grpcio and the rest
        run(str(python), "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "-e", str(package), env=env)
        self.assertIn(str(package / "src" / "seqpar"), run(str(python), "-c", CHECK, env=env))


if __name__ == "__main__":
    unittest.main()
