"""Stage `ocr_scores`: an OCR reads a few proxies of each clip, where config names one; off by default.

`ocr.by` is `rapidocr` (PP-OCRv4 by onnxruntime; its models lie inside its wheel, so nothing is fetched) or any
`module:function` from an RGB frame to lines, each (four corners as (x, y) in pixels, text, confidence).
rapidocr asks for the OpenCV with windows, which would replace the headless one that we use, so it is installed as

    pip install "dailies[ocr]" && pip install --no-deps rapidocr-onnxruntime

Proxies are small (short side 144 px): letters under about 8 px there are not read.  Without a reader the table
has no rows, and rules over it are passed by.  Cost: about 0.1 to 0.3 CPU s per frame with rapidocr.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from pipelines.clip.heads import is_function, load_function
from pipelines.dedup.stage import jpegs_by_clip
from pipelines.execute import Context, Failure, Output, Stage, Tables
from pipelines.scorers.ocr import SCORE_OCR
from pipelines.video.frames import read_jpeg
from schemas.clips import CLIPS, Clip
from schemas.errors import ConfigError
from schemas.ids import digest
from schemas.table import to_rows
from schemas.videos import FRAMES

RAPIDOCR = "rapidocr"
Line = tuple[Sequence[Sequence[float]], str, float]
Reader = Callable[[np.ndarray], Sequence[Line]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OcrConfig:
    """Who reads what is written in a clip."""

    by: str = ""
    """`rapidocr`, or `module:function` from an RGB frame to lines; empty for nobody."""
    frames: int = 3
    """Proxy frames per clip, evenly over it."""
    min_confidence: float = 0.6
    """Least confidence of a line that counts, [0, 1]."""

    def __post_init__(self) -> None:
        if self.frames < 1 or not 0 <= self.min_confidence <= 1:
            raise ValueError("ocr: frames is at least 1, min_confidence lies in [0, 1]")
        if self.by and self.by != RAPIDOCR and not is_function(self.by):
            raise ValueError(f"ocr.by is `{RAPIDOCR}` or `module:function`, got `{self.by}`")


def reader(by: str) -> Reader:
    """The OCR of that name.

    Raises:
        ConfigError: If it is not installed, with the commands that install it.
    """
    if by != RAPIDOCR:
        return load_function(by)  # type: ignore[return-value]
    try:
        from rapidocr_onnxruntime import RapidOCR
    except ImportError as e:
        raise ConfigError(
            f"ocr.by=rapidocr, but it does not import ({e}): `pip install 'dailies[ocr]'`, then "
            "`pip install --no-deps rapidocr-onnxruntime`"
        ) from e
    engine = RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1)

    def read(frame: np.ndarray) -> list[Line]:
        found, _ = engine(np.ascontiguousarray(frame[..., ::-1]))
        return [(box, str(text), float(sure)) for box, text, sure in found or ()]

    return read


def measure(lines: Sequence[Line], height: int, width: int, min_confidence: float) -> tuple[float, int]:
    """(share of the picture inside lines, letters and digits) of one frame; lines that overlap count once."""
    import cv2

    covered = np.zeros((height, width), np.uint8)
    letters = 0
    for corners, text, sure in lines:
        if sure < min_confidence:
            continue
        cv2.fillPoly(covered, [np.round(np.array(corners, np.float64)).astype(np.int32)], 1)  # type: ignore[call-overload]
        letters += sum(c.isalnum() for c in text)
    return float(covered.mean()), letters


@dataclasses.dataclass(frozen=True, slots=True)
class _Item:
    """The clips of one video and their proxies."""

    clip_ids: tuple[str, ...]
    jpegs: tuple[tuple[bytes, ...], ...]


def _load(config: OcrConfig, made_by: str) -> Callable[[_Item], Tables]:
    """Runs once per worker."""
    return partial(_read, reader(config.by), config, made_by)


def _read(read: Reader, config: OcrConfig, made_by: str, item: _Item) -> Tables:
    rows = []
    for clip_id, jpegs in zip(item.clip_ids, item.jpegs):
        frames = [read_jpeg(j) for j in jpegs]
        if not frames:
            rows.append(_row(clip_id, made_by, "the clip has no proxy frame"))
            continue
        found = [measure(read(f), f.shape[0], f.shape[1], config.min_confidence) for f in frames]
        area, letters = np.mean(found, axis=0)
        rows.append(_row(clip_id, made_by, "", float(area), float(letters)))
    return {SCORE_OCR.name: SCORE_OCR.from_rows(rows)}


def _row(
    clip_id: str, made_by: str, error: str, area: float | None = None, letters: float | None = None
) -> dict[str, Any]:
    return {"clip_id": clip_id, "area": area, "letters": letters, "error": error, "made_by": made_by}


def _failed(item: _Item, failure: Failure, made_by: str) -> Tables:
    rows = [_row(c, made_by, f"reading ended with {failure}") for c in item.clip_ids]
    return {SCORE_OCR.name: SCORE_OCR.from_rows(rows)}


def _ocr_scores(context: Context) -> Output:
    config: OcrConfig = context.settings
    if not config.by:
        note = {"note": "no reader is named: `ocr.by=rapidocr` reads what is written in clips"}
        return Output({SCORE_OCR.name: SCORE_OCR.empty()}, metrics=note)
    reader(config.by)  # a reader that is not there is one error here, and not one per item
    clips = sorted(to_rows(context.read(CLIPS), Clip), key=lambda c: (c.video_id, c.start_frame))
    jpegs = jpegs_by_clip(context.read(FRAMES, ["video_id", "frame_index", "jpeg"]), clips, config.frames)
    by_video: dict[str, list[str]] = {}
    for clip in clips:
        by_video.setdefault(clip.video_id, []).append(clip.clip_id)
    tables = context.each(
        partial(_load, config, context.made_by),
        [_Item(tuple(ids), tuple(tuple(jpegs[i]) for i in ids)) for ids in by_video.values()],
        key=digest,
        outputs=(SCORE_OCR,),
        on_error=lambda item, failure: _failed(item, failure, context.made_by),
        unit="video",
        loaded=True,
    )
    read = [v or 0.0 for v in tables[SCORE_OCR.name]["letters"].to_pylist()]
    return Output(tables, metrics={"clips": len(read), "clips_with_letters": sum(v > 0 for v in read)})


OCR_STAGE = Stage(
    name="ocr_scores",
    version=1,
    reads=(CLIPS, FRAMES),
    writes=(SCORE_OCR,),
    run=_ocr_scores,
    settings=lambda config: config.ocr,
    doc="What an OCR reads in each clip, where config names one.",
)
