"""Arms of an experiment: runs that differ in one thing.  Pure.

An arm is the whole settings of a training run with the rows it trains on, and is named by content: the same arm of
two experiments, or of a command that was killed and started again, is trained once.  Order, packs, noise, noise levels
and tasks are keyed by (seed, clip, visit), so arms on the same rows see the same clips with the same noise in the same
steps, whatever they read of the captions.  One tokenizer is learned from the texts of all arms together.

Recaptioning (DALL-E 3, "Improving Image Generation with Better Captions", sections 3 and 4): the text that came with
the source ("human": terse, about the main subject) against captions of ours, short and dense, with a share of human
texts left in.  There 95 % dense won, on short prompts too.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from schemas.ids import digest
from schemas.rendering import RenderPolicy
from trainer.config import DitSettings
from trainer.flops import step_flops
from trainer.launch import LaunchConfig
from trainer.validate import ValidationConfig
from trainer.watch import WatchConfig

Row = Mapping[str, Any]
_VERSION = 1
HUMAN, SHORT, DENSE = "human-short", "short-95", "dense-95"
_BLENDS = (90, 80, 65)
_WORDS_PER_CAPTION = 20
"""Text tokens that a step's cost is forecast with."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """One run of an experiment."""

    name: str
    says: str
    """What sets it apart, for people."""
    settings: DitSettings
    rows: Sequence[Row]
    """Latents with the manifest's captions, as `dit_stage.pick` gives them."""
    held: Sequence[Row] = ()
    """Clips that are validated on and never trained on."""
    texts: Sequence[str] = ()
    """What the tokenizer learns from."""

    @property
    def seed(self) -> int:
        return self.settings.dit.plan.seed

    @property
    def key(self) -> str:
        """The arm's name by content: everything that its weights and its validation loss follow from."""

        def told(row: Row) -> list[Any]:
            texts = [row.get(k) for k in ("short", "dense", "human", "fields")]
            return [row["clip_id"], row["shard"], row["tokens"], row["weight"], *texts]

        rows = [[told(r) for r in some] for some in (self.rows, self.held)]
        first = self.rows[0]
        return digest("arm", _VERSION, self.settings, first["manifest"], first["autoencoder"], rows, self.texts)


@dataclasses.dataclass(frozen=True, slots=True)
class CaptionPolicy:
    """What an arm reads."""

    name: str
    says: str
    render: RenderPolicy


def caption_policies() -> dict[str, CaptionPolicy]:
    """The arms of DALL-E 3's two ablations by name, and one more that is not asked for by default (`dense-100`)."""
    alone = RenderPolicy(short=0.0)
    found = [
        CaptionPolicy(HUMAN, "the source's own short text alone", dataclasses.replace(alone, human=1.0)),
        CaptionPolicy(SHORT, "95 % short captions, 5 % human texts", RenderPolicy(short=0.95, human=0.05)),
        CaptionPolicy(DENSE, "95 % dense captions, 5 % human texts", dataclasses.replace(alone, human=0.05)),
    ]
    for share in _BLENDS:
        policy = dataclasses.replace(alone, human=(100 - share) / 100)
        says = f"{share} % dense captions, {100 - share} % human texts"
        found.append(CaptionPolicy(f"blend-{share}", says, policy))
    found.append(CaptionPolicy("dense-100", "dense captions alone", alone))
    return {p.name: p for p in found}


SAME_ARM = {"blend-95": DENSE}
"""Other names: DALL-E 3 lists its 95 % arm in both ablations."""


def plain(
    settings: DitSettings, *, steps: int, seed: int, threads: int, validation: ValidationConfig | None = None
) -> DitSettings:
    """A root's settings as an experiment uses them: one process, a schedule of its own, nothing looked at meanwhile.

    No epochs of images either: they are counted for the whole run, and a short arm would see nothing else.
    """
    dit = settings.dit
    optimizer = dataclasses.replace(
        dit.optimizer,
        steps=steps,
        threads=threads,
        warmup_steps=min(dit.optimizer.warmup_steps, max(1, steps // 10)),
    )
    return dataclasses.replace(
        settings,
        dit=dataclasses.replace(
            dit,
            plan=dataclasses.replace(dit.plan, seed=seed, image_epochs=0, image_share=0.0),
            optimizer=optimizer,
            validation=validation or ValidationConfig(),
            watch=WatchConfig(),
        ),
        launch=LaunchConfig(),
    )


def reading(settings: DitSettings, policy: CaptionPolicy) -> DitSettings:
    """The settings, with what is read of a caption replaced."""
    draw = dataclasses.replace(settings.dit.draw, short_captions=0.0, render=policy.render)
    return dataclasses.replace(settings, dit=dataclasses.replace(settings.dit, draw=draw))


def steps_for(flops: float, settings: DitSettings, rows: Sequence[Row]) -> int:
    """How many steps so many operations are, in two significant digits."""
    steps = max(1.0, flops / flops_of_a_step(settings, rows))
    return int(float(f"{steps:.1e}")) or 1


def flops_of_a_step(settings: DitSettings, rows: Sequence[Row]) -> int:
    """Operations of a full step, forecast: packs of samples of mean length, with captions of mean length."""
    plan, patch = settings.dit.plan, settings.shape.patch
    tokens = max(1, round(sum(r["tokens"] for r in rows) / len(rows)))
    samples = max(1, plan.budget * plan.packs_per_step // tokens)
    model, channels = settings.dit.model, rows[0]["channels"] * patch * patch
    return step_flops([(tokens, _WORDS_PER_CAPTION)] * samples, model, channels, model.text.width)
