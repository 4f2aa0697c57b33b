"""The stage `dit`: manifest and latents to a trained transformer and its ledger.

A checkpoint folder holds the average weights (`model.safetensors`, what sampling uses), the last weights, the
config, the tokenizer, the metrics of every step and a card that names the manifest.  Rows that cannot be
trained on are counted by reason; if none is left, the stage stops and says why.
"""

import collections
import dataclasses
import functools
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from pipelines.execute import Context, Output, RunLog
from schemas.checkpoints import DIT_CHECKPOINT, Checkpoint
from schemas.errors import ModelError
from schemas.ids import canonical_json, digest
from schemas.latents import LATENTS
from schemas.ledger import LEDGER, SKIPPED, SkippedRow
from schemas.manifest import MANIFEST
from schemas.store import Store
from schemas.validation import VALIDATION
from trainer import randomness
from trainer.checkpoint import file_digest, knows_of, read_tensors, run_folder, write_card
from trainer.config import DitSettings
from trainer.data import Samples
from trainer.determinism import deterministic
from trainer.device import present
from trainer.diary import Diary
from trainer.dry_run import nothing
from trainer.latent_check import not_finite
from trainer.launch import LaunchConfig, launch
from trainer.model.config import ModelConfig, TextConfig
from trainer.model.dit import DiT, num_parameters
from trainer.model.text import train_tokenizer
from trainer.parallelize import ALONE, World, check_packs
from trainer.plan import Plan, plan_rows
from trainer.selection import choose
from trainer.shapes import Compression
from trainer.snapshots import Snapshots
from trainer.train import Trainer, fit
from trainer.validate import HELD_OUT, is_held_out, summary
from trainer.watch import Watch, latest

WEIGHTS = "model.safetensors"
_SPEED = "speed.json"
_MEASURED = 256  # clips whose latents say what variance each channel has


def run(context: Context) -> Output:
    """Train on every manifest row that has a latent."""
    settings: DitSettings = context.settings
    picked = pick(context.store, settings)
    rows, skipped = picked.rows, dict(picked.skipped)
    if not rows:
        raise ModelError(nothing(skipped))
    left_out = collections.Counter(skipped.values())
    manifest = rows[0]["manifest"]
    key = digest(context.made_by, manifest, [(r["clip_id"], r["shard"]) for r in rows])
    snapshots = Snapshots(run_folder(context.store, "dit", key), settings.dit.optimizer.snapshot_every_s)
    speed: dict[str, float] = {}
    trainer, diary = train(context.store, picked, settings, snapshots, key, speed)
    ledger, validation = diary.ledger(), diary.validation()
    losses = _losses(ledger)
    facts: dict[str, Any] = {
        "rows": len(rows),
        "rows_left_out": sum(left_out.values()),
        "left_out": canonical_json(left_out),
        "parameters": num_parameters(trainer.model),
        "tokens": sum(ledger["tokens"].to_pylist()),
        "fill": round(trainer.plan.fill(settings.dit.optimizer.steps), 4),
        "padding_tokens": 0,
        "loss_first": losses[0],
        "loss_last": losses[1],
        "steps_skipped": sum("skipped" in line for line in diary.metrics()),
        **summary(validation.to_pylist()),
        "manifest": manifest,
        "knows": knows_of(context.store, [r["batch"] for r in rows]),
    }
    table = _publish(context, trainer, facts, snapshots, rows[0]["autoencoder"])
    snapshots.clear()
    seen = set(ledger["clip_id"].to_pylist())
    skipped |= {r["clip_id"]: "the run ended before its turn" for r in rows if r["clip_id"] not in seen}
    left = [SkippedRow(clip_id=c, manifest=manifest, reason=w, made_by=context.made_by) for c, w in skipped.items()]
    tables = {
        DIT_CHECKPOINT.name: table,
        LEDGER.name: ledger,
        SKIPPED.name: SKIPPED.from_rows(left),
        VALIDATION.name: validation,
    }
    rounded = {k: float(f"{v:.4g}") for k, v in speed.items()}
    return Output(tables, metrics={**facts, **rounded}, pictures=latest(_pictures(context.store, key)))


def train(
    store: Store,
    picked: "Picked",
    settings: DitSettings,
    snapshots: Snapshots,
    key: str,
    speed: dict[str, float],
) -> tuple[Trainer, Diary]:
    """Train on these rows, here or in as many processes as the settings ask for; returns the trainer and its diary."""
    if settings.launch.launcher != "ray":  # whose workers may be other machines
        present(settings.dit.optimizer.device, "trainer.dit.optimizer.device")
    work = functools.partial(_work, store.root, picked, settings, os.fspath(snapshots.folder), key)
    with deterministic(settings.dit.optimizer.threads):
        if settings.launch.here:
            trainer = work(None, speed=speed)
        else:
            launch(work, settings.launch, settings.dit.optimizer.device, snapshots.folder)
            alone = dataclasses.replace(settings, launch=LaunchConfig())
            trainer = build(store, picked.rows, alone, picked.rows[0]["manifest"], held=picked.held)
            trainer.restore(snapshots)
            trainer.close()
            speed.update(json.loads((snapshots.folder / _SPEED).read_text()))
    return trainer, Diary(snapshots.folder, trainer.step)


def _work(
    root: str,
    picked: "Picked",
    settings: DitSettings,
    folder: str,
    key: str,
    world: World | None,
    speed: dict[str, float] | None = None,
) -> Trainer:
    """What each process does: all of training but for publishing."""
    store = Store(root)
    snapshots = Snapshots(folder, settings.dit.optimizer.snapshot_every_s, world or ALONE)
    found: dict[str, float] = {} if speed is None else speed
    with deterministic(settings.dit.optimizer.threads):
        trainer = build(store, picked.rows, settings, picked.rows[0]["manifest"], world, picked.held)
        fit(
            trainer,
            snapshots,
            log=functools.partial(RunLog, store, "dit", key),
            capsules=store.on_this_machine("logs", "dit", key, "capsules"),
            validation=settings.dit.validation,
            watch=_watch(store, key, settings, trainer.world),
            speed=found,
        )
    if trainer.world.first:
        (snapshots.folder / _SPEED).write_text(json.dumps(found))
    return trainer


def _watch(store: Store, key: str, settings: DitSettings, world: World) -> Callable[[Trainer], None] | None:
    """What makes videos of fixed prompts, where that was asked for and this process takes part in it."""
    config = settings.dit.watch
    if not config.every or not (world.first or settings.launch.mode == "shard"):
        return None
    watcher = Watch(store, _pictures(store, key), config, settings.shape.train_fps)

    def watch(trainer: Trainer) -> None:
        if trainer.step % config.every == 0:
            watcher.look(trainer)

    return watch


def _pictures(store: Store, key: str) -> Path:
    return store.on_this_machine("logs", "dit", key, "pictures")


@dataclasses.dataclass(frozen=True, slots=True)
class Picked:
    """The root's manifest, row by row: to train on, to validate on, or not to be used and why."""

    rows: list[dict[str, Any]]
    held: list[dict[str, Any]]
    skipped: dict[str, str]
    """Clip to reason; held out rows are among them."""


def pick(store: Store, settings: DitSettings) -> Picked:
    """Every manifest row has its place.

    Raises:
        ConfigError: If it is another manifest, a condition that is none, or more processes than packs in a step.
        ModelError: If latents do not read.
    """
    dit = settings.dit
    check_packs(dit.plan.packs_per_step, settings.launch.workers, settings.launch.mode)
    latents = store.read(LATENTS).to_pylist()
    budget = dit.plan.budget
    rows, skipped = choose(store.read(MANIFEST), latents, where=dit.where, expected=dit.manifest, budget=budget)
    skipped |= not_finite(store, rows)
    share = dit.validation.holdout
    held = [r for r in rows if r["clip_id"] not in skipped and is_held_out(r["clip_id"], share)]
    skipped |= {r["clip_id"]: HELD_OUT for r in held}
    return Picked([r for r in rows if r["clip_id"] not in skipped], held, skipped)


def selected(store: Store, settings: DitSettings) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rows of the root's manifest to train on, and clip to reason for the others."""
    picked = pick(store, settings)
    return picked.rows, picked.skipped


def build(
    store: Store,
    rows: list[dict[str, Any]],
    settings: DitSettings,
    manifest: str,
    world: World | None = None,
    held: Sequence[dict[str, Any]] = (),
    texts: Sequence[str] | None = None,
) -> Trainer:
    """Model, plan and data for these rows.

    Args:
        held: Rows that are known and never trained on.
        texts: What the tokenizer learns from; None takes the rows' captions.
    """
    config, patch = settings.dit, settings.shape.patch
    torch.manual_seed(randomness.torch_seed(config.plan.seed, "dit"))
    begun = _begun(store, config.start_from, config.model, rows[0]["autoencoder"]) if config.start_from else None
    tokenizer = None
    if begun is not None:
        tokenizer = begun.tokenizer
    elif not config.model.text.pretrained:
        words = [t for r in rows for t in (r["short"], r["dense"]) if t] if texts is None else list(texts)
        tokenizer = train_tokenizer(words, config.model.text)
    samples = Samples(store, [*rows, *held], patch)
    plan = Plan(manifest, plan_rows(rows), config.plan)
    model = DiT(config.model, rows[0]["channels"] * patch * patch, tokenizer)
    if begun is not None:
        model.load_state_dict(begun.weights)
    elif config.model.linear_guess:
        model.variance.copy_(samples.variance(sorted(r["clip_id"] for r in rows)[:_MEASURED]))
    return Trainer(
        model,
        samples,
        plan,
        optimizer=config.optimizer,
        draw=config.draw,
        flow=config.flow,
        sizes=sizes_of(rows[0], patch),
        manifest=manifest,
        world=world,
        launch=settings.launch,
    )


def sizes_of(row: dict[str, Any], patch: int) -> Compression:
    """The autoencoder's compression, from what it did to a clip."""
    time = 4 if row["latent_frames"] == 1 else (row["pixel_frames"] - 1) // (row["latent_frames"] - 1)
    return Compression(time=time, space=row["pixel_height"] // row["latent_height"], patch=patch)


def _losses(ledger: pa.Table) -> tuple[float, float]:
    """Mean loss over the first and the last tenth of the samples seen."""
    losses = ledger["loss"].to_pylist()
    tenth = max(1, len(losses) // 10)
    return sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth


def _publish(
    context: Context, trainer: Trainer, facts: dict[str, Any], snapshots: Snapshots, autoencoder: str
) -> pa.Table:
    folder = Path(context.store.scratch())
    name = write_model(folder, trainer, context.settings, autoencoder)
    save_file({k: v.contiguous() for k, v in trainer.model.state_dict().items()}, folder / "last.safetensors")
    shutil.copy(snapshots.folder / "metrics.jsonl", folder / "metrics.jsonl")
    notes = ["Video diffusion transformer. Which rows each step saw is in table `ledger`."]
    write_card(folder, "Video DiT", {**facts, "steps": trainer.step, "autoencoder": autoencoder}, notes)
    row = Checkpoint(
        digest=name,
        kind="dit",
        path=context.store.publish_folder(folder, "checkpoints", "dit", name),
        knows=facts["knows"],
        trained_on=facts["manifest"],
        steps=trainer.step,
        metrics=canonical_json({k: v for k, v in facts.items() if isinstance(v, (int, float))}),
        made_by=context.made_by,
    )
    return DIT_CHECKPOINT.from_rows([row])


def write_model(folder: Path, trainer: Trainer, settings: DitSettings, autoencoder: str) -> str:
    """The average weights with all that sampling needs to know; returns their digest."""
    save_file({k: v.contiguous() for k, v in trainer.average.items()}, folder / WEIGHTS)
    trainer.model.text.save(folder)
    config = {
        "model": dataclasses.asdict(settings.dit.model),
        "flow": dataclasses.asdict(settings.dit.flow),
        "compression": dataclasses.asdict(trainer.sizes),
        "token_channels": trainer.model.token_channels,
        "train_fps": settings.shape.train_fps,
        "autoencoder": autoencoder,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True))
    return _digest(folder)


def _digest(folder: Path) -> str:
    tokenizer = folder / "tokenizer.json"
    more = tokenizer.read_text() if tokenizer.exists() else ""
    return file_digest(folder / WEIGHTS, (folder / "config.json").read_text(), more)


@dataclasses.dataclass(frozen=True)
class _Begun:
    """What training begins with."""

    weights: dict[str, torch.Tensor]
    tokenizer: Tokenizer | None


def _begun(store: Store, path: str, model: ModelConfig, autoencoder: str) -> _Begun:
    """The checkpoint that `start_from` names.

    Raises:
        ModelError: If it does not read, or is of another model or of another autoencoder's latents.
    """
    folder = Path(path) if os.path.isdir(path) else Path(store.fetch(path)) if store.exists(path) else None
    if folder is None or not (folder / "config.json").is_file():
        raise ModelError(f"trainer.dit.start_from: no dit checkpoint at `{path}` (`checkpoints/dit/...` of a root)")
    config, tokenizer = _described(folder)
    if ModelConfig(**config["model"]) != model:
        raise ModelError(f"trainer.dit.start_from: checkpoint `{path}` is of another model than trainer.dit.model")
    if config["autoencoder"] != autoencoder:
        raise ModelError(
            f"trainer.dit.start_from: checkpoint `{path}` was trained on latents of autoencoder "
            f"{config['autoencoder']}, these are of {autoencoder}"
        )
    return _Begun(read_tensors(folder / WEIGHTS), tokenizer)


def _described(folder: Path) -> tuple[dict[str, Any], Tokenizer | None]:
    """A checkpoint's config, with `model` ready for `ModelConfig`, and its tokenizer."""
    config = json.loads((folder / "config.json").read_text())
    config["model"]["text"] = TextConfig(**config["model"]["text"])
    path = os.path.join(folder, "tokenizer.json")
    return config, Tokenizer.from_file(path) if os.path.exists(path) else None


def loaded(store: Store, row: dict[str, Any]) -> tuple[DiT, dict[str, Any]]:
    """The model of a checkpoint row (average weights) and its config.

    Raises:
        ModelError: If its folder is not what the row says.
    """
    folder = Path(store.fetch(row["path"]))
    try:
        if _digest(folder) != row["digest"]:
            raise ModelError(f"checkpoint {row['path']} is not what its digest says; delete it and run `dit` again")
        config, tokenizer = _described(folder)
    except OSError as e:
        raise ModelError(f"checkpoint {row['path']} does not read ({e}); delete it and run `dit` again") from e
    model = DiT(ModelConfig(**config["model"]), config["token_channels"], tokenizer)
    model.load_state_dict(read_tensors(folder / WEIGHTS))
    return model.eval().requires_grad_(False), config
