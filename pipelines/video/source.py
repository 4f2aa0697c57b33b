"""Finding source files and opening them with every limit that libav has.

A file is judged by its bytes, never by its name: any file in the folder is a candidate, whatever its
extension.  Left out are hidden files, `_SUCCESS` markers and sidecars (.txt, .json, .csv).

What is opened is untrusted.  `file:` keeps a name such as `a:b.mp4` from being read as a protocol, the
protocol whitelist keeps a playlist from reaching the network, `pattern_type` keeps `%d` in a name from
naming other files, `max_pixels` stops a picture that would fill the memory, and the time-outs end a read
that hangs.  Cost: a few milliseconds per file.
"""

import contextlib
import dataclasses
import os
import posixpath
from collections.abc import Iterator
from typing import Any

import av
import av.logging
import fsspec

from schemas.errors import FootageError

SIDECARS = (".txt", ".json", ".csv")
_NOT_FOOTAGE = {"tty", "hls", "concat", "dash", "sdp", "rtsp", "lavfi", "lrc"}  # text or playlists, not pictures
_IMAGE_BRANDS = {"avif", "avis", "mif1", "heic", "heix"}


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Listed:
    """One file of a folder, as the file system describes it."""

    path: str
    """Relative to the folder, with forward slashes."""
    size_bytes: int
    changed: str
    """Modification time or entity tag: whatever tells that the content may be new."""


class NotFootage(Exception):
    """The container is text or a playlist, or there is no plain file of that name."""


def is_url(folder: str) -> bool:
    return "://" in folder


def join(folder: str, path: str) -> str:
    """Full path of a listed file."""
    return posixpath.join(folder, path)


def list_files(folder: str) -> list[Listed]:
    """Every file under a folder, sorted by path; the folder may hold none.

    Dangling links, pipes and names that are not UTF-8 are listed too: they end as rows that say what is wrong.

    Raises:
        FootageError: If the folder is missing or not a folder.
    """
    if is_url(folder):
        return _list_remote(folder)
    if not os.path.isdir(folder):
        kind = "is not a folder" if os.path.exists(folder) else "does not exist"
        raise FootageError(f"footage folder {folder} {kind}")
    found = []
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in names:
            if name.startswith(".") or name == "_SUCCESS":
                continue
            full = os.path.join(base, name)
            relative = os.path.relpath(full, folder).replace(os.sep, "/")
            size, changed = state(folder, relative)
            found.append(Listed(os.fsencode(relative).decode("utf-8", "backslashreplace"), size, changed))
    return sorted(found)


def state(folder: str, path: str) -> tuple[int, str]:
    """Size and modification time of a local file; of a dangling link, or of one that has just gone, 0 and nothing."""
    try:
        stat = os.stat(join(folder, path))
    except OSError:
        return 0, ""
    return stat.st_size, str(stat.st_mtime_ns)


def _list_remote(folder: str) -> list[Listed]:
    fs, root = fsspec.core.url_to_fs(folder)
    if not fs.isdir(root):
        raise FootageError(f"footage folder {folder} does not exist")
    found = []
    for full, info in fs.find(root, detail=True).items():
        relative = posixpath.relpath(full, root)
        if any(p.startswith(".") for p in relative.split("/")) or posixpath.basename(relative) == "_SUCCESS":
            continue
        changed = info.get("ETag") or info.get("mtime") or info.get("LastModified") or ""
        found.append(Listed(relative, int(info["size"]), str(changed)))
    return sorted(found)


def videos_and_sidecars(listed: list[Listed]) -> tuple[list[Listed], dict[str, Listed]]:
    """Split a listing into candidates for footage and the texts that stand beside them (by path)."""
    sidecars = {f.path: f for f in listed if f.path.lower().endswith(SIDECARS)}
    return [f for f in listed if f.path not in sidecars], sidecars


@contextlib.contextmanager
def open_bytes(folder: str, path: str) -> Iterator[Any]:
    """The file's bytes, for hashing and for sidecars."""
    full = join(folder, path)
    with fsspec.open(full, "rb") if is_url(folder) else open(full, "rb") as f:
        yield f


@contextlib.contextmanager
def listening() -> Iterator[list[tuple[int, str, str]]]:
    """libav's complaints on this thread as (level, who, text): it conceals errors and tells only its log.

    Repeated messages must be kept: else what is heard of one file depends on the file before it.
    """
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    with av.logging.Capture() as log:
        yield log


@contextlib.contextmanager
def open_container(folder: str, path: str, timeout_s: float) -> Iterator[Any]:
    """A libav container over the file, closed at the end (an unclosed one leaks its buffers).

    Raises:
        av.error.FFmpegError: If no demuxer takes it.
        NotFootage: If the demuxer is one of text or of playlists, or the file is not a plain one.
    """
    _check_plain(folder, path)
    options = {"pattern_type": "none", "protocol_whitelist": "file"}
    remote = is_url(folder)
    with contextlib.ExitStack() as stack:
        name = stack.enter_context(open_bytes(folder, path)) if remote else "file:" + join(folder, path)
        limits = None if remote else (timeout_s, timeout_s)
        container = stack.enter_context(av.open(name, mode="r", options=options, timeout=limits))
        names = set(container.format.name.split(","))
        if names & _NOT_FOOTAGE:
            raise NotFootage(f"a file of format {container.format.name} is not footage")
        yield container


def _check_plain(folder: str, path: str) -> None:
    """Reading a pipe or a device would never end."""
    full = join(folder, path)
    if is_url(folder) or os.path.isfile(full):
        return
    if os.path.islink(full) and not os.path.exists(full):
        raise NotFootage("the link leads nowhere")
    if os.path.exists(full):
        raise NotFootage("not a plain file")
    raise NotFootage("the file is gone, or its name is not UTF-8: rename it")


def is_image(container: Any) -> bool:
    """Whether the container holds a still picture (by its demuxer, not by its name)."""
    names = container.format.name.split(",")
    if any(n == "image2" or n.endswith("_pipe") for n in names):
        return True
    return container.metadata.get("major_brand", "").strip().lower() in _IMAGE_BRANDS


def choose_stream(container: Any, image: bool) -> tuple[Any | None, str]:
    """The stream to take, and why if there was a choice: the first video that has a decoder.

    A cover picture inside an audio file is no video, nor are the thumbnails that some cameras add.
    """
    pictures = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    videos = [s for s in container.streams.video if image or not int(s.disposition) & int(pictures)]
    if not videos:
        return None, ""
    known = [s for s in videos if s.codec_context is not None]
    if len(videos) == 1 or not known:
        return videos[0], ""
    decodes = "" if known[0] is videos[0] else " that has a decoder"
    return known[0], f"the first of {len(videos)} video streams{decodes}"


def video_stream(container: Any, image: bool) -> Any | None:
    """The stream to take; None if there is no video."""
    return choose_stream(container, image)[0]


def prepare(stream: Any, max_pixels: int) -> None:
    """One thread per worker (workers are the parallelism), and a hard cap on the picture."""
    context = stream.codec_context
    context.thread_count = 1
    context.options = {"max_pixels": str(max_pixels)}
