"""Our own captioner: a checkpoint of `captioner.train`, greedy with its KV cache, a batch of one shape at a time.

One thread per worker, so that workers do not fight over cores and every machine adds in the same order.
Cost: about 300 captions per CPU second (facts/captioner.md 6.4, same size of model).
"""

from collections.abc import Sequence

import numpy as np
import torch

from captioner.backends.base import LENGTH, STOP, Backend, Clip, Decoding, Written
from captioner.backends.draws import drawn, torch_engine
from captioner.prompt import Prompt
from captioner.train.checkpoint import load_checkpoint
from captioner.train.tokenizer import KIND_ID, decode


class Recaptioner(Backend):
    """The captioner that was trained here; the prompt's kind picks its control token."""

    def __init__(self, checkpoint: str) -> None:
        torch.set_num_threads(1)
        loaded = load_checkpoint(checkpoint)
        self._loaded, self._tokenizer = loaded, loaded.tokenizer
        self.model = loaded.digest
        self.engine = torch_engine("cpu", next(loaded.net.parameters()).dtype)

    def write(self, clips: Sequence[Clip], prompt: Prompt, decoding: Decoding) -> list[Written]:
        if decoding.temperature:  # drawn one by one, so that a clip's text does not depend on its company
            return [text for clip in clips for text in self._write([clip], prompt, decoding)]
        return self._write(clips, prompt, decoding)

    def _write(self, clips: Sequence[Clip], prompt: Prompt, decoding: Decoding) -> list[Written]:
        frames = torch.from_numpy(np.stack([c.frames for c in clips]))
        with drawn(decoding) as how:
            rows = self._loaded.writer(prompt.kind).write(
                frames,
                KIND_ID[prompt.kind],
                max_tokens=decoding.tokens(prompt.kind),
                num_beams=decoding.num_beams,
                no_repeat_ngram=decoding.no_repeat_ngram,
                **how,
            )
        written = []
        for ids in rows:
            text, ended = decode(self._tokenizer, ids)
            written.append(Written(text, len([i for i in ids if i != 0]), STOP if ended else LENGTH))
        return written
