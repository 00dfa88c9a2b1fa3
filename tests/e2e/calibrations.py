"""What slots were measured to do, handed from one test's worker to the next: measuring takes seconds, under a sanitizer
minutes. A worker whose slots, build or processor are others measures anew, whatever it finds (worker/daemon/calibration.h).
"""
import os
import pathlib
import shutil
import tempfile

FILE = "calibration.json"


class Calibrations:
    """Kept beside the build's binaries, by number of slots; those of an older build of the worker count for nothing."""

    def __init__(self, binaries):
        self.folder = binaries.parent / "test-calibrations"
        self.worker = binaries / "seqpar-worker"

    def _kept(self, slots):
        return self.folder / f"{slots}.json"

    def _serves(self, slots):
        try:
            return self._kept(slots).stat().st_mtime > self.worker.stat().st_mtime
        except OSError:
            return False

    def lend(self, slots, state_dir):
        """Into the folder of a worker that is about to start for the first time."""
        state_dir = pathlib.Path(state_dir)
        if not state_dir.exists() and self._serves(slots):
            state_dir.mkdir(mode=0o700, parents=True)
            shutil.copyfile(self._kept(slots), state_dir / FILE)

    def keep(self, slots, state_dir):
        """What a worker measured, unless that is known already."""
        measured = pathlib.Path(state_dir) / FILE
        if self._serves(slots) or not measured.exists():
            return
        try:
            self.folder.mkdir(exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as file:
                file.write(measured.read_bytes())
            os.replace(file.name, self._kept(slots))
        except OSError:
            pass  # binaries of somebody else's: each worker measures
