"""Scoreboards made of random scores, judged by the policy itself."""

from collections.abc import Collection

import numpy as np

from pipelines.policy.rules import Rule, Scores, judge, select
from pipelines.policy.scoreboard import SCOREBOARD, Standing, board
from schemas.clips import Clip
from schemas.scores import DUPLICATES, Duplicate
from schemas.store import Store
from schemas.verdicts import Selection

STOOD = (
    Rule(name="short", column="score_duration.seconds", min=2.0, reason="short"),
    Rule(name="dark", column="score_luma.bright", min=0.3, reason="dark"),
    Rule(name="blur", column="score_blur.edge", min=0.2, max=0.9, reason="blurred"),
    Rule(name="text", column="score_text.area", max=0.7, reason="text"),
    Rule(name="clip", column="score_clip.first_to_last", min=0.1, reason="incoherent"),
)
COLUMNS = tuple(r.column for r in STOOD)
TABLES = ("clips", "scans", "score_blur", "score_clip", "score_duration", "score_luma", "score_text")
SIZES = ((160, 90), (90, 160), (100, 100), (128, 96))


def random_clips(seed: int, count: int) -> tuple[list[Clip], dict[str, Scores]]:
    """Clips of random length and shape, with scores of which one in ten is missing."""
    rng = np.random.default_rng(seed)
    clips, scores = [], {}
    for i in range(count):
        seconds, (width, height) = float(rng.choice([1.0, 2.0, 3.5, 6.0, 20.0])), SIZES[int(rng.integers(4))]
        name = f"{seed:04d}{i:06d}"
        clips.append(
            Clip(
                clip_id=name, video_id=f"v{i % 3}", shot_id="s", start_pts=0, end_pts=int(seconds * 25),
                time_base_num=1, time_base_den=25, start_frame=0, end_frame=int(seconds * 25), start_s=0.0,
                end_s=seconds, fps=25.0, crop=None, width=width, height=height, max_inner_boundary=0.0,
            )
        )  # fmt: skip
        known: dict[str, float | None] = {c: round(float(rng.random()), 1) for c in COLUMNS}
        known["score_duration.seconds"] = seconds
        if rng.random() < 0.1:
            known[str(rng.choice(COLUMNS[1:]))] = [None, float("nan")][int(rng.integers(2))]
        scores[name] = known
    return clips, scores


def judged(
    clips: list[Clip], scores: dict[str, Scores], rules: tuple[Rule, ...], skip: dict[str, str]
) -> dict[str, Selection]:
    """What the policy says, clip by clip."""
    return {c.clip_id: select(c.clip_id, judge(c.clip_id, scores[c.clip_id], rules, skip, ""), "") for c in clips}


def commit(
    store: Store,
    batch: str,
    clips: list[Clip],
    scores: dict[str, Scores],
    *,
    foreign: bool = False,
    rules: tuple[Rule, ...] = STOOD,
    twins: Collection[str] = (),
) -> dict[str, str]:
    """Write a batch's scoreboard as the rules judge it; returns the rules that were skipped."""
    skip = {"clip": "foreign"} if foreign else {}
    words = []
    for clip in clips:
        rows = judge(clip.clip_id, scores[clip.clip_id], rules, skip, "m")
        words.append((rows, select(clip.clip_id, rows, "m")))
    tables = (*TABLES, DUPLICATES.name) if LIKENESS in rules else TABLES
    stands = Standing(rules=rules, skipped=skip, tables=tables, foreign=foreign)
    rows_of = board(clips, scores, words, "m", twins)
    store.commit(SCOREBOARD, rows_of, batch=batch, metrics={"policy": stands.as_metric()})
    return skip


LIKENESS = Rule(name="twin", column="duplicates.cosine", max=0.5, reason="like one that is kept")


def random_pairs(seed: int, clips: dict[str, list[Clip]], count: int) -> list[Duplicate]:
    """Pairs within and across batches; of two clips the one with the smaller id is better, so no circle closes."""
    rng = np.random.default_rng(seed)
    of = {c.clip_id: batch for batch, some in clips.items() for c in some}
    names, found = sorted(of), {}
    for _ in range(count):
        best, other = sorted(rng.choice(len(names), 2, replace=False).tolist())
        found[names[other], names[best]] = round(float(rng.uniform(0.3, 1.0)), 2)
    return [
        Duplicate(clip_id=o, kept_clip_id=b, cosine=cosine, why="order", batch=of[o], kept_batch=of[b])
        for (o, b), cosine in sorted(found.items())
    ]


def judged_with_twins(
    scores: dict[str, Scores], rules: tuple[Rule, ...], skip: dict[str, dict[str, str]], pairs: list[Duplicate]
) -> dict[str, Selection]:
    """The plain way: best clips first, each judged with its cosine to the twins that were kept before it.

    Args:
        skip: Clip to the rules that do not decide about it.
    """
    found: dict[str, Selection] = {}
    for name in sorted(scores):  # `random_pairs` ranks by id
        like = [p.cosine for p in pairs if p.clip_id == name and found[p.kept_clip_id].verdict == "keep"]
        known = {**scores[name], "duplicates.cosine": max(like, default=0.0)}
        found[name] = select(name, judge(name, known, rules, skip[name], ""), "")
    return found
