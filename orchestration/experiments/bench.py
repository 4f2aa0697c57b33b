"""What every experiment stands on: a root's clips, latents and autoencoder, and the runs of its arms.

Arms are trained one after the other in this process.  Whatever was finished before (an arm, a group of its samples)
is found by its content and not made again, so a command that was killed goes on, and two experiments that have an
arm in common train it once.
"""

import argparse
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestration.ask import Answer, Ask, say
from pipelines.running.lock import alone
from schemas.checkpoints import AUTOENCODER_CHECKPOINT
from schemas.errors import ModelError, UsageError
from schemas.latents import LATENTS
from schemas.manifest import MANIFEST
from schemas.settings import recipe
from schemas.store import Store
from trainer.config import DitSettings, SamplingConfig
from trainer.recipes import RECIPES

if TYPE_CHECKING:
    from trainer.experiments.arms import Arm
    from trainer.experiments.sampling import Reader, Wanted
    from trainer.experiments.training import Trained

FLOPS = 1.0e13
"""Operations of an arm where no steps are named: about 390 CPU seconds of the demo's transformer, 290 of `thorough`'s,
which is wider and so quicker per operation."""
_MFU = 0.36
"""Share of the matrix rate that trainings of this size reach (docs/log.md, 2026-11-26)."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}")
_MADE_BY = {MANIFEST: "manifest freeze", AUTOENCODER_CHECKPOINT: "train autoencoder", LATENTS: "stage latents"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """A root, ready for experiments."""

    question: Ask
    store: Store
    settings: DitSettings
    sampling: SamplingConfig
    rows: list[dict[str, Any]]
    """Every clip that can be trained on: its latent with the manifest's columns."""
    autoencoder: dict[str, Any]
    seeds: tuple[int, ...]
    threads: int

    @property
    def manifest(self) -> str:
        return str(self.rows[0]["manifest"])

    @property
    def is_rendered(self) -> bool:
        """All clips are of the world of known truth, so that prompts of that world and its probe mean something."""
        from trainer.checkpoint import knows_of

        return knows_of(self.store, [r["batch"] for r in self.rows]) == "synthetic"

    def needs_truth(self, what: str) -> None:
        """
        Raises:
            UsageError: If what a generated video shows cannot be read off it.
        """
        if not self.is_rendered:
            raise UsageError(
                f"{what} is read off generated videos by a probe that knows rendered footage only, and this root has "
                "other footage: use a root of `dailies demo`, or `experiment scaling`, which reads losses alone"
            )


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """A finished arm with what it made."""

    arm: "Arm"
    trained: "Trained"
    samples: list[dict[str, Any]]


def bench(question: Ask, args: argparse.Namespace) -> Bench:
    """Read what the experiment needs.

    Raises:
        UsageError: If the root lacks something, with the command that makes it; or an option is out of range.
    """
    name_of(args)
    store = question.readable()
    for table, command in _MADE_BY.items():
        if store.committed(table) is None:
            raise UsageError(f"root {store.root} has no table `{table.name}`: run `{question.command(command)}` first")
    if args.seeds < 1 or args.threads < 1 or (args.steps is not None and args.steps < 1):
        raise UsageError("--seeds, --steps and --threads are at least 1")
    config = question.config().trainer
    dit = config.dit
    if args.dit:
        own = [s.removeprefix("trainer.") for s in args.set or () if s.startswith("trainer.dit.")]
        dit = recipe(args.dit, RECIPES, own).dit
    settings = DitSettings(dit=dit, shape=config.shape)
    autoencoder = store.read(AUTOENCODER_CHECKPOINT).to_pylist()[0]
    from trainer.dit_stage import pick
    from trainer.dry_run import nothing

    whole = dataclasses.replace(dit, validation=dataclasses.replace(dit.validation, holdout=0.0))
    picked = pick(store, dataclasses.replace(settings, dit=whole))
    if not picked.rows:
        raise UsageError(nothing(picked.skipped))
    if {r["autoencoder"] for r in picked.rows} != {autoencoder["digest"]}:
        raise ModelError(f"latents are of another autoencoder: run `{question.command('stage latents')}` first")
    return Bench(
        question=question,
        store=store,
        settings=settings,
        sampling=dataclasses.replace(config.sampling, threads=args.threads),
        rows=picked.rows,
        autoencoder=autoencoder,
        seeds=tuple(range(args.seed, args.seed + args.seeds)),
        threads=args.threads,
    )


def name_of(args: argparse.Namespace) -> str:
    """The report's name, which becomes a folder.

    Raises:
        UsageError: If it is none.
    """
    name = str(args.name or args.experiment_command)
    if not _NAME.fullmatch(name) or name in ("arms", "latents"):
        raise UsageError(f"--name is letters, digits, dots and dashes, and not `arms` or `latents`; got `{name}`")
    return name


def run_arms(
    of: Bench, arms: Sequence["Arm"], wanted: Mapping[str, Sequence["Wanted"]], reader: "Reader | None"
) -> list[Run]:
    """Train each arm and make its videos, in order.

    Args:
        wanted: Prompts by the arm's name.
        reader: What reads the videos; None makes none.
    """
    from trainer.experiments.sampling import sample
    from trainer.experiments.training import train

    runs = []
    for number, arm in enumerate(arms, 1):
        steps = arm.settings.dit.optimizer.steps
        title = f"arm {number} of {len(arms)}: {arm.name} ({arm.says}), seed {arm.seed}, {steps} steps"
        say(title)
        with alone(of.store, f"experiments-{arm.key}", None):
            trained = train(of.store, arm)
            if trained.reused:
                say(f"  was trained before ({trained.facts['cpu_s']:.0f} CPU s)")
            rows = sample(of.store, trained, of.autoencoder, wanted[arm.name], of.sampling, reader) if reader else []
        runs.append(Run(arm, trained, rows))
    return runs


def forecast(of: Bench, arms: Sequence["Arm"], wanted: Mapping[str, Sequence["Wanted"]], judged: bool = True) -> Answer:
    """What the arms would take; trains nothing."""
    from trainer.experiments.arms import flops_of_a_step
    from trainer.experiments.training import is_trained
    from trainer.meter import gemm_rate

    rate = gemm_rate("cpu") * _MFU
    found: list[dict[str, Any]] = [
        {
            "name": arm.name,
            "says": arm.says,
            "seed": arm.seed,
            "clips": len(arm.rows),
            "steps": arm.settings.dit.optimizer.steps,
            "flops": float(arm.settings.dit.optimizer.steps * flops_of_a_step(arm.settings, arm.rows)),
            "videos": len(wanted[arm.name]) if judged else 0,
            "trained_already": is_trained(of.store, arm),
        }
        for arm in arms
    ]
    lines = []
    for a in found:
        end = "trained already" if a["trained_already"] else f"about {a['flops'] / rate:.0f} s"
        lines.append(
            f"{a['name']:<14} seed {a['seed']}  {a['clips']:>6} clips  {a['steps']:>7} steps  "
            f"{a['flops']:>9.3g} operations  {a['videos']:>4} videos  {end}"
        )
    left = sum(a["flops"] for a in found if not a["trained_already"]) / rate
    lines.append(f"training that is left: about {left:.0f} s at {_MFU:.0%} of this machine's matrix rate just now")
    return Answer({"arms": found, "seconds_left": round(left)}, "\n".join(lines))


def of_arm(runs: Sequence[Run], name: str) -> list[Run]:
    """An arm's runs, one per seed."""
    return [r for r in runs if r.arm.name == name]


def texts_of(rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """All that any arm reads, for the one tokenizer of all arms."""
    return tuple(t for r in rows for t in (r["short"], r["dense"], r.get("human")) if t)
