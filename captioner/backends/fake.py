"""Writes a caption that follows from the frames' colours, with no weights: for tests, and to try a pipeline out.

What it says is in the captioner's language and mostly wrong.  The same frames always get the same words.
"""

from collections.abc import Sequence

import numpy as np

from captioner.backends.base import STOP, Backend, Clip, Decoding, Written
from captioner.prompt import Prompt
from schemas.captions import Fields, Subject
from schemas.language import render_dense, render_short

_CHANNELS = ("red", "green", "blue")


class Fake(Backend):
    """Names the strongest colour channel and whether anything changes."""

    model = "fake-1"
    engine = "numpy"

    def write(self, clips: Sequence[Clip], prompt: Prompt, decoding: Decoding) -> list[Written]:
        texts = [self._say(clip, prompt.kind) for clip in clips]
        return [Written(t, len(t.split()), STOP) for t in texts]

    @staticmethod
    def _say(clip: Clip, kind: str) -> str:
        color = _CHANNELS[int(np.argmax(clip.frames.reshape(-1, 3).mean(axis=0)))]
        changes = float(np.abs(np.diff(clip.frames.astype(np.float32), axis=0)).mean()) if len(clip.frames) > 1 else 0.0
        subject = Subject(shape="picture", color=color, motion="changing" if changes > 1.0 else "still")
        record = Fields(subjects=[subject], events=[], camera="static", background="plain")
        return render_short(record) if kind == "short" else render_dense(record)
