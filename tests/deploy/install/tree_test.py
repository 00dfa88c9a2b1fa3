"""What `cmake --install` makes of a build: programs that need nothing of it, and files where the documents say."""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "e2e"))
from harness import environment, scaled  # noqa: E402

BUILD = pathlib.Path(os.environ["SEQPAR_BIN"]).parent
ROOT = pathlib.Path(__file__).resolve().parents[3]
PROGRAMS = ["seqpar", "seqpar-coordinator", "seqpar-worker"]
NOWHERE = "127.0.0.1:1"
# Where in the tree -> what of the source.
FILES = {
    "lib/systemd/system/seqpar-coordinator.service": "deploy/systemd/seqpar-coordinator.service",
    "lib/systemd/system/seqpar-worker.service": "deploy/systemd/seqpar-worker.service",
    "lib/sysusers.d/seqpar.conf": "deploy/systemd/seqpar.conf",
    "share/seqpar/systemd/coordinator-tls.env": "deploy/systemd/coordinator-tls.env",
    "share/seqpar/systemd/worker-tls.env": "deploy/systemd/worker-tls.env",
    "share/seqpar/systemd/coordinator-tenants.env": "deploy/systemd/coordinator-tenants.env",
    "share/seqpar/systemd/tenants": "examples/tenants",
    **{f"share/seqpar/examples/{path.name}": f"examples/{path.name}" for path in (ROOT / "examples").glob("*.yaml")},
}


class InstalledTree(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = pathlib.Path(tempfile.mkdtemp(prefix="seqpar-install-"))
        cls.addClassCleanup(shutil.rmtree, cls.dir)
        cls.tree = cls.dir / "tree"
        done = subprocess.run(["cmake", "--install", str(BUILD), "--prefix", str(cls.tree)], capture_output=True, text=True,
                              timeout=scaled(120))
        if done.returncode != 0:
            raise AssertionError(f"cmake --install: {done.stdout[-2000:]}{done.stderr[-2000:]}")

    def run_installed(self, program, *args):
        """As somebody who has the tree and neither source nor build."""
        found = {**environment(), "PATH": f"{self.tree / 'bin'}:/usr/bin:/bin", "HOME": str(self.dir)}
        return subprocess.run([program, *map(str, args)], cwd=self.dir, capture_output=True, text=True, timeout=scaled(120),
                              env={name: value for name, value in found.items() if name != "SEQPAR_BIN"})

    def elf_files(self):
        files = [path for path in self.tree.rglob("*") if path.is_file() and path.read_bytes()[:4] == b"\x7fELF"]
        self.assertGreaterEqual(len(files), len(PROGRAMS))
        return files

    def test_programs_are_there_and_say_what_they_are(self):
        self.assertEqual(sorted(path.name for path in (self.tree / "bin").iterdir()), PROGRAMS)
        version = re.search(r"project\(seqpar VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text()).group(1)
        for program in PROGRAMS:
            with self.subTest(program):
                said = self.run_installed(program, "--version")
                self.assertEqual((said.returncode, said.stdout), (0, f"{program} {version}\n"), said.stderr)
                said = self.run_installed(program, "--help")
                self.assertEqual((said.returncode, said.stderr), (0, ""))
                self.assertIn(program, said.stdout)

    def test_it_plans_its_examples(self):
        examples = self.tree / "share/seqpar/examples"
        said = self.run_installed("seqpar", "--server", NOWHERE, "plan", "-f", examples / "job-llama-8b-1m.yaml", "--cluster",
                                  examples / "cluster-8xh100.yaml")
        self.assertEqual(said.returncode, 0, said.stderr)
        self.assertIn("(8 ranks)", said.stdout)

    def test_it_completes_command_lines(self):
        for shell in ("bash", "zsh", "fish"):
            said = self.run_installed("seqpar", "completion", shell)
            self.assertEqual(said.returncode, 0, said.stderr)
            self.assertIn("seqpar", said.stdout)
        script = self.dir / "completion.bash"
        script.write_text(self.run_installed("seqpar", "completion", "bash").stdout)
        checked = self.run_installed("bash", "-n", script)
        self.assertEqual((checked.returncode, checked.stderr), (0, ""))

    def test_nothing_is_looked_for_in_the_build(self):
        for path in self.elf_files():
            said = self.run_installed("readelf", "-d", path).stdout
            self.assertIn("NEEDED", said, path)
            for line in re.findall(r".*\((?:RPATH|RUNPATH|NEEDED)\).*", said):
                for folder in (BUILD, ROOT):
                    self.assertNotIn(str(folder), line, path)

    def test_everything_that_programs_need_is_found(self):
        for program in PROGRAMS:
            said = self.run_installed("ldd", self.tree / "bin" / program)
            self.assertEqual(said.returncode, 0, said.stderr)
            self.assertNotIn("not found", said.stdout, program)

    def test_files_lie_where_they_are_said_to(self):
        for installed, source in FILES.items():
            with self.subTest(installed):
                self.assertEqual((self.tree / installed).read_bytes(), (ROOT / source).read_bytes())
        named = set()
        for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "deploy/systemd").iterdir()]:
            named |= set(re.findall(r"\b((?:share/seqpar|lib/seqpar|lib/systemd|lib/sysusers\.d)/[\w./-]*\w)", page.read_text()))
        self.assertIn("share/seqpar/examples", named)
        for path in sorted(named):
            if path == "lib/seqpar" or path.startswith("lib/seqpar/"):
                continue  # the plug-in is there where the build found CUDA, else not
            self.assertTrue((self.tree / path).exists(), f"documents name {path}")

    def test_the_plug_in_lies_where_the_worker_looks_for_it(self):
        built = BUILD / "lib/libseqpar-cuda.so"
        self.assertEqual((self.tree / "lib/seqpar/libseqpar-cuda.so").exists(), built.exists())


if __name__ == "__main__":
    unittest.main()
