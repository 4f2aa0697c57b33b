"""Captions that people write, clip by clip, each flushed to `labels/captions.jsonl`: a pair file as it stands.

Clips that the policy kept are shown in a seeded order, with what the captioner wrote as a draft.  Taking one back
writes a line with empty texts; the last line on a clip counts.
"""

import threading
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import numpy as np

from orchestration import caption_page
from orchestration.label_server import Refused, Shown
from schemas.labels import WRITTEN, append_line, read_lines
from schemas.store import Store

_MAX_CHARACTERS = 4000


class CaptionSession:
    """The clips, and what was written of them.  Threads take turns."""

    page = staticmethod(caption_page.page)
    max_body = 1 << 16

    def __init__(
        self, store: Store, clips: Sequence[str], drafts: Mapping[str, tuple[str, str]], shown: Mapping[str, Shown],
        writer: str, seed: int = 0,
    ) -> None:  # fmt: skip
        """
        Args:
            drafts: Short and dense caption by clip, where there are any.
            writer: Name that goes into every line.
        """
        order = np.random.Generator(np.random.Philox(key=[seed, len(clips)])).permutation(len(clips))
        self.store, self.clips, self.drafts, self.shown = store, [sorted(clips)[i] for i in order], drafts, shown
        self.writer = writer
        self._done = written(store) & set(self.clips)
        self._passed: set[str] = set()
        self._said: list[str] = []
        self._lock = threading.Lock()

    def next(self) -> dict[str, Any]:
        """The first clip without a caption, and how far we are."""
        with self._lock:
            return self._next()

    def _next(self) -> dict[str, Any]:
        clip_id = next((c for c in self.clips if c not in self._done and c not in self._passed), None)
        item = None
        if clip_id is not None:
            short, dense = self.drafts.get(clip_id, ("", ""))
            shown = self.shown.get(clip_id)
            item = {"clip_id": clip_id, "short": short, "dense": dense, "about": shown.about if shown else ""}
            item["frames"] = len(shown.jpegs) if shown else 0
        return {"item": item, "done": len(self._done), "all": len(self.clips)}

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """An answer.

        Raises:
            Refused: If it is none, or is about a clip that was not shown.
        """
        with self._lock:
            if path == "/api/undo":
                self._undo()
                return self._next()
            clip_id = body.get("clip_id")
            if not isinstance(clip_id, str) or clip_id not in self.clips:
                raise Refused(HTTPStatus.NOT_FOUND, "this clip was not shown")
            if path == "/api/pass":
                self._passed.add(clip_id)
            elif path == "/api/caption":
                self._write(clip_id, _text(body, "short"), _text(body, "dense"))
                self._done.add(clip_id)
                self._said.append(clip_id)
            else:
                raise Refused(HTTPStatus.NOT_FOUND, "no such page")
            return self._next()

    def _undo(self) -> None:
        if self._said:
            clip_id = self._said.pop()
            self._write(clip_id, "", "")
            self._done.discard(clip_id)

    def _write(self, clip_id: str, short: str, dense: str) -> None:
        append_line(self.store, WRITTEN, {"clip_id": clip_id, "short": short, "dense": dense, "writer": self.writer})

    def frame(self, clip_id: str, index: str) -> bytes:
        shown = self.shown.get(clip_id)
        if shown is None or not index.isdecimal() or int(index) >= len(shown.jpegs):
            raise Refused(HTTPStatus.NOT_FOUND, "no such frame")
        return shown.jpegs[int(index)]


def written(store: Store) -> set[str]:
    """Clips that have a caption of a person."""
    last = {line.get("clip_id"): line for line in read_lines(store, WRITTEN)}
    return {str(clip) for clip, line in last.items() if line.get("short") and line.get("dense")}


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value.strip():
        raise Refused(HTTPStatus.BAD_REQUEST, f"the {name} caption is empty")
    if len(value) > _MAX_CHARACTERS:
        raise Refused(HTTPStatus.BAD_REQUEST, f"the {name} caption has more than {_MAX_CHARACTERS} characters")
    return " ".join(value.split())
