"""Hard cuts on real footage: ours beside each single PySceneDetect detector at its defaults, on the same files.

    python -m benchmarks.cuts ../shared/footage --without long_black_180p_av1.mp4 --out benchmarks/results/cuts.json
    python -m benchmarks.cuts ../shared/footage --transnet transnetv2-pytorch-weights.pth

`CUTS.csv` in the folder says where the eye saw cuts (file, type, frame_index, transition_start_s, transition_end_s,
confidence); `INDEX.csv`, if it is there, which further files are one shot, so that any cut in them is false.  A cut
counts within two frames; rows of low confidence count neither way.  A fade or dissolve is found if a found one
overlaps it; detectors have no name for those, and what they say inside one's extent is no false cut.  PySceneDetect
gets the frames that our decoder gives, shrunk as its own `SceneManager` shrinks them.  Cost: about two CPU minutes.
"""

import argparse
import csv
import dataclasses
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.scan.scan import ScanConfig, scan
from pipelines.shots.stage import ShotsConfig, find_shots, items
from pipelines.synthetic.evaluate import Tally, measures
from pipelines.video.decode import Pass, decode_frames
from pipelines.video.probe import ProbeConfig, probe
from schemas.videos import VIDEOS, Video

TOLERANCE_FRAMES = 2
_SLACK_S = 0.3
DETECTORS = ("AdaptiveDetector", "ContentDetector", "HashDetector", "HistogramDetector", "ThresholdDetector")


@dataclasses.dataclass(slots=True)
class Seen:
    """What the eye saw in one file, in frames."""

    hard: list[int] = dataclasses.field(default_factory=list)
    unsure: list[int] = dataclasses.field(default_factory=list)
    gradual: list[tuple[float, float]] = dataclasses.field(default_factory=list)
    """Start and end in seconds from the first frame."""


def read_truth(folder: Path) -> dict[str, Seen]:
    """File name to what was seen in it; files with one shot have nothing."""
    found: dict[str, Seen] = defaultdict(Seen)
    with open(folder / "CUTS.csv", newline="") as f:
        for row in csv.DictReader(f):
            seen = found[row["file"]]
            if row["confidence"] == "low":
                seen.unsure.append(int(row["frame_index"]))
            elif row["type"] == "hard":
                seen.hard.append(int(row["frame_index"]))
            else:
                seen.gradual.append((float(row["transition_start_s"]), float(row["transition_end_s"])))
    if (folder / "INDEX.csv").exists():
        with open(folder / "INDEX.csv", newline="") as f:
            for row in csv.DictReader(f):
                if row["n_shots_by_eye"] == "1" and row["is_image"] == "no":
                    found[row["file"]]  # one shot: an entry with nothing in it
    return dict(found)


def ours(video: Video) -> tuple[list[int], list[tuple[int, int]], np.ndarray]:
    """Hard cuts, gradual transitions `[start, end)` between two shots, and each frame's time in seconds."""
    tables = scan(video, ScanConfig())
    found = items(VIDEOS.from_rows([video]), tables["signals"], tables["frames"])
    if not found:
        return [], [], np.zeros(0)
    rows = find_shots(found[0], ShotsConfig(), "")["boundaries"].to_pylist()
    times = found[0].evidence.times
    last = len(times.pts)
    spans = [(r["start_frame"], r["end_frame"]) for r in rows if r["kind"] in ("fade", "dissolve")]
    between = [(a, b) for a, b in spans if a > 0 and b < last]
    seconds = (times.pts - times.pts[0]) * float(times.time_base)
    return [r["start_frame"] for r in rows if r["kind"] == "hard"], between, seconds


def theirs(video: Video) -> dict[str, list[int]]:
    """Cuts by detector, each at its defaults."""
    import cv2
    import scenedetect
    from scenedetect.scene_manager import compute_downscale_factor

    detectors = {name: getattr(scenedetect, name)() for name in DETECTORS}
    cuts: dict[str, list[int]] = {name: [] for name in DETECTORS}
    timecode, index, size = None, 0, None
    for frame in decode_frames(video.folder, video.path, ProbeConfig(), 600.0, Pass()):
        picture = frame.picture.to_ndarray(format="bgr24")
        if size is None:  # of the first frame, should the size change on the way
            factor = max(1.0, compute_downscale_factor(max(picture.shape[:2])))
            size = (max(1, round(picture.shape[1] / factor)), max(1, round(picture.shape[0] / factor)))
        if picture.shape[1::-1] != size:
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
        timecode, index = scenedetect.FrameTimecode(index, fps=max(video.fps, 1.0)), index + 1
        for name, detector in detectors.items():
            cuts[name] += [c.frame_num for c in detector.process_frame(timecode, picture)]
    if timecode is not None:
        for name, detector in detectors.items():
            cuts[name] += [c.frame_num for c in detector.post_process(timecode)]
    return {name: sorted(set(found)) for name, found in cuts.items()}


def transnet_cuts(video: Video, model: Any, bound: float = 0.5) -> list[int]:
    """First frames of new shots where TransNetV2 (`pipelines/shots/transnet.py`) sees a boundary."""
    from pipelines.shots import transnet

    decoded = decode_frames(video.folder, video.path, ProbeConfig(), 600.0, Pass())
    size = {"width": transnet.WIDTH, "height": transnet.HEIGHT, "format": "rgb24"}
    curve = transnet.boundary_curve(model, (f.picture.reformat(**size).to_ndarray() for f in decoded))
    return (np.flatnonzero(np.diff((curve > bound).astype(int)) < 0) + 1).tolist()


def judge_cuts(found: Iterable[int], seen: Seen, seconds: np.ndarray) -> tuple[Tally, list[int], list[int]]:
    """Tally of hard cuts; those that are false; those that were missed.

    Cuts inside a gradual transition (0.3 s to spare) or at a doubtful place count neither way.
    """
    left, right, false = list(seen.hard), 0, []
    for cut in sorted(found):
        hit = min((h for h in left if abs(h - cut) <= TOLERANCE_FRAMES), key=lambda h: abs(h - cut), default=None)
        if hit is not None:
            left.remove(hit)
            right += 1
        elif not _excused(cut, seen, seconds):
            false.append(cut)
    return Tally(right, right + len(false), right, len(seen.hard)), false, left


def _excused(cut: int, seen: Seen, seconds: np.ndarray) -> bool:
    now = float(seconds[min(cut, len(seconds) - 1)]) if len(seconds) else 0.0
    doubtful = any(abs(cut - u) <= TOLERANCE_FRAMES for u in seen.unsure)
    return doubtful or any(start - _SLACK_S <= now <= end + _SLACK_S for start, end in seen.gradual)


def judge_gradual(
    found: Iterable[tuple[int, int]], seen: Seen, seconds: np.ndarray
) -> tuple[Tally, list[Any], list[Any]]:
    """Tally of fades and dissolves by overlap; false ones; missed ones.  One found may cover two that touch."""
    spans = [(float(seconds[a]), float(seconds[min(b, len(seconds) - 1)]), a, b) for a, b in found]
    near = [[s < y + _SLACK_S and x - _SLACK_S < e for s, e, _, _ in spans] for x, y in seen.gradual]
    false = [(a, b) for j, (_, _, a, b) in enumerate(spans) if not any(row[j] for row in near)]
    missed = [span for span, row in zip(seen.gradual, near) if not any(row)]
    caught = len(seen.gradual) - len(missed)
    return Tally(len(spans) - len(false), len(spans), caught, len(seen.gradual)), false, missed


def compare(
    folder: Path, names: Iterable[str], say: Callable[[str], None] = lambda text: None, model: Any = None
) -> dict[str, Any]:
    """Tallies of ours and of each detector over files, with every mistake of ours; of TransNetV2 if it is given."""
    truth = read_truth(folder)
    hard = {name: Tally() for name in ("ours", *DETECTORS)}
    gradual, mistakes, read = Tally(), {}, 0
    for name in names:
        path, seen = folder / name, truth[name]
        video = probe(str(folder), name, path.stat().st_size, ProbeConfig())
        cuts, transitions, seconds = ours(video)
        read += len(seconds) > 0
        tally, false, missed = judge_cuts(cuts, seen, seconds)
        hard["ours"] += tally
        tally, false_gradual, missed_gradual = judge_gradual(transitions, seen, seconds)
        gradual += tally
        if false or missed or false_gradual or missed_gradual:
            mistakes[name] = {
                "false_cuts": false, "missed_cuts": missed, "false_gradual": false_gradual,
                "missed_gradual_s": missed_gradual,
            }  # fmt: skip
        others = theirs(video) | ({"TransNetV2": transnet_cuts(video, model)} if model is not None else {})
        for detector, found in others.items():
            hard[detector] = hard.get(detector, Tally()) + judge_cuts(found, seen, seconds)[0]
        say(f"{name}: {len(seconds)} frames, cuts {hard['ours'].caught} of {hard['ours'].wanted} so far")
    return {
        "files": read,
        "tolerance_frames": TOLERANCE_FRAMES,
        "hard": {name: _rates(tally) for name, tally in hard.items()},
        "gradual": {"ours": _rates(gradual)},
        "mistakes": mistakes,
    }


def _rates(tally: Tally) -> dict[str, Any]:
    precision, recall, f1 = (m.value for m in measures("", {"": tally}))
    return {
        "precision": precision, "recall": recall, "f1": f1, "n": tally.wanted, "false": tally.found - tally.right,
    }  # fmt: skip


def as_text(found: dict[str, Any]) -> str:
    """The comparison, best first."""
    lines = [
        f"{'hard cuts':<20} {'precision':>9} {'recall':>7} {'F1':>6} {'false':>6}  of {found['hard']['ours']['n']}"
    ]
    rows = sorted(found["hard"].items(), key=lambda kv: -(kv[1]["f1"] or 0))
    rows.append(("gradual, ours", found["gradual"]["ours"]))
    for name, r in rows:
        shown = [f"{r[k]:.3f}" if r[k] is not None else "-" for k in ("precision", "recall", "f1")]
        lines.append(f"{name:<20} {shown[0]:>9} {shown[1]:>7} {shown[2]:>6} {r['false']:>6}")
    lines += [f"{name}: {what}" for name, what in found["mistakes"].items()]
    return "\n".join(lines)


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("folder", type=Path, help="footage with CUTS.csv and INDEX.csv")
    ask.add_argument("--files", nargs="*", help="only these files")
    ask.add_argument("--without", nargs="*", default=[], help="not these files")
    ask.add_argument("--out", type=Path, help="also write the result here, as JSON")
    ask.add_argument("--transnet", help="weights of TransNetV2, to be compared too")
    words = ask.parse_args()
    model = None
    if words.transnet:
        from pipelines.shots import transnet

        model = transnet.load(words.transnet)
    names = [n for n in words.files or sorted(read_truth(words.folder)) if n not in words.without]
    found = compare(words.folder, names, lambda text: print(text, file=sys.stderr, flush=True), model)
    print(as_text(found))
    if words.out:
        words.out.parent.mkdir(parents=True, exist_ok=True)
        found |= {"date": time.strftime("%Y-%m-%d"), "without": words.without}
        words.out.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    best = max(found["hard"][name]["f1"] or 0 for name in DETECTORS)
    return 0 if (found["hard"]["ours"]["f1"] or 0) >= best else 1


if __name__ == "__main__":
    sys.exit(main())
