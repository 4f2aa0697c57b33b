"""The text that people gave a clip: what the recaptioning experiment compares captions with.

On footage of your own it is the text that came with the source (a sidecar; the manifest's column `human`).  Rendered
footage has such a sidecar too, but it tells of the file's first shot; the text of a clip is the short caption in the
truth table, terse and about the main subject, which is the kind of text that DALL-E 3 calls ground truth.  A rendered
clip whose shot is not known (its file is damaged) has none.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from pipelines.synthetic.evaluate import EvaluationConfig, shots_of_clips
from pipelines.synthetic.measure import load_batch
from schemas.errors import UsageError
from schemas.store import Store
from schemas.truth import TRUTH_SHOTS


@dataclasses.dataclass(frozen=True, slots=True)
class Told:
    """Rows with a human text, and where the texts are from."""

    rows: list[dict[str, Any]]
    origins: Mapping[str, int]
    """`truth` or `source` to clips; `none` are left out."""


def with_human(store: Store, rows: Iterable[Mapping[str, Any]], config: EvaluationConfig) -> Told:
    """The rows that have a human text, with it.

    Raises:
        UsageError: If none has one.
    """
    rows = list(rows)
    known: dict[str, str] = {}
    rendered: set[str] = set()
    for name in sorted({r["batch"] for r in rows}):
        if store.committed(TRUTH_SHOTS, name):
            shots = shots_of_clips(load_batch(store, name), config.min_overlap)
            rendered.add(name)
            known |= {clip: shot.short for clip, shot in shots.items()}
    found, origins = [], Counter[str]()
    for row in rows:
        is_rendered = row["batch"] in rendered
        text = known.get(row["clip_id"], "") if is_rendered else row.get("human") or ""
        origins["none" if not text else "truth" if is_rendered else "source"] += 1
        if text:
            found.append({**row, "human": text})
    if not found:
        raise UsageError(
            f"none of the {len(rows)} clips of this manifest has a text of its source's own: put sidecars "
            "(`<stem>.txt`, or `<stem>.json` with `text`) beside the footage and curate it again"
        )
    return Told(found, dict(origins))
