"""A clip file back to pictures: the frames that a model wants, in memory.

The curation pass never needs this (it works on proxies); training the autoencoder and making latents do.
Clip files are our own encodings: square pixels, no rotation, one size.  Frames that are not asked for are
decoded and dropped, since a later frame refers to them.  Cost: one decode plus a conversion per kept frame.
"""

import functools
import os
from collections.abc import Callable, Collection, Iterator
from fractions import Fraction

import av
import numpy as np

from pipelines.video.probe import quarter_turn


def read_frames(
    path: str | os.PathLike[str], *, max_frames: int | None = None, indices: Collection[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures and their times.

    Args:
        max_frames: Stop after this many; None reads all.
        indices: Keep only these frame numbers.

    Returns:
        (time, height, width, 3) uint8 RGB, and (time,) float64 seconds from the first frame.

    Raises:
        OSError: If the file does not open or decode; FFmpeg's own errors are turned into this one.
        ValueError: If it holds no video, or ends before a frame that is asked for.
    """
    try:
        pictures, times = _read(os.fspath(path), max_frames, None if indices is None else set(indices))
    except av.error.FFmpegError as e:
        raise OSError(f"{path} does not decode: {e}") from e
    if not pictures or (indices is not None and len(pictures) < len(set(indices))):
        asked = "a frame" if indices is None else f"{len(set(indices))} frames up to number {max(indices, default=-1)}"
        raise ValueError(f"{path}: asked for {asked}, {len(pictures)} are there")
    return np.stack(pictures), np.array(times, dtype=np.float64)


def _read(path: str, max_frames: int | None, wanted: set[int] | None) -> tuple[list[np.ndarray], list[float]]:
    last = None if wanted is None else max(wanted, default=-1)
    pictures: list[np.ndarray] = []
    times: list[float] = []
    first = 0.0
    with av.open(path) as container:
        if not container.streams.video:
            raise ValueError(f"{path} holds no video")
        stream = container.streams.video[0]
        stream.thread_count = 1  # more threads gain nothing on small clips and cost in parallel workers
        for number, frame in enumerate(container.decode(stream)):
            if (max_frames is not None and number >= max_frames) or (last is not None and number > last):
                break
            if number == 0:
                first = frame.time or 0.0
            if wanted is None or number in wanted:
                pictures.append(frame.to_ndarray(format="rgb24"))
                times.append((frame.time or 0.0) - first)
    return pictures, times


def stream_frames(path: str | os.PathLike[str]) -> Iterator[tuple[float, Callable[[], np.ndarray]]]:
    """Every frame's time in seconds from the first, and how to get its picture, (height, width, 3) uint8 RGB.

    Unlike clip files these may be turned or have pixels that are not square: pictures are as a player shows them.

    Raises:
        OSError: If the file does not open or decode.
        ValueError: If it holds no video.
    """
    try:
        with av.open(os.fspath(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path} holds no video")
            stream = container.streams.video[0]
            stream.thread_count = 1
            first: float | None = None
            for frame in container.decode(stream):
                first = (frame.time or 0.0) if first is None else first
                yield (frame.time or 0.0) - first, functools.partial(_shown, frame, stream.sample_aspect_ratio)
    except av.error.FFmpegError as e:
        raise OSError(f"{path} does not decode: {e}") from e


def _shown(frame: av.VideoFrame, aspect: Fraction | None) -> np.ndarray:
    """A frame's picture with square pixels, the right way up."""
    turn = quarter_turn(frame.rotation)
    if aspect and aspect != 1 and Fraction(1, 8) <= aspect <= 8:  # beyond that it is a damaged header
        frame = frame.reformat(width=max(1, round(frame.width * aspect)), format="rgb24")
    return np.rot90(frame.to_ndarray(format="rgb24"), k=-turn // 90)
