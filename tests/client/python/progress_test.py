"""What is shown of a job on a terminal, in a notebook and in a log."""
import io
import sys
import types
import unittest
from unittest import mock

from seqpar import JobInfo
from seqpar import progress
from seqpar.v1 import job_pb2


def running(percent, **fields):
    at = job_pb2.Progress(layer=1, layers=2, percent=percent, seconds_left=12.34, **{"pass": "backward"})
    return JobInfo(job_pb2.Job(id="j-1", state=job_pb2.JOB_STATE_RUNNING, phase=job_pb2.JOB_PHASE_EXECUTE, progress=at,
                               **fields))


DONE = JobInfo(job_pb2.Job(id="j-1", state=job_pb2.JOB_STATE_SUCCEEDED, phase=job_pb2.JOB_PHASE_REPORT))
WAITS = JobInfo(job_pb2.Job(id="j-1", state=job_pb2.JOB_STATE_PENDING, reason="waits for 6 <devices>"))


class Stream(io.StringIO):
    def __init__(self, tty):
        super().__init__()
        self.tty = tty

    def isatty(self):
        return self.tty


class Shown(unittest.TestCase):
    def test_a_terminal_has_one_line(self):
        stream = Stream(True)
        display = progress.Terminal(stream, columns=80)
        display.show(running(50, attempt=2))
        line = "[############------------] j-1 RUNNING execute attempt 2 backward layer 1/2 50.0% 12.3 s left"
        self.assertEqual(stream.getvalue(), "\r\x1b[2K" + line[:79])
        display.show(DONE)
        display.close()
        self.assertTrue(stream.getvalue().endswith("\r\x1b[2K[########################] j-1 SUCCEEDED\n"))
        self.assertEqual(stream.getvalue().count("\n"), 1)

    def test_a_wide_terminal_has_all_of_it(self):
        stream = Stream(True)
        progress.Terminal(stream, columns=200).show(running(50))
        self.assertIn("layer 1/2 50.0% 12.3 s left", stream.getvalue())

    def test_a_log_has_a_line_for_each_change_and_only_where_asked_for(self):
        stream = Stream(False)
        display = progress.display_for(True, stream)
        for job in (WAITS, running(10), running(20), DONE):
            display.show(job)
        self.assertEqual([line.split()[1] for line in stream.getvalue().splitlines()], ["PENDING", "RUNNING", "SUCCEEDED"])
        silent = Stream(False)
        progress.display_for(None, silent).show(DONE)
        progress.display_for(False, Stream(True)).show(DONE)
        self.assertEqual(silent.getvalue(), "")

    def test_a_callable_gets_each_change(self):
        seen = []
        progress.display_for(seen.append).show(DONE)
        self.assertEqual(seen, [DONE])

    def test_a_notebook_redraws_its_cell(self):
        """By the interface that IPython documents for display handles; IPython itself is not there."""
        handle = mock.Mock()
        ipython = types.ModuleType("IPython")
        ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object())
        ipython.display = types.ModuleType("IPython.display")
        ipython.display.display = mock.Mock(return_value=handle)
        with mock.patch.dict(sys.modules, {"IPython": ipython, "IPython.display": ipython.display}):
            display = progress.display_for(None, Stream(True))
            display.show(WAITS)
            display.show(running(42))
        (data,), options = ipython.display.display.call_args
        self.assertEqual(options, {"raw": True, "display_id": True})
        self.assertIn("waits for 6 &lt;devices&gt;", data["text/html"])
        (data,), options = handle.update.call_args
        self.assertIn('value="42.0"', data["text/html"])
        self.assertIn("42.0%", data["text/plain"])

    def test_ipython_in_a_terminal_is_a_terminal(self):
        ipython = types.ModuleType("IPython")
        ipython.get_ipython = lambda: types.SimpleNamespace()
        with mock.patch.dict(sys.modules, {"IPython": ipython}):
            self.assertIsInstance(progress.display_for(None, Stream(True)), progress.Terminal)


if __name__ == "__main__":
    unittest.main()
