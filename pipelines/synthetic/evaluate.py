"""How well curation and captioning did, counted against the truth.  Pure: rows in, tallies out.

Boundaries: a found boundary counts as right if it lies within two frames of a hard cut, or inside the extent
of a gradual transition (0.3 s to spare), and is of the same kind; each is matched once.  `gradual` and `all` are
kinds taken together, `label` says how often the kind was right.  Flashes are counted apart: one that became a cut
is a wrong cut, and a flash that was not found.  Policy: what each rule rejected against what was planted; of
two near-duplicates either may go, and one whose original has no clip of its own, or fell to another rule so that the
copy stays in its place, is not looked for.
Captions: claims against the truth's claims.  Copies and damaged files are left out of all but the file rules.
Intervals: Wilson, 95 %.
"""

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence

from pipelines.synthetic.defects import FILE_DEFECTS, SHOT_DEFECTS
from schemas.captions import Caption, CaptionStatus
from schemas.clips import Clip
from schemas.language import UNCHECKED, claims
from schemas.ledger import LedgerRow
from schemas.samples import Measure
from schemas.shots import Boundary, BoundaryRow, Shot
from schemas.truth import TruthShot, TruthVideo
from schemas.verdicts import Selection, Verdict, VerdictRow
from schemas.videos import Scan, Video, VideoStatus

DEFECT_RULES: dict[str, tuple[str, ...]] = {
    "blur": ("blur",),
    "dark": ("dark",),
    "freeze": ("freeze", "static"),
    "letterbox": ("letterbox",),
    "flicker": ("flicker",),
    "text": ("text",),
    "watermark": ("watermark",),
    "static": ("static", "freeze"),
    "near_duplicate": ("near_duplicate",),
}
"""Planted defect to the rules that may find it.  In a frozen and in a static shot nothing moves, so either rule
will do for either.  A clip with a crop box counts as if a rule `letterbox` had fired; the file defects have no rule."""
CURABLE = frozenset({"none", "letterbox"})
"""Shots of these kinds are to be kept: a letterbox is cropped away."""
GRADUAL = (Boundary.FADE, Boundary.DISSOLVE)
KINDS = (Boundary.HARD.value, *(g.value for g in GRADUAL))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """Tolerances of what is measured."""

    hard_frames: int = 2
    """A hard cut may be off by so many frames."""
    gradual_s: float = 0.3
    """A boundary may lie so far outside a gradual transition, s."""
    min_overlap: float = 0.5
    """Share of a clip that must lie in a truth shot to be judged by it, [0, 1]."""
    seed: int = 0
    """Of the shuffled prompts in the control."""

    def __post_init__(self) -> None:
        if self.hard_frames < 0 or self.gradual_s < 0 or not 0 <= self.min_overlap <= 1:
            raise ValueError("evaluation: tolerances are at least 0, min_overlap lies in [0, 1]")


@dataclasses.dataclass(frozen=True, slots=True)
class Tally:
    """Right among what was found, caught among what there was; tallies of several batches add up."""

    right: int = 0
    found: int = 0
    caught: int = 0
    wanted: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.right + other.right, self.found + other.found, self.caught + other.caught, self.wanted + other.wanted
        )


Tallies = dict[str, Tally]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One synthetic batch: its truth, and what the stages made of it."""

    truth_videos: Sequence[TruthVideo]
    truth_shots: Sequence[TruthShot]
    videos: Sequence[Video]
    scans: Sequence[Scan] = ()
    shots: Sequence[Shot] = ()
    boundaries: Sequence[BoundaryRow] = ()
    clips: Sequence[Clip] = ()
    verdicts: Sequence[VerdictRow] = ()
    selections: Sequence[Selection] = ()
    captions: Sequence[Caption] = ()

    def sound(self) -> dict[str, str]:
        """Path to video id, of files that are neither copies nor damaged."""
        ids = {v.path: v.video_id for v in self.videos}
        return {t.path: ids[t.path] for t in self.truth_videos if t.defect == "none" and t.path in ids}


def add(tallies: Iterable[Tallies]) -> Tallies:
    """Sum tallies by name."""
    total: Tallies = {}
    for one in tallies:
        for name, tally in one.items():
            total[name] = total.get(name, Tally()) + tally
    return total


def rate(group: str, name: str, metric: str, hits: int, trials: int, chance: float | None = None) -> Measure:
    """A rate with its interval; null where there was no trial."""
    if not trials:
        return Measure(group=group, name=name, metric=metric, value=None, low=None, high=None, n=0, chance=chance)
    from scipy.stats import binomtest

    interval = binomtest(hits, trials).proportion_ci(method="wilson")
    return Measure(
        group=group,
        name=name,
        metric=metric,
        value=hits / trials,
        low=float(interval.low),
        high=float(interval.high),
        n=trials,
        chance=chance,
    )


def number(group: str, name: str, metric: str, value: float | None) -> Measure:
    """A plain number."""
    return Measure(group=group, name=name, metric=metric, value=value, low=None, high=None, n=0, chance=None)


def measures(group: str, tallies: Tallies) -> list[Measure]:
    """Precision, recall and F1 of each tally."""
    rows = []
    for name, tally in sorted(tallies.items()):
        precision = rate(group, name, "precision", tally.right, tally.found)
        recall = rate(group, name, "recall", tally.caught, tally.wanted)
        p, r = precision.value, recall.value
        f1 = None if r is None else 0.0 if not p or not r else 2 * p * r / (p + r)
        rows += [precision, recall, number(group, name, "f1", f1)]
    return rows


def boundaries(batch: Batch, config: EvaluationConfig) -> tuple[Tallies, tuple[int, int]]:
    """Tally of each kind of boundary, of both gradual ones, of flashes and of all boundaries whatever their kind.

    Also (kinds named rightly, boundaries matched).
    """
    fps = {t.path: t.fps for t in batch.truth_videos}
    truths, shots, flashes = (collections.defaultdict(list) for _ in range(3))
    for t in batch.truth_shots:
        truths[t.path].append(t)
    for s in batch.shots:
        shots[s.video_id].append(s)
    for b in batch.boundaries:
        if b.kind == Boundary.FLASH:
            flashes[b.video_id].append((b.start_frame, b.end_frame))
    tallies: Tallies = {kind: Tally() for kind in (*KINDS, "gradual", Boundary.FLASH.value, "all")}
    labelled = matched = 0
    for path, video_id in sorted(batch.sound().items()):
        wanted = [t for t in truths[path] if t.cut_in != Boundary.START]
        found = _found_boundaries(shots[video_id])
        pairs = _match(wanted, found, config.hard_frames, config.gradual_s * fps[path])
        kinds = [(wanted[i].cut_in, found[j][0]) for i, j in pairs]
        matched += len(kinds)
        labelled += sum(a == b for a, b in kinds)
        tallies = add([tallies, _by_kind([t.cut_in for t in wanted], [f[0] for f in found], kinds)])
        tallies[Boundary.FLASH.value] += _flashes(truths[path], flashes[video_id], config.hard_frames)
    return tallies, (labelled, matched)


def _by_kind(wanted: list[str], found: list[str], matched: list[tuple[str, str]]) -> Tallies:
    """A boundary of the wrong kind is not right; `gradual` takes a fade for a dissolve, `all` anything."""
    groups = {**{k: {k} for k in KINDS}, "gradual": {g.value for g in GRADUAL}, "all": set(KINDS)}
    tallies = {}
    for name, kinds in groups.items():
        right = sum(a in kinds and b in kinds for a, b in matched)
        tallies[name] = Tally(right, sum(f in kinds for f in found), right, sum(w in kinds for w in wanted))
    return tallies


def _flashes(truths: list[TruthShot], found: list[tuple[int, int]], slack: int) -> Tally:
    """A flash is found where a found one overlaps it, or nearly."""
    wanted = [
        (t.flash_start_frame, t.flash_end_frame)
        for t in truths
        if t.flash_start_frame is not None and t.flash_end_frame is not None
    ]
    near = [[a < d + slack and c < b + slack for c, d in found] for a, b in wanted]
    return Tally(sum(map(any, zip(*near))), len(found), sum(map(any, near)), len(wanted))


def _found_boundaries(shots: list[Shot]) -> list[tuple[str, int, int]]:
    """Kind, end of the shot before, start of the shot after."""
    shots = sorted(shots, key=lambda s: s.start_frame)
    pairs = itertools.pairwise(shots)
    return [(b.cut_in, a.end_frame, b.start_frame) for a, b in pairs if b.cut_in in KINDS]


def _match(
    truths: list[TruthShot], found: list[tuple[str, int, int]], hard: float, gradual: float
) -> list[tuple[int, int]]:
    """Pairs of (truth, found), nearest first, each used once."""
    near = []
    for i, t in enumerate(truths):
        slack = hard if t.cut_in == Boundary.HARD else gradual
        for j, (_, before, after) in enumerate(found):
            middle = (before + after) / 2
            off = max(t.transition_start_frame - middle, middle - t.start_frame, 0.0)
            if t.cut_in == Boundary.HARD:
                off = min(off, abs(t.start_frame - after), abs(t.start_frame - before))
            if off <= slack:
                near.append((off, abs(middle - (t.transition_start_frame + t.start_frame) / 2), i, j))
    taken: list[tuple[int, int]] = []
    for _, _, i, j in sorted(near):
        if all(i != a and j != b for a, b in taken):
            taken.append((i, j))
    return taken


def shots_of_clips(batch: Batch, min_overlap: float) -> dict[str, TruthShot]:
    """Clip id to the truth shot that it mostly shows."""
    paths = {video_id: path for path, video_id in batch.sound().items()}
    fps = {t.path: t.fps for t in batch.truth_videos}
    by_path = collections.defaultdict(list)
    for t in batch.truth_shots:
        by_path[t.path].append(t)
    found = {}
    for clip in batch.clips:
        path = paths.get(clip.video_id)
        if path is None:
            continue
        overlaps = [
            (min(clip.end_s, t.end_frame / fps[path]) - max(clip.start_s, t.start_frame / fps[path]), -t.shot_index, t)
            for t in by_path[path]
        ]
        overlap, _, shot = max(overlaps, key=lambda o: o[:2])
        if overlap >= min_overlap * (clip.end_s - clip.start_s) and overlap > 0:
            found[clip.clip_id] = shot
    return found


def _name(shot: TruthShot) -> str:
    return f"{shot.path}#{shot.shot_index}"


def policy(batch: Batch, config: EvaluationConfig) -> Tallies:
    """Tally of each planted defect, of the file defects, and of rejection as such (`all`)."""
    shown = shots_of_clips(batch, config.min_overlap)
    fired: dict[str, set[str]] = collections.defaultdict(set)
    for v in batch.verdicts:
        if v.verdict == Verdict.REJECT:
            fired[v.clip_id].add(v.rule)
    for clip in batch.clips:
        if clip.crop is not None:
            fired[clip.clip_id].add("letterbox")
    tallies = {d: _rule(d, batch, shown, fired) for d in SHOT_DEFECTS}
    tallies["all"] = _rejections(batch, shown, fired)
    return tallies | _files(batch)


def _rule(defect: str, batch: Batch, shown: Mapping[str, TruthShot], fired: Mapping[str, set[str]]) -> Tally:
    """One defect: clips its rules fired on, and planted shots that became clips."""
    rules = set(DEFECT_RULES[defect])
    hit = {clip_id for clip_id in shown if fired.get(clip_id, set()) & rules}
    kin = {d for d, known in DEFECT_RULES.items() if set(known) & rules}
    twins = _twins(batch) if defect == "near_duplicate" else {}
    names = {_name(shown[c]) for c in hit}
    right = sum(shown[c].defect in kin or _name(shown[c]) in twins.values() for c in hit)
    present = {_name(s) for s in shown.values()}
    # a pair takes two clips: where a missed cut swallowed the original, boundaries count it, and nothing is to be found
    present -= lost_originals(batch, shown, fired) if twins else set()
    wanted = {_name(s) for s in shown.values() if s.defect == defect and twins.get(_name(s), _name(s)) in present}
    caught = sum(name in names or twins.get(name) in names for name in wanted)
    return Tally(right, len(hit), caught, len(wanted))


def _twins(batch: Batch) -> dict[str, str]:
    """Near-duplicate shot to the shot it repeats."""
    return {_name(t): t.duplicate_of for t in batch.truth_shots if t.duplicate_of}


def lost_originals(batch: Batch, shown: Mapping[str, TruthShot], fired: Mapping[str, set[str]]) -> set[str]:
    """Shots that others repeat and that fell to another rule than likeness: the policy keeps a copy instead."""
    repeated, others = set(_twins(batch).values()), collections.defaultdict(list)
    for clip_id, shot in shown.items():
        if _name(shot) in repeated:
            others[_name(shot)].append(bool(fired.get(clip_id, set()) - {"near_duplicate", "letterbox"}))
    return {name for name, fell in others.items() if all(fell)}


def _rejections(batch: Batch, shown: Mapping[str, TruthShot], fired: Mapping[str, set[str]]) -> Tally:
    """Rejected clips that were planted bad; planted bad shots of which no clip was kept."""
    kept = {s.clip_id for s in batch.selections if s.verdict == Verdict.KEEP}
    rejected = [s.clip_id for s in batch.selections if s.verdict == Verdict.REJECT and s.clip_id in shown]
    twins = _twins(batch)
    original = {c for c in rejected if _name(shown[c]) in twins.values() and "near_duplicate" in fired.get(c, set())}
    right = sum(shown[c].defect not in CURABLE or c in original for c in rejected)
    kept_names = {_name(shown[c]) for c in kept if c in shown}
    dropped_originals = {_name(shown[c]) for c in original}
    lost = lost_originals(batch, shown, fired)
    wanted = {_name(s) for s in shown.values() if s.defect not in CURABLE and twins.get(_name(s)) not in lost}
    caught = sum(name not in kept_names or twins.get(name) in dropped_originals for name in wanted)
    return Tally(right, len(rejected), caught, len(wanted)) if batch.selections else Tally()


def _files(batch: Batch) -> Tallies:
    """Copies found by packets; damage found by decoding."""
    ids = {v.path: v.video_id for v in batch.videos}
    bad = {VideoStatus.DAMAGED, VideoStatus.UNREADABLE}
    scans = {s.video_id for s in batch.scans if s.status in bad}
    found = {
        "duplicate": {v.path for v in batch.videos if v.duplicate_of},
        "corrupt": {v.path for v in batch.videos if v.status in bad or ids[v.path] in scans},
    }
    planted = {d: {t.path for t in batch.truth_videos if t.defect == d} for d in FILE_DEFECTS}
    planted["corrupt"] |= {t.path for t in batch.truth_videos if t.duplicate_of in planted["corrupt"]}
    return {
        d: Tally(len(found[d] & planted[d]), len(found[d]), len(found[d] & planted[d]), len(planted[d]))
        for d in FILE_DEFECTS
    }


def captions(batch: Batch, config: EvaluationConfig) -> tuple[Tallies, tuple[int, int], tuple[int, int]]:
    """Tally of claims per field and of all; (captions with an untrue claim, captions); (ok, all) captions."""
    shown = shots_of_clips(batch, config.min_overlap)
    tallies: Tallies = {}
    untrue = judged = 0
    for caption in batch.captions:
        if caption.status != CaptionStatus.OK or caption.fields is None or caption.clip_id not in shown:
            continue
        said = collections.Counter(c for c in claims(caption.fields) if c[0] not in UNCHECKED)
        true = collections.Counter(claims(shown[caption.clip_id].fields))
        both = said & true
        judged += 1
        untrue += both != said
        for field in {f for f, _ in said} | {f for f, _ in true}:
            n = [sum(k for (f, _), k in counter.items() if f == field) for counter in (both, said, true)]
            tallies = add([tallies, {name: Tally(n[0], n[1], n[0], n[2]) for name in (field, "all")}])
    ok = sum(c.status == CaptionStatus.OK for c in batch.captions)
    return tallies, (untrue, judged), (ok, len(batch.captions))


def attributes(
    group: str,
    seen: Sequence[Mapping[str, str]],
    asked: Sequence[Mapping[str, str]],
    chance: Mapping[str, float],
) -> list[Measure]:
    """Accuracy of each attribute: what the probe saw against what was asked for."""
    rows = []
    for name, guess in chance.items():
        pairs = [(s.get(name), a[name]) for s, a in zip(seen, asked) if a.get(name)]
        rows.append(rate(group, name, "accuracy", sum(s == a for s, a in pairs), len(pairs), guess))
    return rows


def training(ledger: Sequence[LedgerRow]) -> list[Measure]:
    """Mean loss over the first and the last tenth of the steps."""
    if not ledger:
        return []
    losses = collections.defaultdict(list)
    for row in ledger:
        losses[row.step].append(row.loss)
    means = [sum(v) / len(v) for _, v in sorted(losses.items())]
    count = max(1, len(means) // 10)
    return [
        number("training", "dit", "loss_first", sum(means[:count]) / count),
        number("training", "dit", "loss_last", sum(means[-count:]) / count),
        number("training", "dit", "steps", float(len(means))),
    ]
