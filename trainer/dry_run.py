"""`dailies train dit --dry-run`: what would be trained, what would not and why, and what it would take.

Nothing is trained and nothing written.  Tokens, packs, fill and operations are those of the run itself, because the
plan is a pure function; memory is the exact size of weights, gradients, moments and average, and an estimate for
activations.  Where nothing would be trained it refuses.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from schemas.errors import ModelError
from trainer.config import DitSettings
from trainer.flops import step_flops
from trainer.model.config import SIZES
from trainer.model.dit import DiT, num_parameters
from trainer.model.text import encode, train_tokenizer
from trainer.plan import Plan, plan_rows

_STEPS_LOOKED_AT = 200
_ACTIVATION_FLOATS = 34  # per token, block and width: what backward keeps of a block with an MLP of ratio 4


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a run would be."""

    manifest: str
    rows: int
    skipped: Mapping[str, str]
    """Clip to reason."""
    tokens: int
    """Of one pass over the rows."""
    longest_tokens: int
    steps: int
    packs_per_step: int
    epochs: float
    """Passes over the rows."""
    image_steps: int
    """Steps at the start that hold the epochs of images; where these end, a few hold clips, too."""
    image_visits: float
    """Share of all visits that see an image of their clip."""
    fill: float
    """Share of the budget that these steps fill, or the first 200 of them."""
    padding_tokens: int
    parameters: int
    state_bytes: int
    """Weights, gradients, two moments and the average, float32."""
    activation_bytes: int
    """Estimate for the largest pack."""
    flops_per_step: float
    flops: float

    @property
    def reasons(self) -> dict[str, int]:
        return dict(Counter(self.skipped.values()))


def forecast(rows: Sequence[Mapping[str, Any]], skipped: Mapping[str, str], settings: DitSettings) -> Forecast:
    """Plan the run.

    Raises:
        ModelError: If no row is left to train on; says why the others are not.
    """
    if not rows:
        raise ModelError(nothing(skipped))
    config, patch = settings.dit, settings.shape.patch
    texts = [t for r in rows for t in (r["short"], r["dense"]) if t]
    tokenizer = None if config.model.text.pretrained else train_tokenizer(texts, config.model.text)
    channels = rows[0]["channels"] * patch * patch
    model = DiT(config.model, channels, tokenizer)
    words = {
        r["clip_id"]: len(encode(tokenizer, r["dense"], config.model.text.max_tokens))
        if tokenizer is not None
        else config.model.text.max_tokens
        for r in rows
    }
    plan = Plan(rows[0]["manifest"], plan_rows(rows), config.plan)
    steps = config.optimizer.steps
    looked_at = (
        steps if config.plan.image_epochs else min(steps, _STEPS_LOOKED_AT)
    )  # epochs of images are unlike others
    packs = [plan.step(n) for n in range(looked_at)]
    seen = list(itertools.chain.from_iterable(p for step in packs for p in step))
    samples = [(plan.tokens(v), words[v.clip_id]) for v in seen]
    flops = step_flops(samples, config.model, channels, model.text.width) / looked_at
    parameters = num_parameters(model)
    largest = max(sum(plan.tokens(v) for v in pack) for step in packs for pack in step)
    depth, width, _ = SIZES[config.model.size]
    return Forecast(
        manifest=rows[0]["manifest"],
        rows=len(rows),
        skipped=skipped,
        tokens=sum(r["tokens"] for r in rows),
        longest_tokens=max(r["tokens"] for r in rows),
        steps=steps,
        packs_per_step=config.plan.packs_per_step,
        image_steps=sum(any(v.epoch < config.plan.image_epochs for pack in step for v in pack) for step in packs),
        image_visits=round(sum(v.image for v in seen) / len(seen), 4),
        epochs=round(len(seen) / looked_at * steps / len(rows), 2),
        fill=round(plan.fill(looked_at), 4),
        padding_tokens=0,
        parameters=parameters,
        state_bytes=4 * 5 * parameters,
        activation_bytes=4 * largest * depth * width * _ACTIVATION_FLOATS,
        flops_per_step=flops,
        flops=flops * steps,
    )


def nothing(skipped: Mapping[str, str]) -> str:
    """Why there is nothing to train on."""
    reasons = ", ".join(f"{count} x {why}" for why, count in Counter(skipped.values()).most_common())
    why = f"every manifest row was left out ({reasons})" if reasons else "the manifest is empty"
    return f"nothing to train on: {why}"


def as_text(found: Forecast) -> str:
    """For people."""
    lines = [
        f"manifest      {found.manifest}",
        f"rows          {found.rows} to train on, {len(found.skipped)} not",
        *(f"  {count:>5}  {why}" for why, count in sorted(found.reasons.items(), key=lambda kv: -kv[1])),
        f"tokens        {found.tokens:,} a pass, longest sample {found.longest_tokens:,}",
        f"steps         {found.steps:,} of {found.packs_per_step} pack(s), {found.epochs:g} passes over the rows",
        *_images(found),
        f"fill          {found.fill:.2%} of the budget, {found.padding_tokens} padding tokens",
        f"model         {found.parameters:,} parameters",
        f"memory        {_size(found.state_bytes)} weights and optimiser, "
        f"about {_size(found.activation_bytes)} activations",
        f"compute       {found.flops_per_step:.3g} FLOP a step, {found.flops:.3g} in all",
    ]
    return "\n".join(lines)


def _images(found: Forecast) -> list[str]:
    if not found.image_visits:
        return []
    first = f"alone in the first {found.image_steps:,} steps, " if found.image_steps else ""
    return [f"images        {first}{found.image_visits:.0%} of all visits: a clip's first latent frame"]


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
