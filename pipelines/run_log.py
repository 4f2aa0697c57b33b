"""The curve of a training run, written twice: JSON lines for programs, TensorBoard event files for eyes.

    <root>/logs/<stage>/<run>/metrics.jsonl           {"step": 12, "loss": 0.7, ...}, one line per logged step
    <root>/logs/<stage>/<run>/events.out.tfevents.*   the same numbers; `tensorboard --logdir <root>/logs`

A killed run has usually logged steps that its last snapshot does not hold.  Who resumes says how many steps the
snapshot knows: later lines are dropped and TensorBoard is told to forget what came after, so that a resumed run's curve
is the curve of an undisturbed one, byte for byte in the JSON lines (no clock is written there).

Used by every trainer through `pipelines.execute`.  The writer is tensorboardX's: it needs no TensorBoard installed.
Cost: about 0.1 ms a step.  Under a root that is no local folder the files are written locally and put there by `close`.
"""

import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from schemas.store import Store

LINES = "metrics.jsonl"
_FLUSH_S = 5


class RunLog:
    """Numbers over steps; a context manager."""

    def __init__(self, store: Store, stage: str, run: str, known_steps: int = 0) -> None:
        """
        Args:
            run: Name of the run; the same name goes on in the same files.
            known_steps: Steps that the snapshot holds; what is logged beyond them is dropped. 0 starts anew.
        """
        from tensorboardX import SummaryWriter

        self._store, self._parts = store, ("logs", stage, run)
        self.folder = Path(store.at(*self._parts)) if store.is_local else Path(store.scratch()) / run
        self.folder.mkdir(parents=True, exist_ok=True)
        if not store.is_local and known_steps and store.exists(*self._parts, LINES):
            (self.folder / LINES).write_bytes(store.read_bytes(*self._parts, LINES))
        self._lines = _cut(self.folder / LINES, known_steps)
        if not known_steps:
            for events in self.folder.glob("events.out.tfevents.*"):
                events.unlink()
        self._events: Any = SummaryWriter(
            str(self.folder), purge_step=known_steps + 1 if known_steps else None, flush_secs=_FLUSH_S
        )

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log the numbers of a step, counted from 1; what is not finite is left out of the JSON line."""
        plain = {name: float(value) for name, value in numbers.items()}
        finite = {name: value for name, value in plain.items() if math.isfinite(value)}
        self._lines.write(json.dumps({"step": step, **finite}) + "\n")
        self._lines.flush()
        for name, value in plain.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        if self._lines.closed:
            return
        self._lines.close()
        self._events.close()
        if not self._store.is_local:
            for file in sorted(self.folder.iterdir()):
                self._store.write_bytes(file.read_bytes(), *self._parts, file.name)
            shutil.rmtree(self.folder.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def read_lines(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The logged steps in order; a last line that was cut short by a kill is passed over."""
    found = []
    for text in Path(path).read_text().splitlines():
        try:
            found.append(json.loads(text))
        except ValueError:
            break
    return found


def _cut(path: Path, known_steps: int) -> IO[str]:
    """The file, open at its end, without the lines after `known_steps`."""
    kept = [line for line in read_lines(path) if line["step"] <= known_steps] if known_steps and path.exists() else []
    staged = path.with_suffix(".staged")
    staged.write_text("".join(json.dumps(line) + "\n" for line in kept))
    os.replace(staged, path)
    return path.open("a")
