"""Writing: what goes in comes out, the same bytes each time, and never half a file."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipelines.video.read import read_frames
from pipelines.video.write import write_video

FRAMES = np.stack([np.full((48, 64, 3), (40 + 20 * i, 100, 200 - 20 * i), np.uint8) for i in range(7)])
KINDS = [(".mp4", "h264"), (".mkv", "h264"), (".mkv", "vp9"), (".webm", "vp9")]


@pytest.mark.parametrize(("suffix", "codec"), KINDS)
@pytest.mark.parametrize("fps", [24, Fraction(30000, 1001), 12.5])
def test_frames_and_rate_come_back(tmp_path: Path, suffix: str, codec: str, fps: Fraction | float) -> None:
    path = str(tmp_path / f"a{suffix}")
    assert write_video(path, FRAMES, fps, codec) == 7
    read, times = read_frames(path)
    assert read.shape == FRAMES.shape
    assert np.abs(read.astype(int) - FRAMES).max() <= 12
    assert times[-1] == pytest.approx(6 / float(fps), abs=2e-3)
    with av.open(path) as container:
        assert container.streams.video[0].codec_context.name.startswith(codec)


@pytest.mark.parametrize(("suffix", "codec"), KINDS)
def test_the_same_pictures_give_the_same_bytes(tmp_path: Path, suffix: str, codec: str) -> None:
    for name in "ab":
        write_video(str(tmp_path / f"{name}{suffix}"), iter(FRAMES), 15, codec)
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_a_writer_that_fails_leaves_the_old_file_and_no_trace(tmp_path: Path) -> None:
    def breaks() -> Iterator[np.ndarray]:
        yield FRAMES[0]
        raise RuntimeError("out of frames")

    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="out of frames"):
        write_video(str(path), breaks(), 24)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="even sides"):
        write_video(str(tmp_path / "a.mp4"), FRAMES[:, :47], 24)
    with pytest.raises(ValueError, match="at least one frame"):
        write_video(str(tmp_path / "a.mp4"), FRAMES[:0], 24)
    with pytest.raises(ValueError, match="one size"):
        write_video(str(tmp_path / "a.mp4"), [FRAMES[0], FRAMES[0][:24]], 24)
    with pytest.raises(ValueError, match=r"\.mp4"):
        write_video(str(tmp_path / "a.gif"), FRAMES, 24)
    with pytest.raises(ValueError, match="no encoder"):
        write_video(str(tmp_path / "a.mp4"), FRAMES, 24, "theora")
    assert list(tmp_path.iterdir()) == []
