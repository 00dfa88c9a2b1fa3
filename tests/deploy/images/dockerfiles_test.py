"""The files that images are made from: a linter's opinion, and that what goes to a builder is a tree which configures."""
import fnmatch
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.append(str(ROOT / "tests/deploy"))
import monitoring  # noqa: E402

monitoring.need("yaml")

import yaml  # noqa: E402

DOCKERFILES = sorted((ROOT / "docker").glob("*Dockerfile"))
PROGRAMS = ("seqpar-coordinator", "seqpar-worker", "seqpar")


def sent():
    """The files that a builder is sent: those of the tree without what .dockerignore names."""
    patterns = [line.strip() for line in (ROOT / ".dockerignore").read_text().splitlines()
                if line.strip() and not line.startswith("#")]

    def ignored(path):
        parts = path.split("/")
        ahead = ["/".join(parts[:i + 1]) for i in range(len(parts))]  # a folder's pattern is one of all in it
        return any(fnmatch.fnmatch(part, pattern[3:]) for pattern in patterns if pattern.startswith("**/") for part in parts) or \
            any(fnmatch.fnmatch(a, pattern) and a.count("/") == pattern.count("/") for pattern in patterns for a in ahead)
    tree = subprocess.run(["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True)
    listed = tree.stdout.splitlines() if tree.returncode == 0 else [
        str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file()]  # no checkout
    return [path for path in listed if not ignored(path) and (ROOT / path).exists()]


class Dockerfiles(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="seqpar-dockerfiles-"))
        self.addCleanup(shutil.rmtree, self.dir)

    def hadolint(self, path):
        program = ROOT / "tests/.venv/bin/hadolint"
        if not program.exists():
            self.skipTest("no hadolint (scripts/install-deps --tests)")
        done = subprocess.run([program, path], capture_output=True, text=True, timeout=120)
        return done.returncode, done.stdout + done.stderr

    def test_hadolint_finds_no_fault(self):
        self.assertEqual(len(DOCKERFILES), 2)
        for path in DOCKERFILES:
            with self.subTest(path.name):
                self.assertEqual(self.hadolint(path), (0, ""))

    def test_hadolint_finds_a_fault_where_there_is_one(self):
        path = self.dir / "Dockerfile"
        path.write_text("FROM debian:latest\nRUN cd /tmp && apt-get install gcc\n")
        code, said = self.hadolint(path)
        self.assertEqual(code, 1)
        self.assertIn("DL3007", said)

    def test_what_is_copied_is_there(self):
        files = sent()
        for path in DOCKERFILES:
            for source in re.findall(r"^COPY (?!--from)(\S+) ", path.read_text(), flags=re.M):
                if source != ".":
                    self.assertIn(source, files, path.name)

    def test_the_tree_that_a_builder_gets_configures(self):
        """As docker/compile does it; ninja knows a way to each program, and compiles nothing here."""
        files = sent()
        self.assertFalse([f for f in files if f.startswith(("tests/", ".git/", "build"))])
        for file in files:
            (self.dir / "src" / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, self.dir / "src" / file, follow_symlinks=False)
        script = (ROOT / "docker/compile").read_text()
        options = re.search(r"options=\((.*)\)", script)[1].split()
        self.assertIn("-DSEQPAR_BUILD_TESTS=OFF", options)
        done = subprocess.run(["cmake", "-S", self.dir / "src", "-B", self.dir / "build", "-G", "Ninja", *options,
                               "-DSEQPAR_CUDA_ENABLED=OFF"], capture_output=True, text=True, timeout=600)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn(" ".join(PROGRAMS), script)
        done = subprocess.run(["ninja", "-C", self.dir / "build", "-n", *PROGRAMS], capture_output=True, text=True, timeout=600)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        for program in PROGRAMS:
            self.assertIn(f"Linking CXX executable bin/{program}\n", done.stdout + "\n")

    def toolkit(self, *arguments, **environment):
        return subprocess.run([ROOT / "docker/cuda-toolkit", *arguments], capture_output=True, text=True, timeout=60,
                              env={**os.environ, **environment})

    def test_a_worker_gets_the_libraries_that_it_loads_from_a_toolkit_of_ones_own(self):
        """Laid out as NVIDIA's: links to full versions, stubs beside, folders named lib64."""
        library = self.dir / "cuda/targets/x86_64-linux/lib"
        (library / "stubs").mkdir(parents=True)
        (self.dir / "cuda/lib64").symlink_to(library)
        wanted = {"libcublasLt.so.13": "13.1.0.3", "libnccl.so.2": "2.28.9", "libnvrtc.so.13": "13.0.88",
                  "libnvrtc-builtins.so.13.0": "13.0.88"}
        for name, version in wanted.items():
            whole = f"{name.split('.so')[0]}.so.{version}"
            (library / whole).write_text(name)
            (library / name).symlink_to(whole)
            (library / "stubs" / name).write_text("stub")
        (library / "libcufft.so.12").write_text("of no use")
        out = self.dir / "out"
        done = self.toolkit("--run", out, CUDA_FOLDER=str(self.dir / "cuda"))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual({path.name: path.read_text() for path in out.iterdir()}, {name: name for name in wanted})
        self.assertFalse([path for path in out.iterdir() if path.is_symlink()])
        (library / "libnvrtc.so.13").unlink()
        done = self.toolkit("--run", out, CUDA_FOLDER=str(self.dir / "cuda"))
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"there is no libnvrtc.so.13 in {self.dir}/cuda", done.stderr)

    def test_a_cache_that_cannot_be_mounted_is_refused_before_anything_is_built(self):
        for tool, folder, said in (("docker", self.dir, "docker mounts no folder"), ("podman", self.dir / "none", "there is no folder")):
            done = subprocess.run([ROOT / "docker/build", "--tool", tool, "--cache", folder], capture_output=True, text=True,
                                  timeout=60)
            self.assertEqual((done.returncode, done.stdout), (2, ""))
            self.assertIn(said, done.stderr)

    def test_one_version_everywhere(self):
        version = re.search(r"project\(seqpar VERSION ([0-9.]+)", (ROOT / "CMakeLists.txt").read_text())[1]
        chart = yaml.safe_load((ROOT / "deploy/helm/seqpar/Chart.yaml").read_text())
        self.assertEqual(chart["appVersion"], version)
        for path in DOCKERFILES:
            self.assertEqual(set(re.findall(r"^ARG VERSION=(.*)$", path.read_text(), flags=re.M)), {version}, path.name)
        compose = (ROOT / "deploy/compose/compose.yaml").read_text()
        self.assertEqual(re.findall(r"SEQPAR_TAG:-([^}]+)\}", compose), [version] * 2)
        self.assertIn(f'"{version}"', (ROOT / "client/python/src/seqpar/_version.py").read_text())

    def test_the_list_for_sites_without_internet_is_whole(self):
        listed = subprocess.run([ROOT / "docker/build", "--list"], capture_output=True, text=True, check=True,
                                timeout=60).stdout.splitlines()
        compose = yaml.safe_load((ROOT / "deploy/compose/compose.yaml").read_text())["services"].values()
        foreign = {service["image"] for service in compose if not service["image"].startswith("seqpar/")}
        self.assertEqual(len(foreign), 2)
        wheels = set()
        for file in ("docker/cuda-wheels.txt", "worker/device/cuda/fa4/requirements.txt",
                     "worker/device/cuda/cudnn/requirements.txt"):
            wheels |= {line for line in (ROOT / file).read_text().splitlines() if line and not line.startswith("#")}
        self.assertTrue(all("==" in wheel for wheel in wheels))  # pinned
        packages = subprocess.run([ROOT / "scripts/install-deps", "--list"], capture_output=True, text=True,
                                  check=True).stdout.split()
        project = tomllib.loads((ROOT / "client/python/pyproject.toml").read_text())
        client = set(project["build-system"]["requires"] + project["project"]["dependencies"])
        images = {f"seqpar/{name}:0" for name in ("coordinator", "worker", "worker-cuda")}
        self.assertLessEqual(foreign | wheels | client | set(packages), set(listed))
        install = (ROOT / "docs/install.md").read_text()
        for requirement in project["build-system"]["requires"]:
            self.assertIn(requirement, re.search(r"^pip3 download .*client/python .*$", install, flags=re.M)[0])
        self.assertLessEqual(images, {re.sub(r":0.*", ":0", line) for line in listed})


if __name__ == "__main__":
    unittest.main(verbosity=2)
