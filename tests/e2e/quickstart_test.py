"""scripts/quickstart as a user runs it: to its end, and interrupted at several points, which leaves nothing running."""
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import threading
import unittest

from harness import BIN, scaled, wait_for

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = BIN.parent
STATE = BUILD / "quickstart" / "state"


def left_running():
    """Command lines of processes that work on the quickstart's folder, executors of its worker among them."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environ = pathlib.Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
            state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        ours = str(STATE) in command or f"SEQPAR_QUICKSTART_TEST={os.getpid()}\0" in environ
        if ours and state != "Z" and int(pid) != os.getpid():
            found.append(f"{pid}: {command}")
    return found


class Quickstart(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="seqpar-quickstart-"))
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.text = self.dir / "text"
        self.text.write_bytes(b"A text that is long enough to be seen at work, and no longer. " * 160)
        self.lines = []

    def start(self):
        env = {k: v for k, v in os.environ.items() if not k.startswith("SEQPAR_")}
        # Inherited by whatever the script starts: what is left of it is found by this.
        env["SEQPAR_QUICKSTART_TEST"] = str(os.getpid())
        script = subprocess.Popen([str(ROOT / "scripts/quickstart"), "--build", str(BUILD), "--text", str(self.text)],
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env,
                                  start_new_session=True)
        reader = threading.Thread(target=lambda: self.lines.extend(iter(script.stdout.readline, "")))
        reader.start()
        # Last first: whatever still runs is killed, and with it ends what the reader reads.
        self.addCleanup(script.stdout.close)
        self.addCleanup(reader.join)
        self.addCleanup(script.wait)
        self.addCleanup(lambda: script.poll() is None and os.killpg(script.pid, signal.SIGKILL))
        return script

    def ended(self, script):
        code = script.wait(scaled(240))
        wait_for(lambda: not left_running(), f"nothing to be left running: {left_running()}", 30)
        return code

    def interrupt_at(self, mark, presses=1):
        script = self.start()
        wait_for(lambda: any(mark in line for line in self.lines) or script.poll() is not None, mark, 240)
        for _ in range(presses):
            os.killpg(script.pid, signal.SIGINT)  # what a terminal sends for Ctrl-C: to the whole group
        self.assertEqual(self.ended(script), 130, "".join(self.lines))

    def test_to_the_end(self):
        script = self.start()
        self.assertEqual(self.ended(script), 0, "".join(self.lines))
        text = "".join(self.lines)
        for word in ("verification  passed", "tokens/s", "predicted", "considered"):
            self.assertIn(word, text)

    def test_interrupted_at_any_point_leaves_nothing(self):
        for mark in ("== build", "== input", "== start", "== the plan", "== the job", "submitted", "RUNNING"):
            with self.subTest(mark=mark):
                self.lines = []
                self.interrupt_at(mark)

    def test_pressed_again_while_it_cleans_up(self):
        self.interrupt_at("RUNNING", presses=3)


if __name__ == "__main__":
    unittest.main()
