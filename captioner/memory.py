"""A backend that runs out of memory is asked for half as many clips at once.

What held once is remembered, so a batch that is too large costs one failure and not one per chunk.  A clip that
does not fit alone is that clip's error.  Only allocation failures are taken so: any other exception is the
backend's, and goes on.
"""

import gc
import sys
from collections.abc import Sequence

from captioner.backends.base import Backend, Clip, Decoding, Written
from captioner.prompt import Prompt


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on the host or on a device."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


class Fitting(Backend):
    """Another backend, asked for as many clips at once as its memory holds."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.model, self.adapter, self.engine = backend.model, backend.adapter, backend.engine
        self.constrains, self.sees_more = backend.constrains, backend.sees_more
        self.most: int | None = None
        """Clips at once that are known to fit; None as long as all did."""

    def write(self, clips: Sequence[Clip], prompt: Prompt, decoding: Decoding) -> list[Written]:
        size = self.most or len(clips)
        if len(clips) > size:
            parts = [clips[i : i + size] for i in range(0, len(clips), size)]
            return [w for part in parts for w in self.write(part, prompt, decoding)]
        try:
            return self._backend.write(clips, prompt, decoding)
        except Exception as e:
            if not out_of_memory(e):
                raise
            why = str(e).splitlines()[0][:200] if str(e) else type(e).__name__
        _release()
        if len(clips) == 1:
            return [Written("", 0, "", error=f"out of memory with this clip alone: {why}")]
        self.most = len(clips) // 2
        return self.write(clips, prompt, decoding)


def _release() -> None:
    """Give back what the failed try still holds."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
