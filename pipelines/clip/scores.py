"""Scores of one clip from one CLIP pass over its frames: concepts, coherence, beauty, its own text, safety.

Everything here is a product with vectors that are there anyway; only a plug-in for safety sees the frames
themselves.  Heads and prompts are read once per worker.  An aesthetic head is what config names, or else
what lies beside a CLIP that was trained here; without one, and where a CLIP does not know the footage, the
tables in question stay without rows, and rules over them are passed by.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pipelines.clip.heads import Head, Judge, is_function, load_function, read_head
from pipelines.clip.model import AESTHETIC, sentences
from pipelines.scorers.clip import CONCEPTS, SCORE_AESTHETIC, SCORE_CLIP, SCORE_SIDECAR, SCORE_UNSAFE
from pipelines.video.frames import read_jpeg
from schemas.ids import digest
from schemas.table import Table

_BATCH = 32
_MOST_SENTENCES = 16
OFF = "off"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EmbedConfig:
    """How clips are shown to CLIP, and what it is asked."""

    frames: int = 8
    """Proxy frames per clip, evenly over it."""
    watermark: str = "a watermark"
    """Prompt of the concept `watermark`."""
    text: str = "text and subtitles"
    """Prompt of the concept `text`."""
    slideshow: str = "a slide of a presentation"
    """Prompt of the concept `slideshow`."""
    screen_recording: str = "a recording of a computer screen"
    """Prompt of the concept `screen_recording`."""
    unsafe: str = "nudity, gore or violence"
    """Prompt of the unsafe concept; a crude measure, for want of a plug-in."""
    unsafe_by: str = ""
    """What judges safety instead: a head's file, or `module:function` from RGB frames to a number in [0, 1]."""
    aesthetic: str = ""
    """A head's file (LAION's layouts are read as they are); empty for the one beside a CLIP trained here; `off`."""

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ValueError(f"frames must be at least 1, got {self.frames}")

    @property
    def prompts(self) -> list[str]:
        return [getattr(self, name) for name in CONCEPTS]


def heads_of(config: EmbedConfig) -> dict[str, str]:
    """Digests of the heads' files: another file under the same name is another result."""
    found = {}
    for path in (config.aesthetic, config.unsafe_by):
        if path and path != OFF and not is_function(path) and os.path.isfile(path):
            with open(path, "rb") as f:
                found[path] = digest(f.read())
    return found


def encode_texts(model: Any, tokenizer: Any, texts: Sequence[str]) -> np.ndarray:
    """(text, dim) unit vectors."""
    import torch

    with torch.inference_mode():
        parts = [
            model.encode_text(tokenizer(list(texts[i : i + _BATCH])), normalize=True).float().numpy()
            for i in range(0, len(texts), _BATCH)
        ]
    return np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)


def encode_frames(model: Any, preprocess: Any, frames: Sequence[np.ndarray]) -> np.ndarray:
    """(frame, dim) unit vectors of RGB frames."""
    import torch
    from PIL import Image

    with torch.inference_mode():
        pictures = torch.stack([preprocess(Image.fromarray(f)) for f in frames])
        parts = [
            model.encode_image(pictures[i : i + _BATCH], normalize=True).float().numpy()
            for i in range(0, len(pictures), _BATCH)
        ]
    return np.concatenate(parts)


@dataclasses.dataclass(frozen=True, slots=True)
class Asker:
    """A CLIP and all that it is asked, loaded once per worker."""

    model: Any
    preprocess: Any
    tokenizer: Any
    concepts: np.ndarray
    """(concept, dim) unit vectors."""
    aesthetic: Head | None
    unsafe: Callable[[list[np.ndarray], np.ndarray], float] | None
    """From frames and their vectors to a number."""
    made_by: str

    def vectors(self, jpegs: Sequence[bytes]) -> tuple[list[np.ndarray], np.ndarray]:
        """A clip's frames and their unit vectors."""
        frames = [read_jpeg(j) for j in jpegs]
        return frames, encode_frames(self.model, self.preprocess, frames)

    def text_vectors(self, text: str) -> np.ndarray:
        """(sentence, dim); none where the source has no text."""
        return encode_texts(self.model, self.tokenizer, sentences(text)[:_MOST_SENTENCES]) if text else np.zeros((0, 1))

    def scores(
        self, clip_id: str, frames: list[np.ndarray], vectors: np.ndarray, text: np.ndarray
    ) -> dict[str, list[dict[str, Any]]]:
        """Rows by table name; none in tables that do not apply."""
        mean = unit_mean(vectors)
        cosines = {n: float(np.clip(c, -1, 1)) for n, c in zip(CONCEPTS, self.concepts @ mean)}
        first_to_last = float(np.clip(vectors[0] @ vectors[-1], -1, 1))
        rows = {SCORE_CLIP.name: [self._row(clip_id, **cosines, first_to_last=first_to_last)]}
        if self.aesthetic is not None:
            points = self.aesthetic(vectors)
            rows[SCORE_AESTHETIC.name] = [self._row(clip_id, mean=float(points.mean()), least=float(points.min()))]
        if len(text):
            rows[SCORE_SIDECAR.name] = [self._row(clip_id, best=float(np.clip((text @ mean).max(), -1, 1)))]
        if self.unsafe is not None:
            rows[SCORE_UNSAFE.name] = [self._unsafe(clip_id, frames, vectors)]
        return rows

    def no_scores(self, clip_id: str, error: str) -> dict[str, list[dict[str, Any]]]:
        """Rows of a clip that cannot be asked about."""
        return no_scores(clip_id, error, self.made_by, self.aesthetic is not None, self.unsafe is not None)

    def _row(self, clip_id: str, **values: float) -> dict[str, Any]:
        return {"clip_id": clip_id, **values, "error": "", "made_by": self.made_by}

    def _unsafe(self, clip_id: str, frames: list[np.ndarray], vectors: np.ndarray) -> dict[str, Any]:
        """A plug-in's trouble is this row's, and not the others'."""
        assert self.unsafe is not None
        try:
            value = float(self.unsafe(frames, vectors))
            if not np.isfinite(value):
                raise ValueError(f"it gave {value}")
        except Exception as e:
            return _empty(SCORE_UNSAFE, clip_id, f"{type(e).__name__}: {e}"[:500], self.made_by)
        return self._row(clip_id, score=value)


def no_scores(clip_id: str, error: str, made_by: str, aesthetic: bool, unsafe: bool) -> dict[str, list[dict[str, Any]]]:
    """Rows without numbers, with the error, in the tables that apply to every clip."""
    tables = [SCORE_CLIP, *([SCORE_AESTHETIC] if aesthetic else []), *([SCORE_UNSAFE] if unsafe else [])]
    return {t.name: [_empty(t, clip_id, error, made_by)] for t in tables}


def _empty(table: Table, clip_id: str, error: str, made_by: str) -> dict[str, Any]:
    return {**dict.fromkeys(table.schema.names), "clip_id": clip_id, "error": error, "made_by": made_by}


def unit_mean(vectors: np.ndarray) -> np.ndarray:
    """Mean of unit vectors, a unit vector again."""
    mean = vectors.mean(axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-6))


def make_asker(loaded: tuple[Any, Any, Any], folder: str, config: EmbedConfig, knows: bool, made_by: str) -> Asker:
    """Read prompts, heads and plug-in.

    Args:
        loaded: Model, preprocess and tokenizer.
        folder: Where the checkpoint lies; empty for a CLIP that was named.
        knows: CLIP means something for this footage.
    """
    model, preprocess, tokenizer = loaded
    concepts = encode_texts(model, tokenizer, [*config.prompts, config.unsafe])
    path = aesthetic_path(config, folder)
    return Asker(
        model=model,
        preprocess=preprocess,
        tokenizer=tokenizer,
        concepts=concepts[:-1],
        aesthetic=read_head(path, concepts.shape[1]) if path else None,
        unsafe=_unsafe_judge(config, concepts[-1], knows),
        made_by=made_by,
    )


def aesthetic_path(config: EmbedConfig, folder: str) -> str:
    """The head's file; empty for none."""
    if config.aesthetic:
        return "" if config.aesthetic == OFF else config.aesthetic
    beside = os.path.join(folder, AESTHETIC) if folder else ""
    return beside if beside and os.path.isfile(beside) else ""


def judges_safety(config: EmbedConfig, knows: bool) -> bool:
    """Whether anything can: a plug-in function needs no CLIP, prompt and head need one that knows the footage."""
    return knows or is_function(config.unsafe_by)


def _unsafe_judge(
    config: EmbedConfig, prompt: np.ndarray, knows: bool
) -> Callable[[list[np.ndarray], np.ndarray], float] | None:
    if is_function(config.unsafe_by):
        judge: Judge = load_function(config.unsafe_by)
        return lambda frames, vectors: judge(frames)
    if not judges_safety(config, knows):
        return None
    if config.unsafe_by:
        head = read_head(config.unsafe_by, len(prompt))
        return lambda frames, vectors: float(head(vectors).max())
    return lambda frames, vectors: float(np.clip((vectors @ prompt).max(), -1, 1))
