"""A long video in parts: each is decoded by whichever worker is free, and joined to the rows of one pass, bit for bit.

A part leaves the numbers of its frames, with thumbnails, and candidates for proxies (`proxy_grid.py`).
Joining puts the numbers end to end, takes from each part's overlap what the first frame of the next one needs to
know of the frame before it, looks for boundaries over the whole, and keeps the proxies that the whole would choose.
The overlap is also the proof: where a part that started cold measures other numbers than the one that came from
before, where seams do not meet, or where a part is unfit (`video/decode_part.py`), nothing is joined and the
video is decoded in one go, which `decode_passes` then says.

Cost beside the pass: 0.4 kB per frame carried to the join, and up to 40 s of spare proxies per part.
"""

import dataclasses
import itertools
from fractions import Fraction

import numpy as np
import pyarrow as pa

from pipelines.scan.one_pass import Gatherer, rule_of
from pipelines.scan.proxy_grid import ProxyGrid
from pipelines.scan.scan import ScanConfig, scan_row, scan_rows, signals_row
from pipelines.shots.boundaries import Times
from pipelines.shots.signals import THUMB_BYTES, SignalCurves
from pipelines.video.decode import NO_PRESENTATION_TIMES
from pipelines.video.decode_part import Part, PartPass, decode_part
from schemas.table import Table, column
from schemas.videos import FRAMES, SCANS, SIGNALS, Video, VideoStatus

_CURVES = ("luma", "contrast", "saturation", "sharpness", "difference", "change")
_TO_THE_FRAME_BEFORE = ("difference", "change")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ScanPart:
    """What one part of a video left; it never leaves the stage `scan`."""

    video_id: str = column("The video.")
    part: int = column("Position among the video's parts.")
    unfit: str = column("Why the parts cannot be joined; empty if they can.")
    start_pts: int | None = column("Its key frame; null for the first part and where there is none.")
    seam_pts: int | None = column("The next part's key frame; null if the file ended first.")
    end_pts: int = column("When its last frame ends.")
    time_base_num: int = column("Time base, numerator.", unit="s")
    time_base_den: int = column("Time base, denominator.")
    small: list[int] = column("Width and height of the small picture.", unit="pixel")
    pts: list[int] = column("Time of each frame, those past the seam included.")
    luma: list[float] = column("As in `signals`.", arrow=pa.list_(pa.float32()))
    contrast: list[float] = column("As in `signals`.", arrow=pa.list_(pa.float32()))
    saturation: list[float] = column("As in `signals`.", arrow=pa.list_(pa.float32()))
    sharpness: list[float] = column("As in `signals`.", arrow=pa.list_(pa.float32()))
    difference: list[float] = column("As in `signals`.", arrow=pa.list_(pa.float32()))
    change: list[float] = column("PySceneDetect's `content_val`.", arrow=pa.list_(pa.float32()))
    thumbs: bytes = column("Thumbnails of all frames, end to end.")


SCAN_PARTS = Table("scan_parts", ScanPart, ("video_id", "part"), doc="Parts of long videos, before they are joined.")


def plan(video: Video, config: ScanConfig) -> list[Part | None]:
    """The parts of a video; None stands for all of it in one go."""
    short = video.is_image or video.duration_s <= 1.5 * config.part_s
    short = short or video.num_packets < video.duration_s  # damaged times: a span of years is not worth a million parts
    whole = short or video.status != VideoStatus.OK or video.container in NO_PRESENTATION_TIMES
    count = 1 if whole else max(2, round(video.duration_s / config.part_s))
    overlap = config.cuts.window_frames + 2
    return [None] if whole else [Part(index=i, count=count, length_s=config.part_s, overlap=overlap)
                                 for i in range(count)]  # fmt: skip


def scan_part(video: Video, part: Part, config: ScanConfig) -> dict[str, pa.Table]:
    """One part's numbers, and its candidates for proxies (their `frame_index` counts from the part's first frame)."""
    outcome = PartPass()
    gatherer: Gatherer | None = None
    for frame in decode_part(video.folder, video.path, config.limits, config.deadline_s, part, outcome):
        if gatherer is None:
            gatherer = Gatherer(video, config, outcome.time_base, frame.picture, is_start=part.index == 0)
        gatherer.add(frame)
    if gatherer is not None and not outcome.unfit:
        gatherer.finish(is_end=outcome.seam_pts is None)
    row = _row(video, part, outcome, None if outcome.unfit else gatherer)
    own = [p for p in gatherer.proxies if outcome.seam_pts is None or p.pts < outcome.seam_pts] if gatherer else []
    return {
        SCANS.name: SCANS.empty(),
        SIGNALS.name: SIGNALS.empty(),
        FRAMES.name: FRAMES.from_rows([] if outcome.unfit else own),
        SCAN_PARTS.name: SCAN_PARTS.from_rows([row]),
    }


def unfit_part(video: Video, part: Part, reason: str) -> dict[str, pa.Table]:
    """Rows of a part that raised or killed its worker."""
    row = _row(video, part, PartPass(stopped=reason), None)
    return {**{t.name: t.empty() for t in (SCANS, SIGNALS, FRAMES)}, SCAN_PARTS.name: SCAN_PARTS.from_rows([row])}


def _row(video: Video, part: Part, outcome: PartPass, gatherer: Gatherer | None) -> ScanPart:
    curves = gatherer.meter.curves() if gatherer else None
    return ScanPart(
        video_id=video.video_id,
        part=part.index,
        unfit=outcome.unfit,
        start_pts=outcome.start_pts,
        seam_pts=outcome.seam_pts,
        end_pts=gatherer.end_pts if gatherer else 0,
        time_base_num=outcome.time_base.numerator,
        time_base_den=outcome.time_base.denominator,
        small=list(gatherer.small_size) if gatherer else [],
        pts=curves.pts.tolist() if curves else [],
        thumbs=curves.thumbs.tobytes() if curves else b"",
        **{name: getattr(curves, name).tolist() if curves else [] for name in _CURVES},
    )


class CannotJoin(Exception):
    """Why the parts are not those of one pass."""


def join(video: Video, parts: pa.Table, candidates: pa.Table, config: ScanConfig) -> dict[str, pa.Table]:
    """All rows of a video from its parts.

    Args:
        parts: Rows of `scan_parts` of this video, in order.
        candidates: All frames that its parts kept.

    Raises:
        CannotJoin: With the reason.
    """
    rows = [_Measured.of(parts, i) for i in range(parts.num_rows)]
    _check(rows)
    whole = _end_to_end(rows)
    base = rows[0].time_base
    last = [r for r in rows if len(r.curves.pts)][-1]
    times = Times(whole.pts, last.end_pts, base)
    grid = ProxyGrid(base, config.proxy_fps, rule_of(config))
    chosen = [*grid.add(whole.pts.tolist(), whole.change.tolist()), *grid.finish()]
    proxies = _pick(candidates, whole.pts, chosen)
    num = len(whole.pts)
    row = scan_row(video, VideoStatus.OK, "", num, 1, [])
    return {**scan_rows(row, [signals_row(video, whole, times, [False] * num, config)]), FRAMES.name: proxies}


@dataclasses.dataclass(frozen=True, slots=True)
class _Measured:
    """A row of `scan_parts` as arrays."""

    part: int
    unfit: str
    start_pts: int | None
    seam_pts: int | None
    end_pts: int
    time_base: Fraction
    small: tuple[int, ...]
    curves: SignalCurves

    @classmethod
    def of(cls, table: pa.Table, row: int) -> "_Measured":
        def array(name: str) -> np.ndarray:
            return np.asarray(table[name][row].values.to_numpy(zero_copy_only=False))

        one = {n: table[n][row].as_py() for n in ("part", "unfit", "start_pts", "seam_pts", "end_pts", "small")}
        thumbs = np.frombuffer(table["thumbs"][row].as_buffer(), np.uint8).reshape(-1, THUMB_BYTES)
        curves = SignalCurves(pts=array("pts"), thumbs=thumbs, **{n: array(n) for n in _CURVES})
        base = Fraction(table["time_base_num"][row].as_py(), table["time_base_den"][row].as_py())
        return cls(**{**one, "small": tuple(one["small"])}, time_base=base, curves=curves)

    @property
    def own(self) -> int:
        """Frames before the seam."""
        return len(self.curves.pts) if self.seam_pts is None else int(np.searchsorted(self.curves.pts, self.seam_pts))


def _check(rows: list[_Measured]) -> None:
    """Every part is fit, seams meet, and both sides of a seam saw the same pictures."""
    if [r.part for r in rows] != list(range(len(rows))):
        raise CannotJoin("a part is missing")
    for row in rows:
        if row.unfit:
            raise CannotJoin(f"part {row.part}: {row.unfit}")
    held = [r for r in rows if len(r.curves.pts)]
    if not held or held[0].part:
        raise CannotJoin("the first part holds no frame")
    for before, after in itertools.pairwise(held):
        if before.seam_pts is None or before.seam_pts != after.start_pts or before.small != after.small:
            raise CannotJoin(f"parts {before.part} and {after.part} do not meet")
        _same(before, after)
    if held[-1].seam_pts is not None or len({r.time_base for r in held}) > 1:
        raise CannotJoin("the last part ends before the file")


def _same(before: _Measured, after: _Measured) -> None:
    beyond = slice(before.own, None)
    shared = len(before.curves.pts) - before.own
    if not shared or not before.own:
        raise CannotJoin(f"part {before.part} does not reach over its seam")
    for name in ("pts", "thumbs", *_CURVES):
        mine, theirs = getattr(before.curves, name)[beyond], getattr(after.curves, name)[:shared]
        skip = 1 if name in _TO_THE_FRAME_BEFORE else 0
        if not np.array_equal(mine[skip:], theirs[skip:]):
            raise CannotJoin(f"parts {before.part} and {after.part} saw other pictures at their seam")


def _end_to_end(rows: list[_Measured]) -> SignalCurves:
    held = [r for r in rows if len(r.curves.pts)]
    pieces: dict[str, list[np.ndarray]] = {n: [] for n in ("pts", "thumbs", *_CURVES)}
    for position, row in enumerate(held):
        for name, found in pieces.items():
            piece = getattr(row.curves, name)[: row.own]
            if position and name in _TO_THE_FRAME_BEFORE:
                known = getattr(held[position - 1].curves, name)[held[position - 1].own]
                piece = np.concatenate([[known], piece[1:]]).astype(piece.dtype)
            found.append(piece)
    return SignalCurves(**{n: np.concatenate(p) for n, p in pieces.items()})


def _pick(candidates: pa.Table, pts: np.ndarray, chosen: list[int]) -> pa.Table:
    """The chosen candidates, with their index in the whole video."""
    places = {p: row for row, p in enumerate(candidates["pts"].to_pylist())}
    try:
        rows = [places[p] for p in pts[chosen].tolist()]
    except KeyError as e:
        raise CannotJoin(f"no part kept the frame at {e}") from e
    pieces, start = [FRAMES.empty()], 0
    for end in [i for i in range(1, len(rows) + 1) if i == len(rows) or rows[i] != rows[i - 1] + 1]:
        pieces.append(candidates.slice(rows[start], end - start))  # a slice copies no picture, `take` all of them twice
        start = end
    indices = pa.chunked_array([pa.array(chosen, pa.int64())])
    at = candidates.schema.get_field_index("frame_index")
    return FRAMES.conform(pa.concat_tables(pieces).set_column(at, "frame_index", indices))
