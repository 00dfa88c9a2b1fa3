"""The life of a job as it happens: a redrawn line on a terminal, a redrawn cell output in a notebook, else nothing."""
from __future__ import annotations

import importlib
import shutil
import sys
from typing import Any, Callable, Optional, TextIO, Union

from seqpar.types import JobInfo, describe

ProgressLike = Union[None, bool, Callable[[JobInfo], None]]
_BAR = 24


def bar(job: JobInfo, width: int = _BAR) -> str:
    """"[######------]": the attempt's predicted work done, all of it once the job has succeeded."""
    fraction = 1.0 if job.state.value == "succeeded" else min(max(job.progress.percent / 100, 0.0), 1.0)
    done = int(fraction * width)
    return "[" + "#" * done + "-" * (width - done) + "]"


class Display:
    """Shows a job; `close` leaves what was shown last."""

    def show(self, job: JobInfo) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass


class Callback(Display):
    def __init__(self, call: Callable[[JobInfo], None]) -> None:
        self._call = call

    def show(self, job: JobInfo) -> None:
        self._call(job)


class Silent(Display):
    def show(self, job: JobInfo) -> None:
        pass


class Terminal(Display):
    """One line, redrawn."""

    def __init__(self, stream: TextIO, columns: Optional[int] = None) -> None:
        self._stream = stream
        self._columns = columns or shutil.get_terminal_size().columns
        self._shown = False

    def show(self, job: JobInfo) -> None:
        # One column less than there are: a full line would wrap and could not be erased.
        line = f"{bar(job)} {describe(job)}"[:self._columns - 1]
        self._stream.write(f"\r\x1b[2K{line}")
        self._stream.flush()
        self._shown = True

    def close(self) -> None:
        if self._shown:
            self._stream.write("\n")
            self._stream.flush()


class Plain(Display):
    """A line for each change of state or phase: for logs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last: Any = None

    def show(self, job: JobInfo) -> None:
        key = (job.state, job.phase, job.attempt, job.reason)
        if key != self._last:
            self._last = key
            self._stream.write(describe(job) + "\n")
            self._stream.flush()


class Notebook(Display):
    """The output of a cell, redrawn in place: a progress bar of HTML, text where there is no HTML."""

    def __init__(self, display: Callable[..., Any]) -> None:
        self._display = display
        self._handle: Any = None

    def show(self, job: JobInfo) -> None:
        import html
        percent = 100.0 if job.state.value == "succeeded" else job.progress.percent
        text = describe(job)
        data = {"text/plain": f"{bar(job)} {text}",
                "text/html": f'<progress max="100" value="{percent:.1f}"></progress> {html.escape(text)}'}
        if self._handle is None:
            self._handle = self._display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)


def display_for(progress: ProgressLike, stream: Optional[TextIO] = None) -> Display:
    """None: a notebook's or a terminal's where there is one, else silent. True: lines where there is neither. A callable gets
    each change."""
    if callable(progress):
        return Callback(progress)
    if progress is False:
        return Silent()
    display = _notebook_display()
    if display is not None:
        return Notebook(display)
    stream = stream or sys.stderr
    if stream.isatty():
        return Terminal(stream)
    return Plain(stream) if progress else Silent()


def _notebook_display() -> Optional[Callable[..., Any]]:
    """IPython's display function inside a notebook's kernel. IPython is there already or not asked for."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    display: Callable[..., Any] = importlib.import_module("IPython.display").display
    return display
