"""Which combinations of attributes the training clips show, so that prompts for others can be counted apart.

A model that paints each attribute rightly may still only repeat what it saw together.  So a prompt is `unseen` at
a level where no clip of the training ledger shows that level's attributes together on one subject: of colour, shape
and motion (what `world.HELD_OUT` holds back from captioners), of these on that background, of these under that camera.
What a clip shows is said by the truth, not by its caption, and generously, so that `unseen` can be relied on: every
shot that the clip touches counts, its transition included, every subject, each of its motions; of a damaged file
every shot.  Nothing is said where a training clip has no known truth.  To hold a combination back on purpose, train
on the other clips (captions, not truth, are asked; a caption that is wrong lets a clip through, which is then seen):

    dailies train dit --where "NOT list_has_any(
        [s.color || ' ' || s.shape || ' ' || s.motion for s in fields.subjects], ['red star moving up'])"

Pure; milliseconds.
"""

import collections
import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from pipelines.synthetic.evaluate import Batch, rate
from schemas.captions import Fields
from schemas.samples import Measure
from schemas.truth import TruthShot

SUBJECT = ("color", "shape", "motion")
LEVELS: dict[str, tuple[str, ...]] = {
    "subject": SUBJECT,
    "on_background": (*SUBJECT, "background"),
    "whole": (*SUBJECT, "background", "camera"),
}
"""Level to the attributes that are taken together."""
TOGETHER = "together"
"""Name of the rate at which all attributes of a level are right at once."""
Shown = dict[str, collections.Counter[tuple[str, ...]]]
"""Level to how many training clips show each combination."""


def shown_by(batches: Sequence[Batch], trained: Collection[str]) -> Shown | None:
    """Count the training clips that show each combination; None if the truth of one of them is not known."""
    trained = set(trained)
    found: Shown = {level: collections.Counter() for level in LEVELS}
    known: set[str] = set()
    for batch in batches:
        for clip_id, shots in _shots(batch, trained).items():
            if not shots or clip_id in known:
                continue
            known.add(clip_id)
            for level, names in LEVELS.items():
                found[level].update({tuple(a[n] for n in names) for s in shots for a in attributes_of(s.fields)})
    return found if known == trained else None


def _shots(batch: Batch, trained: Collection[str]) -> dict[str, list[TruthShot]]:
    """Training clip to the shots that it touches."""
    truths = {t.path: t for t in batch.truth_videos}
    broken = {t.path for t in batch.truth_videos if t.defect == "corrupt"}
    paths = {v.video_id: v.path for v in sorted(batch.videos, key=lambda v: v.path, reverse=True) if v.path in truths}
    shots = collections.defaultdict(list)
    for shot in batch.truth_shots:
        shots[shot.path].append(shot)
    found = {}
    for clip in batch.clips:
        path = paths.get(clip.video_id)
        if clip.clip_id in trained and path is not None:
            video = truths[path]
            whole = path in broken or video.duplicate_of in broken  # times of a damaged file need not be those rendered
            found[clip.clip_id] = [
                s
                for s in shots[path]
                if whole
                or (
                    min(s.start_frame, s.transition_start_frame) < clip.end_s * video.fps
                    and s.end_frame > clip.start_s * video.fps
                )
            ]
    return found


def attributes_of(fields: Fields) -> Iterable[dict[str, str]]:
    """Each subject with each of its motions, in its setting; events are those of the first."""
    for i, subject in enumerate(fields.subjects):
        for motion in dict.fromkeys([subject.motion, *(fields.events if i == 0 else [])]):
            yield {
                "color": subject.color,
                "shape": subject.shape,
                "motion": motion,
                "background": fields.background,
                "camera": fields.camera,
            }


def clips_showing(shown: Shown, asked: Mapping[str, str]) -> dict[str, int]:
    """Level to the training clips that show what is asked for."""
    return {level: shown[level][tuple(asked[n] for n in names)] for level, names in LEVELS.items()}


def apart(
    shown: Shown,
    seen: Sequence[Mapping[str, str]],
    asked: Sequence[Mapping[str, str]],
    others: Sequence[Mapping[str, str]],
    chance: Mapping[str, float],
) -> list[Measure]:
    """Accuracy on prompts whose combination training shows and on those it does not, level by level.

    Args:
        shown: What training shows.
        seen: What the probe saw in each video.
        asked: What each video was asked for.
        others: What another prompt, taken at random, asked for: the control, on the same videos.
        chance: What guessing each attribute scores.

    Returns:
        Groups `seen_<level>`, `unseen_<level>` and `control_...` of both; each attribute and all together.
    """
    rows = []
    counts = [clips_showing(shown, a) for a in asked]
    for level, names in LEVELS.items():
        for group, wanted in (("seen", True), ("unseen", False)):
            mine = [i for i, c in enumerate(counts) if (c[level] > 0) == wanted]
            for before, target in (("", asked), ("control_", others)):
                pairs = [(seen[i], target[i]) for i in mine] if target else []
                for name, of in {**{n: (n,) for n in names}, TOGETHER: names}.items():
                    hits = sum(all(s.get(n) == a[n] for n in of) for s, a in pairs)
                    guess = math.prod(chance[n] for n in of)
                    rows.append(rate(f"{before}{group}_{level}", name, "accuracy", hits, len(pairs), guess))
    return rows
