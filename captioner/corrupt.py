"""Clips that a true caption must find less likely: reversed, mirrored, of other colours, frozen, without its subject.

Tarsier2's corruptions (facts/captioner.md 5.4), as a test instead of negatives to train on.  Each goes with the claims
that it makes false.  Arrays are uint8 (T, H, W, 3).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from schemas.language import Claim

Frames = np.ndarray[Any, np.dtype[np.uint8]]
_SIDEWAYS = ("left", "right")
_QUIET = ("still", "static")


def reversed_in_time(frames: Frames) -> Frames:
    return frames[::-1].copy()


def mirrored(frames: Frames) -> Frames:
    return frames[:, :, ::-1].copy()


def hue_shifted(frames: Frames) -> Frames:
    """Red to green to blue to red: every hue a third of the circle on, brightness and greys as they were."""
    return frames[..., [2, 0, 1]].copy()


def frozen(frames: Frames) -> Frames:
    """The middle frame throughout."""
    return np.repeat(frames[len(frames) // 2 : len(frames) // 2 + 1], len(frames), axis=0)


def blanked(frames: Frames) -> Frames:
    """Whatever differs most from its frame's mean colour takes that colour: the subjects are gone."""
    mean = frames.reshape(len(frames), -1, 3).mean(axis=1)[:, None, None, :]
    far = np.linalg.norm(frames - mean, axis=-1)
    hidden = far > 0.5 * far.max(axis=(1, 2), keepdims=True)
    return np.where(hidden[..., None], mean, frames).astype(np.uint8)


CORRUPTIONS: dict[str, Callable[[Frames], Frames]] = {
    "reversed": reversed_in_time,
    "mirrored": mirrored,
    "hue": hue_shifted,
    "frozen": frozen,
    "blanked": blanked,
}


def refuting(claim: Claim) -> tuple[str, ...]:
    """The corruptions that make a claim false, if it is true."""
    words = claim.value.split()
    if claim.field == "color":
        return () if claim.value in ("white", "black", "grey", "gray") else ("hue", "blanked")
    if claim.field in ("shape", "size", "count"):
        return ("blanked",)
    if claim.field == "relation":
        return ("mirrored",) if set(words) & set(_SIDEWAYS) else ("blanked",)
    if claim.field in ("motion", "event", "camera"):
        if claim.value in _QUIET:
            return ()
        return ("reversed", "frozen", "mirrored") if set(words) & set(_SIDEWAYS) else ("reversed", "frozen")
    return ()
