"""One video on demand: from what a person asks for to a signed file, whatever the task.

A wish becomes jobs (`wishes.py`): a size in whole cells, which pictures are given in which layout, and what of the
source stands before and after.  Here they are made, joined, trimmed to the size that was asked for, written and signed.
With `from_draft` the small draft of the same seed is made first, enlarged, noised to `draft_strength` and finished at
full size (SDEdit), so that it shows what the draft showed.

Cost: 2 x steps forward passes per job, one encoding of what is given, one decode.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipelines.execute import Progress
from schemas.checkpoints import AUTOENCODER_CHECKPOINT, DIT_CHECKPOINT
from schemas.ids import digest
from schemas.latents import LATENTS
from schemas.ledger import LEDGER
from schemas.store import Store
from trainer.config import SamplingConfig
from trainer.sample import Generator, Made, Request
from trainer.sample_stage import load_generator, sample_row, strip, write_sample
from trainer.shapes import PixelShape, ShapeConfig
from trainer.sources import cover
from trainer.wishes import Bench, Job, Wish, jobs

_LIKE = {"edit_region": "inpaint", "inpaint": "edit_region"}
"""Tasks whose layouts are the same."""


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """A file and everything that is to be said of it."""

    path: str
    """Relative to the root."""
    facts: dict[str, Any]


def sample_one(store: Store, config: SamplingConfig, shape: ShapeConfig, wish: Wish) -> Outcome:
    """Make one video with the root's current checkpoints.

    Raises:
        UsageError: If the wish cannot be met: a refused prompt, a file that does not read, a size over the limit.
        ConfigError: If torch has no such device here.
        ModelError, MissingTable: If a checkpoint is missing or damaged.
    """
    for text in dict.fromkeys((wish.prompt, wish.prompt_used or wish.prompt)):
        config.policy.check(text)
    dit = store.read(DIT_CHECKPOINT).to_pylist()[0]
    autoencoder = store.read(AUTOENCODER_CHECKPOINT).to_pylist()[0]
    generator = load_generator(store, dit, autoencoder, config.device)
    bench = Bench(generator.sizes, config.fps or generator.fps, shape, config.max_tokens)
    result = _carry_out(generator, bench, config, wish)
    task, given = result.job.task, {**result.job.files, **result.job.asked}
    name = digest("sample", _unnamed(wish), given, config, shape, dit["digest"])
    row = dataclasses.replace(
        sample_row({"prompt_id": name, "prompt": wish.prompt, "seed": wish.seed}, dit, autoencoder, config, ""),
        width=result.pictures.shape[2],
        height=result.pictures.shape[1],
        num_frames=len(result.pictures),
        fps=bench.fps,
        task=task,
    )
    used = wish.prompt_used or wish.prompt
    path = write_sample(store, result.pictures, bench.fps, row, config, prompt_used=used, given=given)
    sheet = ""
    if len(result.pictures) > 1:
        sheet = write_sample(
            store, strip(result.pictures)[None], 1.0, row, config, prompt_used=used, given=given, suffix=".sheet.png"
        )
    size = result.job.size
    facts = {
        "task": task,
        "prompt": wish.prompt,
        "prompt_used": used,
        "seed": wish.seed,
        "width": row.width,
        "height": row.height,
        "frames": row.num_frames,
        "fps": bench.fps,
        "seconds": round(row.num_frames / bench.fps, 3),
        "steps": config.steps,
        "guidance": config.guidance,
        "strength": result.job.given.strength if result.job.given else 1.0,
        "tokens": result.job.tokens,
        "made_at": {"width": size.width, "height": size.height, "frames": result.made_frames},
        "trimmed": {"rows": size.trimmed[0], "columns": size.trimmed[1], "frames": result.trimmed_frames},
        "given": given,
        "kept": {k: round(v, 2) for k, v in result.kept.items()},
        "sheet": store.at(sheet) if sheet else "",
        "checkpoint": dit["digest"],
        "notes": [*result.job.notes, *_warnings(store, task, result.job.tokens)],
    }
    return Outcome(path, facts)


def _unnamed(wish: Wish) -> Wish:
    """The wish without the names of its files: a sample is named by their contents."""
    return dataclasses.replace(wish, image="", video="", first="", second="", mask="")


@dataclasses.dataclass(frozen=True, slots=True)
class _Result:
    pictures: np.ndarray
    job: Job
    kept: dict[str, float]
    made_frames: int
    trimmed_frames: int


def _carry_out(generator: Generator, bench: Bench, config: SamplingConfig, wish: Wish) -> _Result:
    """All jobs of a wish, each on what the one before it left (a video with several gaps)."""
    done: _Result | None = None
    before: np.ndarray | None = None
    kept: dict[str, float] = {}
    for job in jobs(wish, bench):
        if wish.from_draft and not wish.draft:
            job = _from_draft(generator, bench, config, wish, job)
        made = _make(generator, bench, config, wish, job)
        pictures = made.pictures[job.keep]
        parts = [p for p in (before, job.before, pictures, job.after) if p is not None and len(p)]
        joined = np.concatenate(parts)
        kept = {k: min(v, kept.get(k, v)) for k, v in made.kept.items()}
        rows, columns = job.size.window()
        trimmed = len(made.pictures) - len(pictures)
        done = _Result(joined[:, rows, columns], job, kept, len(made.pictures), trimmed)
        before = joined
    assert done is not None
    return done


def _make(generator: Generator, bench: Bench, config: SamplingConfig, wish: Wish, job: Job) -> Made:
    progress = Progress(job.task, config.steps, "step")
    shape = PixelShape(1 + (job.slots - 1) * bench.sizes.time, job.size.height, job.size.width)
    request = Request(wish.prompt_used or wish.prompt, wish.seed, job.given)
    (made,) = generator.make([request], shape, config, functools.partial(progress.advance, 1))
    progress.close()
    return made


def _from_draft(generator: Generator, bench: Bench, config: SamplingConfig, wish: Wish, job: Job) -> Job:
    """The same job, begun from its enlarged draft."""
    (small,) = jobs(dataclasses.replace(wish, draft=True), bench)
    draft = _make(generator, bench, config, wish, small).pictures
    source = np.stack([cover(p, job.size.width, job.size.height) for p in draft])
    return job.started_from(source, config.draft_strength)


def _warnings(store: Store, task: str, tokens: int) -> list[str]:
    """What the training of this root's model lets one doubt."""
    found = []
    if store.committed(LATENTS):
        longest = max(store.read(LATENTS, columns=["tokens"])["tokens"].to_pylist(), default=0)
        if tokens > longest:
            found.append(f"{tokens} tokens, and the longest clip of the training had {longest}: expect less than there")
    if store.committed(LEDGER):
        trained = set(store.read(LEDGER, columns=["task"])["task"].unique().to_pylist())
        if task not in ("loop", "video_to_video", "text_to_image") and not {task, _LIKE.get(task, task)} & trained:
            found.append(f"this model was never trained on `{task}` (dit.draw.tasks): expect poor joins")
    return found


def as_text(facts: Mapping[str, Any], path: str) -> str:
    """Path and what matters, for people."""
    kept = {"given_db": "given, as decoded", "reconstruction_db": "against its reconstruction", "joint_db": "at joints"}
    lines = [
        path,
        f"{facts['task']}, {facts['width']}x{facts['height']}, {facts['frames']} frames, {facts['seconds']} s",
    ]
    trimmed = facts["trimmed"]
    if any(trimmed.values()):
        made = facts["made_at"]
        lines.append(
            f"made at {made['width']}x{made['height']} with {made['frames']} frames; trimmed {trimmed['rows']} rows, "
            f"{trimmed['columns']} columns, {trimmed['frames']} frames"
        )
    if "seam_rms" in facts["kept"]:
        lines.append(
            "difference at the seam {seam_rms:.2f}, between neighbours {median_rms:.2f} (median, RMS of 255)".format(
                **facts["kept"]
            )
        )
    elif facts["kept"]:
        told = ", ".join(f"{kept[k]} {v:.1f} dB" for k, v in facts["kept"].items())
        lines.append(f"given pictures are put back as they were; PSNR before that: {told}")
    lines += [f"contact sheet {facts['sheet']}"] if facts["sheet"] else []
    return "\n".join([*lines, *(f"note: {n}" for n in facts["notes"])])
