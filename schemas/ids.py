"""Names that follow from content: the same input gives the same id on any machine.

Ids are the first 20 hex digits (80 bits) of a SHA-256 over a canonical JSON text; at a billion
clips the chance that any two collide is below one in a million (birthday bound 2**60 / 2**81).
"""

import dataclasses
import enum
import hashlib
import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

ID_DIGITS = 20
CHANGED_ONLY = {"digest": "changed"}
"""Metadata of a field that came after results were made with what its default does: it counts where it differs from the
default, so that those results stay valid."""


def _plain(value: Any) -> Any:
    """Turn configs, enums and rationals into what JSON can hold, without loss.

    A field with `metadata={"digest": False}` changes no result, only how it is come by, and is left out; one with
    `CHANGED_ONLY` is left out at its default.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value) if _counts(f, value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Fraction):
        return f"{value.numerator}/{value.denominator}"
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(_plain(v) for v in value)
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return [str(value.dtype), list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    return value


def _counts(field: dataclasses.Field[Any], owner: Any) -> bool:
    rule = field.metadata.get("digest", True)
    if rule == CHANGED_ONLY["digest"]:
        return bool(getattr(owner, field.name) != field.default)
    return bool(rule)


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, no spaces, floats by `repr`."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def digest(*parts: Any) -> str:
    """Hash any mix of configs, numbers and texts to `ID_DIGITS` hex digits."""
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:ID_DIGITS]


def clip_id(video_id: str, start_pts: int, end_pts: int, crop: Sequence[int] | None, cutter_version: int) -> str:
    """Name a clip by what it shows: its video, its half-open span in PTS, its crop, its cutter.

    Args:
        crop: `(x, y, width, height)` in display pixels, or None for the whole picture.
    """
    return digest("clip", video_id, int(start_pts), int(end_pts), list(crop) if crop else None, cutter_version)
