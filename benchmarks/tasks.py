"""What the tasks keep: given pictures after decoding, joints, loops' seams, and how far SDEdit goes from its source.

    python -m benchmarks.tasks --root R [--clips 20] [--sheet docs/tasks.jpg]

Takes clips of the root that its model was not trained on (table `skipped`; all, where it left out none), asks
`dailies sample`'s own code for every task, and measures the files that come out.  Nothing is trained here; the root is
one whose recipe gave the tasks weights and views.  Cost: about a second a sample of 64 tokens at 24 steps.
"""

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.machine import Stopwatch, keep, machine, say
from orchestration.recipes import recipe, remembered
from pipelines.video.read import read_frames
from schemas.checkpoints import AUTOENCODER_CHECKPOINT, DIT_CHECKPOINT
from schemas.ledger import LEDGER, SKIPPED
from schemas.manifest import MANIFEST
from schemas.store import Store
from trainer import on_demand
from trainer.cyclic import steps_between
from trainer.on_demand import Outcome, sample_one
from trainer.sample_stage import load_generator
from trainer.sources import cover, open_source
from trainer.wishes import Wish

STRENGTHS = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
REGIONS = ("inpaint", "outpaint", "edit_region")
Row = dict[str, Any]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """dB of uint8 pictures, at most 100."""
    return min(100.0, 10 * float(np.log10(255.0**2 / max(1e-6, float(np.mean((a.astype(np.float64) - b) ** 2))))))


class Trial:
    """A root's model, and the clips it is tried on."""

    def __init__(self, root: str, most: int) -> None:
        self.store = Store(root)
        name, settings = remembered(root)
        self.config = recipe(name or "demo", settings).trainer
        rows = {r["clip_id"]: r for r in self.store.read(MANIFEST).to_pylist()}
        unseen = {r["clip_id"] for r in self.store.read(SKIPPED).to_pylist()} & set(rows)
        self.held_out = bool(unseen)
        chosen = sorted(unseen or rows)
        self.clips = [rows[c] for c in chosen if rows[c]["num_frames"] / rows[c]["fps"] >= 2.4][:most]
        checkpoints = [self.store.read(t).to_pylist()[0] for t in (DIT_CHECKPOINT, AUTOENCODER_CHECKPOINT)]
        generator = load_generator(self.store, *checkpoints)
        on_demand.__dict__["load_generator"] = lambda *_: generator  # once, not for every sample
        self.shown: dict[str, list[tuple[str, np.ndarray]]] = {}

    def make(self, clip: Row, **wish: Any) -> tuple[Outcome, np.ndarray]:
        made = sample_one(self.store, self.config.sampling, self.config.shape, Wish(prompt=clip["dense"], **wish))
        return made, read_frames(self.store.fetch(made.path))[0]

    def path(self, clip: Row) -> str:
        return str(self.store.fetch(clip["path"]))

    def source(self, clip: Row, made: Outcome) -> np.ndarray:
        f = made.facts
        return open_source(
            self.path(clip), f["fps"], lambda w, h: (f["made_at"]["width"], f["made_at"]["height"])
        ).pictures

    def show(self, task: str, name: str, video: np.ndarray) -> None:
        """Remember one video of a task for the contact sheet."""
        if len(self.shown.setdefault(task, [])) < 2:
            self.shown[task].append((name, video))


def image_to_video(trial: Trial, clip: Row, folder: Path) -> Row:
    picture = folder / "first.png"
    Image.fromarray(read_frames(trial.path(clip), max_frames=1)[0][0]).save(picture)
    made, video = trial.make(clip, image=str(picture), seconds=3.25)
    trial.show("image_to_video", clip["dense"], video)
    return {"file_db": psnr(video[:1], trial.source(clip, made)[:1]), **made.facts["kept"]}


def extended(way: str) -> Callable[[Trial, Row, Path], Row]:
    def measure(trial: Trial, clip: Row, folder: Path) -> Row:
        made, video = trial.make(clip, video=trial.path(clip), extend=way, frames=8)
        source = trial.source(clip, made)
        part = video[: len(source)] if way == "forward" else video[-len(source) :]
        trial.show(f"extend_{way}", clip["dense"], video)
        return {"file_db": psnr(part, source), **made.facts["kept"]}

    return measure


def connected(trial: Trial, clip: Row, folder: Path) -> Row:
    other = trial.clips[(trial.clips.index(clip) + 1) % len(trial.clips)]
    made, video = trial.make(clip, first=trial.path(clip), second=trial.path(other), frames=7)
    a, b = trial.source(clip, made), trial.source(other, made)
    trial.show("connect", clip["dense"], video)
    return {"file_db": min(psnr(video[: len(a)], a), psnr(video[-len(b) :], b)), **made.facts["kept"]}


def filled(trial: Trial, clip: Row, folder: Path) -> Row:
    made, video = trial.make(clip, video=trial.path(clip), gaps=((1.25, 1.9),))
    source, fps = trial.source(clip, made), made.facts["fps"]
    start = round(1.25 * fps)
    there = [i for i in range(len(source)) if not start <= i < start + 3]
    trial.show("fill_in", clip["dense"], video)
    gone = slice(start, start + 3)
    fade = np.stack([((3 - i) * source[start - 1].astype(float) + (i + 1) * source[start + 3]) / 4 for i in range(3)])
    return {
        "file_db": psnr(video[there], source[there]),
        "made_to_truth_db": psnr(video[gone], source[gone]),
        "crossfade_to_truth_db": psnr(fade, source[gone]),
        **made.facts["kept"],
    }


def in_region(task: str) -> Callable[[Trial, Row, Path], Row]:
    def measure(trial: Trial, clip: Row, folder: Path) -> Row:
        box = (0.0, 0.0, clip["width"] * 0.4, clip["height"] * 0.4)
        more = {"edit": True, "strength": 0.8} if task == "edit_region" else {}
        made, video = trial.make(clip, video=trial.path(clip), box=box, **more)
        source = trial.source(clip, made)[: len(video)]
        x, y, w, h = map(int, made.facts["given"]["region"].split(","))
        mask = np.ones(video.shape[1:3], dtype=bool)
        mask[y : y + h, x : x + w] = False
        trial.show(task, clip["dense"], video)
        return {"file_db": psnr(video[:, mask], source[:, mask]), **made.facts["kept"]}

    return measure


def outpainted(trial: Trial, clip: Row, folder: Path) -> Row:
    wide = clip["width"] < clip["height"]
    made, video = trial.make(clip, video=trial.path(clip), outpaint=(64, 48) if wide else (48, 64))
    x, y, w, h = map(int, made.facts["given"]["source_at"].split(","))
    source = open_source(trial.path(clip), made.facts["fps"], lambda _w, _h: (w, h)).pictures[: len(video)]
    trial.show("outpaint", clip["dense"], video)
    return {"file_db": psnr(video[:, y : y + h, x : x + w], source), **made.facts["kept"]}


def looped(trial: Trial, clip: Row, folder: Path) -> Row:
    size = {"width": 64, "height": 48}
    made, video = trial.make(clip, loop=True, frames=12, **size)
    _, plain = trial.make(clip, frames=12, **size)
    trial.show("loop", clip["dense"], video)
    steps, control, kept = steps_between(video), steps_between(plain), made.facts["kept"]
    return {
        **kept,
        "file_seam_over_median": float(steps[-1] / np.median(steps)),
        "join_over_latent_joins": kept["join_rms"] / max(1e-6, kept["latent_rms"]),
        "no_loop_join_over_latent_joins": float(control[-1] / np.median(control[:-1:4])),
    }


def at_strengths(trial: Trial, clip: Row, folder: Path) -> Row:
    found = {}
    for strength in STRENGTHS:
        made, video = trial.make(clip, video=trial.path(clip), strength=strength, seed=1)
        source = trial.source(clip, made)[: len(video)].astype(np.float64)
        found[f"rms_at_{strength:g}"] = float(np.sqrt(np.mean((video - source) ** 2)))
        if strength in (0.3, 0.7, 0.9):
            trial.show(f"video_to_video, strength {strength:g}", clip["dense"], video)
    far = [found[f"rms_at_{s:g}"] for s in STRENGTHS]
    return {**found, "monotone": float(all(a <= b for a, b in itertools.pairwise(far)))}


def drafted(trial: Trial, clip: Row, folder: Path) -> Row:
    """Whether the full size shows what the draft of its seed showed, against the plain full size of the same seed."""
    size = {"width": 128, "height": 96, "frames": 9}
    _, draft = trial.make(clip, draft=True, **size)
    _, full = trial.make(clip, from_draft=True, **size)
    _, plain = trial.make(clip, **size)
    trial.show("draft, then full size", clip["dense"], draft)
    trial.show("draft, then full size", clip["dense"], full)
    small = [np.stack([cover(p, draft.shape[2], draft.shape[1]) for p in v]) for v in (full, plain)]
    return {"from_draft_to_draft_db": psnr(small[0], draft), "plain_to_draft_db": psnr(small[1], draft)}


MEASURES: dict[str, Callable[[Trial, Row, Path], Row]] = {
    "image_to_video": image_to_video,
    "extend_forward": extended("forward"),
    "extend_backward": extended("backward"),
    "connect": connected,
    "fill_in": filled,
    "inpaint": in_region("inpaint"),
    "outpaint": outpainted,
    "edit_region": in_region("edit_region"),
    "loop": looped,
    "video_to_video": at_strengths,
    "draft": drafted,
}


def summary(rows: Sequence[Row]) -> Row:
    """Mean and least of each number, and how many there are."""
    names = sorted({k for r in rows for k in r})
    columns = {n: np.array([r[n] for r in rows if n in r]) for n in names}
    return {
        "n": len(rows),
        **{
            n: {"mean": round(float(v.mean()), 3), "least": round(float(v.min()), 3), "most": round(float(v.max()), 3)}
            for n, v in columns.items()
        },
    }


def verdicts(found: dict[str, Row]) -> dict[str, Any]:
    """What issue 5 asks for, and how it came out."""
    given = [t for t in found if "file_db" in found[t]]
    far = [found["video_to_video"][f"rms_at_{s:g}"]["mean"] for s in STRENGTHS]
    return {
        "given_file_db_least": {t: found[t]["file_db"]["least"] for t in given},
        "given_decoded_db_mean": {t: found[t]["given_db"]["mean"] for t in given},
        "given_frames_kept_at_28_db": all(found[t]["file_db"]["least"] >= 28 for t in given if t not in REGIONS),
        "given_regions_kept_at_28_db": all(found[t]["file_db"]["least"] >= 28 for t in given if t in REGIONS),
        "loop_seam_over_median_most": found["loop"]["file_seam_over_median"]["most"],
        "loop_seam_at_most_median": found["loop"]["file_seam_over_median"]["most"] <= 1,
        "strength_moves_the_mean_distance_monotonically": all(a < b for a, b in itertools.pairwise(far)),
    }


def sheet(shown: dict[str, list[tuple[str, np.ndarray]]], to: Path, columns: int = 13) -> None:
    """First videos of each task, a row each, as a JPEG."""
    lines = [(task, *video) for task, videos in shown.items() for video in videos]
    height, width = 52, 80
    page = Image.new("RGB", (columns * (width + 2), len(lines) * (height + 16)), "white")
    pen = ImageDraw.Draw(page)
    for y, (task, text, video) in enumerate(lines):
        pen.text((2, y * (height + 16) + 2), f"{task} ({len(video)} frames): {text}"[:160], fill="black")
        for x, i in enumerate(np.unique(np.linspace(0, len(video) - 1, min(columns, len(video))).round().astype(int))):
            tile = Image.fromarray(video[i])
            tile.thumbnail((width, height))
            page.paste(tile, (x * (width + 2), y * (height + 16) + 14))
    page.save(to, quality=80)


def main(argv: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--root", required=True, help="a root whose dit was trained with weights on the tasks")
    options.add_argument("--clips", type=int, default=20, help="clips per task (default: 20)")
    options.add_argument("--tasks", nargs="*", default=list(MEASURES), choices=list(MEASURES), help="only these")
    options.add_argument("--sheet", metavar="FILE", help="write a contact sheet there")
    args = options.parse_args(argv)
    started, clock = machine(), Stopwatch()
    trial = Trial(args.root, args.clips)
    drawn = trial.store.read(LEDGER, columns=["task"])["task"].value_counts().to_pylist()
    found: dict[str, Row] = {}
    folder = Path(trial.store.scratch())
    for task in args.tasks:
        rows = [MEASURES[task](trial, clip, folder) for clip in trial.clips]
        found[task] = summary(rows)
        say(f"{task}: {found[task]}")
    for left in folder.iterdir():
        left.unlink()
    folder.rmdir()
    if args.sheet:
        sheet(trial.shown, Path(args.sheet))
    if set(args.tasks) == set(MEASURES):
        model = trial.store.read(LEDGER, columns=["step"])["step"]
        facts = {
            "clips": len(trial.clips),
            "held_out": trial.held_out,
            "steps": max(model.to_pylist()) + 1,
            "drawn": {d["values"]: d["counts"] for d in drawn},
            "sampling": {
                k: v for k, v in dataclasses.asdict(trial.config.sampling).items() if k in ("steps", "guidance")
            },
            "seconds": clock(),
        }
        command = "python -m benchmarks.tasks " + " ".join(sys.argv[1:] if argv is None else argv)
        keep("tasks", {**facts, "verdicts": verdicts(found), "tasks": found}, command, started)
        say(str(verdicts(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
