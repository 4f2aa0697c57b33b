"""From what a person asks for to jobs for the generator: size, pictures and layout, and what stands around.

The task follows from what is given: nothing, a picture, a video to extend, to fill, to change in a region, to continue
beyond its edges, to make anew, or two videos to connect.  Lengths are snapped to latent frames: a gap between given
pictures is 4 k - 1 frames (its last latent ends at the first given picture after it), and what a long source has over
the context that the model takes stays outside of the job and is joined again.
"""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from schemas.errors import UsageError
from trainer import canvas as sizing
from trainer.canvas import Canvas
from trainer.sample import Given, first_picture
from trainer.shapes import Compression, PixelShape, ShapeConfig, fit, whole_frames
from trainer.sources import Source, hole_of, open_source
from trainer.tasks import connect, extend_backward, extend_forward, fill_in, regions
from trainer.tasks.base import Chain, Layout, Region


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked for."""

    prompt: str
    prompt_used: str = ""
    """What the model reads, where that is not the prompt itself (an expansion)."""
    width: int | None = None
    """Pixels; None takes the source's shape at the size of training, or a square of that area."""
    height: int | None = None
    frames: int | None = None
    """Of the video, or of what is added to one; wins over `seconds`."""
    seconds: float | None = None
    seed: int = 0
    image: str = ""
    """Picture to set in motion."""
    video: str = ""
    """What `extend`, `gaps`, `box` or `mask`, `outpaint`, `strength` work on."""
    extend: str = ""
    """forward or backward."""
    first: str = ""
    """Video to connect to `second`."""
    second: str = ""
    gaps: tuple[tuple[float, float], ...] = ()
    """Seconds of the video, from and to, that are missing."""
    box: tuple[float, ...] = ()
    """x, y, width, height in the source's own pixels that are made anew."""
    mask: str = ""
    """Picture whose white part says the same."""
    edit: bool = False
    """Whether the box is an edit of what is there, from another prompt."""
    outpaint: tuple[int, ...] = ()
    """Width and height to continue to."""
    loop: bool = False
    strength: float | None = None
    """Noise level that the source (or the edited region's contents) is brought to, (0, 1]."""
    draft: bool = False
    from_draft: bool = False

    def __post_init__(self) -> None:
        if self.extend not in ("", "forward", "backward"):
            raise UsageError(f"a video is extended forward or backward, got `{self.extend}`")
        if self.strength is not None and not 0 < self.strength <= 1:
            raise UsageError(f"strength lies in (0, 1], got {self.strength}")
        if (self.seconds is not None and not self.seconds > 0) or (self.frames is not None and self.frames < 1):
            raise UsageError(f"a length is above 0, got {self.seconds if self.frames is None else self.frames}")
        if self.from_draft and self.task not in ("text_to_video", "image_to_video"):
            raise UsageError(f"a draft leads to a full size for text and image to video, not for {self.task}")

    @property
    def task(self) -> str:
        """Which one it is.

        Raises:
            UsageError: If it is none, or more than one.
        """
        asked = {
            "image_to_video": bool(self.image),
            f"extend_{self.extend}": bool(self.extend),
            "connect": bool(self.first),
            "fill_in": bool(self.gaps),
            "edit_region" if self.edit else "inpaint": bool(self.box or self.mask),
            "outpaint": bool(self.outpaint),
            "loop": self.loop,
        }
        found = [name for name, wanted in asked.items() if wanted]
        if len(found) > 1:
            raise UsageError(f"one task at a time, got {' and '.join(found)}")
        if not found:
            return "video_to_video" if self.video else "text_to_video"
        if found[0] not in ("image_to_video", "connect", "loop") and not self.video:
            raise UsageError(f"{found[0]} needs a video to work on")
        return found[0]


@dataclasses.dataclass(frozen=True, slots=True)
class Bench:
    """What the model and its settings say."""

    sizes: Compression
    fps: float
    shape: ShapeConfig
    max_tokens: int

    @property
    def usual_slots(self) -> int:
        """Latent frames of the longest training sample."""
        return 1 + (self.shape.max_frames - 1) // self.sizes.time


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """One call of the generator, and what is done with its pictures."""

    task: str
    size: Canvas
    slots: int
    tokens: int
    given: Given | None = None
    keep: slice = dataclasses.field(default_factory=lambda: slice(None))
    """Frames that are kept of what is made."""
    before: np.ndarray | None = None
    """Pictures of the source that stand before what is kept."""
    after: np.ndarray | None = None
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Digests of the given files, by role."""
    asked: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What else says what was given: a region, a gap."""
    notes: tuple[str, ...] = ()

    def started_from(self, source: np.ndarray, strength: float) -> "Job":
        """The same, begun from pictures noised to `strength`."""
        given = self.given or Given(self.task, Layout((Chain(0, self.slots),)))
        return dataclasses.replace(self, given=dataclasses.replace(given, source=source, strength=strength))


def jobs(wish: Wish, bench: Bench) -> Iterator[Job]:
    """The jobs of a wish, in order; each after the first goes on from what the one before it left.

    Raises:
        UsageError: If it cannot be met.
    """
    task = wish.task
    if task in ("text_to_video", "loop"):
        yield _from_text(wish, bench)
    elif task == "image_to_video":
        yield _from_image(wish, bench)
    elif task.startswith("extend"):
        yield _extended(wish, bench)
    elif task == "connect":
        yield _connected(wish, bench)
    elif task == "fill_in":
        yield from _filled(wish, bench)
    elif task == "outpaint":
        yield _outpainted(wish, bench)
    else:
        yield _changed(wish, bench)


def _frames(wish: Wish, bench: Bench, usual_s: float = 2.0) -> int:
    """Frames of a video of the asked length."""
    if wish.frames is not None:
        return wish.frames
    return max(1, round((wish.seconds or usual_s) * bench.fps))


def _added(wish: Wish, bench: Bench) -> int:
    """Frames to add to a video."""
    return wish.frames or max(1, round((wish.seconds or 1.0) * bench.fps))


def _size(wish: Wish, bench: Bench, own: tuple[int, int] | None = None) -> Canvas:
    """The canvas: as asked, or the source's shape at the size of training."""
    cell = bench.sizes.cell
    if wish.width and wish.height:
        width, height = wish.width, wish.height
    elif own:
        try:
            fitted = fit(own[0], own[1], bench.usual_slots, bench.shape, bench.sizes)
        except ValueError as e:
            raise UsageError(f"{e}; ask for a --size") from e
        width, height = fitted.width, fitted.height
    else:
        width = height = max(cell, round((bench.shape.max_area or 512 * 512) ** 0.5) // cell * cell)
    if wish.draft:
        width, height = sizing.half(width, height, bench.sizes)
    return sizing.canvas(width, height, bench.sizes)


def _opened(path: str, wish: Wish, bench: Bench, most_s: float | None = None) -> tuple[Source, Canvas]:
    """A source at the canvas that the wish has for it."""
    found: list[Canvas] = []

    def size(width: int, height: int) -> tuple[int, int]:
        found.append(_size(wish, bench, (width, height)))
        return found[0].width, found[0].height

    source = open_source(path, bench.fps, size, most_s)
    return source, found[0]


def _cut(source: Source) -> tuple[str, ...]:
    """What scaling to the canvas left out of the source's picture."""
    rows = round(source.own_height * source.scale) - source.pictures.shape[1]
    columns = round(source.own_width * source.scale) - source.pictures.shape[2]
    if max(rows, columns) <= 0:
        return ()
    return (f"{max(rows, 0)} rows and {max(columns, 0)} columns of the scaled source lie outside of the canvas",)


def _from_text(wish: Wish, bench: Bench) -> Job:
    size, frames, time = _size(wish, bench), _frames(wish, bench), bench.sizes.time
    if not wish.loop:
        slots = sizing.latent_frames(frames, bench.sizes)
        tokens = sizing.check(size, slots, bench.sizes, bench.max_tokens)
        return Job("text_to_video" if frames > 1 else "text_to_image", size, slots, tokens, keep=slice(0, frames))
    slots = 1 + max(2, -(-frames // time))
    tokens = sizing.check(size, slots, bench.sizes, bench.max_tokens)
    given = Given("loop", Layout((Chain(0, slots),)))
    notes = (f"a loop has a multiple of {time} frames: {(slots - 1) * time}",) if (slots - 1) * time != frames else ()
    return Job("loop", size, slots, tokens, given, notes=notes)


def _from_image(wish: Wish, bench: Bench) -> Job:
    source, size = _opened(wish.image, wish, bench)
    frames = _frames(wish, bench)
    slots = max(2, sizing.latent_frames(frames, bench.sizes))
    tokens = sizing.check(size, slots, bench.sizes, bench.max_tokens)
    given, files = first_picture(source.pictures[0], slots), {"image": source.sha256}
    return Job("image_to_video", size, slots, tokens, given, slice(0, frames), files=files, notes=_cut(source))


def _extended(wish: Wish, bench: Bench) -> Job:
    source, size = _opened(wish.video, wish, bench)
    pictures, time = source.pictures, bench.sizes.time
    added = _added(wish, bench)
    new = -(-added // time)
    most = 1 + (len(pictures) - 1) // time
    context = max(1, min(most, bench.usual_slots - new))
    count = 1 + (context - 1) * time
    files, notes = {"video": source.sha256}, _cut(source)
    asked = {"extend": wish.extend}
    if wish.extend == "forward":
        layout = extend_forward.layout(context, new)
        tokens = sizing.check(size, layout.frames, bench.sizes, bench.max_tokens)
        given = Given("extend_forward", layout, (pictures[-count:],))
        keep, before = slice(0, count + added), pictures[:-count]
        return Job(wish.task, size, layout.slots, tokens, given, keep, before, None, files, asked, notes)
    layout = extend_backward.layout(new + 1, context)
    tokens = sizing.check(size, layout.frames, bench.sizes, bench.max_tokens)
    given = Given("extend_backward", layout, (pictures[:count],))
    keep, after = slice(new * time - added, None), pictures[count:]
    return Job(wish.task, size, layout.slots, tokens, given, keep, None, after, files, asked, notes)


def _between(
    task: str, head: np.ndarray, tail: np.ndarray, gap: int, size: Canvas, bench: Bench
) -> tuple[Job, np.ndarray, np.ndarray]:
    """A job for `gap` latent frames between two videos, and what of these stays outside of it."""
    room = max(2, bench.usual_slots + 1 - gap)
    heads = max(1, min(1 + (len(head) - 1) // bench.sizes.time, room - room // 2))
    tails = max(1, min(1 + (len(tail) - 1) // bench.sizes.time, room - heads))
    first, second = 1 + (heads - 1) * bench.sizes.time, 1 + (tails - 1) * bench.sizes.time
    layout = fill_in.layout((heads, tails), (gap,)) if task == "fill_in" else connect.layout(heads, gap, tails)
    tokens = sizing.check(size, layout.frames, bench.sizes, bench.max_tokens)
    given = Given(task, layout, (head[-first:], tail[:second]))
    return Job(task, size, layout.slots, tokens, given), head[:-first], tail[second:]


def _connected(wish: Wish, bench: Bench) -> Job:
    source, size = _opened(wish.first, wish, bench)
    other = open_source(wish.second, bench.fps, lambda w, h: (size.width, size.height))
    time, added = bench.sizes.time, _added(wish, bench)
    gap = max(1, round((added + 1) / time))
    job, before, after = _between("connect", source.pictures, other.pictures, gap, size, bench)
    notes = (*_cut(source), *_cut(other))
    if gap * time - 1 != added:
        notes = (*notes, f"the way between has 4 k - 1 frames: {gap * time - 1} instead of {added}")
    files = {"first": source.sha256, "second": other.sha256}
    return dataclasses.replace(job, before=before, after=after, files=files, notes=notes)


def _filled(wish: Wish, bench: Bench) -> Iterator[Job]:
    """One job per gap; each takes what is before its gap, a filled gap included, as it is."""
    source, size = _opened(wish.video, wish, bench)
    pictures, time = source.pictures, bench.sizes.time
    spans: list[tuple[int, int, int]] = []
    notes = list(_cut(source))
    for start_s, end_s in sorted(wish.gaps):
        start, end = round(start_s * bench.fps), round(end_s * bench.fps)
        gap = max(1, -(-(end - start + 1) // time))
        whole = start + gap * time - 1
        if not 0 < start < end or whole >= len(pictures) or (spans and start <= spans[-1][1]):
            raise UsageError(
                f"a gap lies inside the video ({len(pictures) / bench.fps:.2f} s), after the one before it, got "
                f"{start_s}:{end_s} (frames {start} to {whole} at {bench.fps:g} frames/s)"
            )
        if whole != end:
            notes.append(f"the gap {start_s}:{end_s} is frames {start} to {whole}: {gap * time - 1} are made")
        spans.append((start, whole, gap))
    asked = {"gaps": ",".join(f"{a}:{b}" for a, b in wish.gaps)}
    begin = 0
    for i, (start, end, gap) in enumerate(spans):
        until = len(pictures) if i + 1 == len(spans) else spans[i + 1][0]
        job, before, after = _between("fill_in", pictures[begin:start], pictures[end:until], gap, size, bench)
        if i:  # what is before this gap is there already
            job, before = dataclasses.replace(job, keep=slice(start - begin - len(before), None)), before[:0]
        begin = end
        yield dataclasses.replace(
            job, before=before, after=after, files={"video": source.sha256}, asked=asked, notes=tuple(notes)
        )


def _changed(wish: Wish, bench: Bench) -> Job:
    """A region made anew, or the whole from its rough shape."""
    source, size = _opened(wish.video, wish, bench, wish.seconds)
    frames = whole_frames(min(len(source.pictures), wish.frames or len(source.pictures)), bench.sizes)
    pictures = source.pictures[:frames]
    slots = sizing.latent_frames(frames, bench.sizes)
    tokens = sizing.check(size, slots, bench.sizes, bench.max_tokens)
    files, notes = {"video": source.sha256}, list(_cut(source))
    if frames != len(source.pictures):
        notes.append(
            f"the first {frames} of {len(source.pictures)} frames are used: 1 + a multiple of {bench.sizes.time}"
        )
    if wish.task == "video_to_video":
        given = Given(
            wish.task, Layout((Chain(0, slots),)), (), pictures, 0.6 if wish.strength is None else wish.strength
        )
        asked = {"strength": f"{given.strength:g}"}
        return Job(wish.task, size, slots, tokens, given, files=files, asked=asked, notes=tuple(notes))
    region = _region(wish, source, size, bench.sizes)
    given = Given(wish.task, regions.layout(slots, region), (pictures,))
    if wish.edit and wish.strength is not None:
        given = dataclasses.replace(given, source=pictures, strength=wish.strength)
    cell = bench.sizes.cell
    made = f"{region.left * cell},{region.top * cell},{region.width * cell},{region.height * cell}"
    notes.append(
        f"made anew is {made} (x, y, width, height) of {size.width}x{size.height}: whole cells of {cell} pixels"
    )
    asked = {"region": made}
    return Job(wish.task, size, slots, tokens, given, files=files, asked=asked, notes=tuple(notes))


def _region(wish: Wish, source: Source, size: Canvas, sizes: Compression) -> Region:
    """The box of the wish, from the source's own pixels to cells of the canvas."""
    box, own = tuple(wish.box), (source.own_width, source.own_height)
    if wish.mask:
        *found, mask_width, mask_height = hole_of(wish.mask)
        box, own = tuple(float(n) for n in found), (mask_width, mask_height)
    scale = max(size.width / own[0], size.height / own[1])
    left, top = (own[0] * scale - size.width) / 2, (own[1] * scale - size.height) / 2
    x, y, width, height = (n * scale for n in box)
    if not (0 <= box[0] < box[0] + box[2] <= own[0] and 0 <= box[1] < box[1] + box[3] <= own[1]):
        raise UsageError(f"the region {','.join(f'{n:g}' for n in box)} is not inside {own[0]}x{own[1]}")
    seen = [
        (max(0.0, n - cut), min(most, n + long - cut))
        for n, long, cut, most in ((x, width, left, size.width), (y, height, top, size.height))
    ]  # what the canvas shows of it
    (x, right), (y, bottom) = seen
    return sizing.box_of(x, y, right - x, bottom - y, PixelShape(1, size.height, size.width), sizes)


def _outpainted(wish: Wish, bench: Bench) -> Job:
    """The source, scaled to lie inside, on whole cells in the middle of a larger canvas."""
    cell, (width, height) = bench.sizes.cell, wish.outpaint
    if wish.draft:
        width, height = sizing.half(width, height, bench.sizes)
    size = sizing.canvas(width, height, bench.sizes)

    def inside(own_width: int, own_height: int) -> tuple[int, int]:
        scale = min(size.width / own_width, size.height / own_height, 1.0)
        wide, tall = (max(1, int(n * scale / cell + 1e-9)) * cell for n in (own_width, own_height))
        return min(wide, size.width), min(tall, size.height)

    source = open_source(wish.video, bench.fps, inside, wish.seconds)
    frames = whole_frames(len(source.pictures), bench.sizes)
    slots = sizing.latent_frames(frames, bench.sizes)
    tokens = sizing.check(size, slots, bench.sizes, bench.max_tokens)
    tall, wide = source.pictures.shape[1] // cell, source.pictures.shape[2] // cell
    top, left = (size.height // cell - tall) // 2, (size.width // cell - wide) // 2
    if (tall, wide) == (size.height // cell, size.width // cell):
        raise UsageError(f"the video fills {size.width}x{size.height} already: ask for a size of another shape")
    board = np.full((frames, size.height, size.width, 3), 128, np.uint8)
    rows, columns = slice(top * cell, (top + tall) * cell), slice(left * cell, (left + wide) * cell)
    board[:, rows, columns] = source.pictures[:frames]
    given = Given("outpaint", regions.layout(slots, Region(top, left, tall, wide, inside=True)), (board,))
    asked = {"source_at": f"{columns.start},{rows.start},{wide * cell},{tall * cell}"}
    return Job("outpaint", size, slots, tokens, given, files={"video": source.sha256}, asked=asked, notes=_cut(source))
