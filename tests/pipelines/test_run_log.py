"""A resumed run's curve is that of an undisturbed one; TensorBoard reads the same numbers."""

from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from pipelines.execute import RunLog
from pipelines.run_log import LINES, read_lines
from schemas.store import Store


def events(folder: Path) -> list[Event]:
    """The events of all files of a folder: records of length (8), its crc (4), the event, its crc (4)."""
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            found.append(Event.FromString(data[12 : 12 + size]))
            data = data[16 + size :]
    return found


def log_steps(store: Store, first: int, last: int, known: int) -> Path:
    with RunLog(store, "dit", "abc", known) as log:
        for step in range(first, last + 1):
            log.add(step, {"loss": 1 / step, "rate": step / 10})
        return log.folder


def test_both_files_say_the_same(tmp_path: Path) -> None:
    folder = log_steps(Store(str(tmp_path)), 1, 3, 0)
    assert folder == tmp_path / "logs" / "dit" / "abc"
    lines = read_lines(folder / LINES)
    assert lines == [{"step": s, "loss": 1 / s, "rate": s / 10} for s in (1, 2, 3)]
    shown = {(e.step, v.tag): v.simple_value for e in events(folder) for v in e.summary.value}
    assert shown == pytest.approx({(line["step"], tag): line[tag] for line in lines for tag in ("loss", "rate")})


def test_a_resumed_run_has_the_lines_of_an_undisturbed_one(tmp_path: Path) -> None:
    whole = log_steps(Store(str(tmp_path / "whole")), 1, 9, 0)
    store = Store(str(tmp_path / "killed"))
    killed = log_steps(store, 1, 6, 0)
    with (killed / LINES).open("a") as f:
        f.write('{"step": 7, "lo')  # killed in the middle of a line
    log_steps(store, 5, 9, 4)  # the snapshot knew four steps
    assert (killed / LINES).read_bytes() == (whole / LINES).read_bytes()
    starts = [e.step for e in events(killed) if e.HasField("session_log")]
    assert 5 in starts, "TensorBoard is told to forget steps from 5 on"


def test_a_run_that_starts_anew_forgets_the_old_one(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    log_steps(store, 1, 5, 0)
    folder = log_steps(store, 1, 2, 0)
    assert [line["step"] for line in read_lines(folder / LINES)] == [1, 2]
    assert max(e.step for e in events(folder)) == 2


def test_what_is_not_finite_does_not_break_the_json(tmp_path: Path) -> None:
    with RunLog(Store(str(tmp_path)), "dit", "abc") as log:
        log.add(1, {"loss": float("nan"), "rate": 1.0})
    assert read_lines(log.folder / LINES) == [{"step": 1, "rate": 1.0}]


def test_a_remote_root_gets_both_files(tmp_path: Path) -> None:
    store = Store("memory://run-log")
    log_steps(store, 1, 2, 0)
    log_steps(store, 2, 3, 1)
    text = store.read_bytes("logs", "dit", "abc", LINES).decode()
    assert [line.split(",")[0] for line in text.splitlines()] == ['{"step": 1', '{"step": 2', '{"step": 3']
