"""The plan: which samples are in which pack of which step.  Pure.

Order and packs follow from (manifest digest, seed, lengths, weights, budget, window).  The only state of
training order is one integer, the step: a resumed run, or a run on other workers, asks the plan for step n
and gets the same packs.  Each epoch is its own shuffle of every row; a row of weight 1.5 is seen once or
twice per epoch, by a draw that depends on the row and the epoch alone.  Epochs follow each other without a
seam, so that the last pack of an epoch is as full as any other.

The first epochs may be of images: each clip's first latent frame, which holds one picture, with the clip's caption.
What words say of a picture is learned from far fewer tokens then; Open-Sora and Movie Gen begin with images, too.
A share of the later visits may be of images, so that what was learned of them is kept and goes on.

Cost: packing restarts from step 0 after a resume (100,000 samples take under 1 s).
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from schemas.ids import CHANGED_ONLY
from trainer import randomness
from trainer.packing import pack_stream


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PlanConfig:
    """How samples become steps."""

    budget: int = 2048
    """Tokens of one pack. At least four times the longest sample keeps packs full."""
    window: int = 256
    """Samples that are packed together; a larger window fills better and shuffles no worse."""
    packs_per_step: int = 1
    """Packs of one optimiser step, over all processes."""
    image_epochs: int = dataclasses.field(default=0, metadata=CHANGED_ONLY)
    """Epochs at the start that see an image of each clip, its first latent frame, and nothing else of it."""
    image_share: float = dataclasses.field(default=0.0, metadata=CHANGED_ONLY)
    """Share of the visits after those epochs that see such an image, too, drawn for each visit, [0, 1)."""
    seed: int = 0
    """Seed of order, noise, noise level, task and caption choice."""

    def __post_init__(self) -> None:
        if min(self.budget, self.window, self.packs_per_step) < 1:
            raise ValueError("budget, window and packs_per_step must be at least 1")
        if self.image_epochs < 0:
            raise ValueError(f"image_epochs must be at least 0, got {self.image_epochs}")
        if not 0 <= self.image_share < 1:
            raise ValueError(f"image_share must lie in [0, 1), got {self.image_share}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What the plan knows of a sample."""

    tokens: int
    frames: int = 1
    """Latent frames, each of as many tokens."""
    weight: float = 1.0


def plan_rows(rows: Iterable[Mapping[str, Any]]) -> dict[str, Row]:
    """What the plan knows of manifest rows with their latents, by clip."""
    return {r["clip_id"]: Row(tokens=r["tokens"], frames=r["latent_frames"], weight=r["weight"]) for r in rows}


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Visit:
    """One appearance of a sample."""

    clip_id: str
    epoch: int
    visit: int
    """How often the sample was seen before."""
    image: bool = False
    """Whether only the first latent frame is seen."""


class Plan:
    """Packs by step, made on demand and kept."""

    def __init__(self, manifest: str, rows: Mapping[str, Row], config: PlanConfig) -> None:
        """
        Raises:
            ValueError: If there are no rows, or one is longer than the budget.
        """
        if not rows:
            raise ValueError("nothing to train on: the plan has no rows")
        longest = max(rows, key=lambda k: rows[k].tokens)
        if rows[longest].tokens > config.budget:
            raise ValueError(
                f"clip {longest} has {rows[longest].tokens} tokens and a pack holds {config.budget}: raise the budget"
            )
        self.config = config
        self._rows = dict(sorted(rows.items()))
        self._key = f"order {manifest}"
        self._packs: list[list[Visit]] = []
        self._stream = pack_stream(self._visits(), config.budget, config.window)

    def step(self, number: int) -> list[list[Visit]]:
        """The packs of a step."""
        end = (number + 1) * self.config.packs_per_step
        self._packs.extend(itertools.islice(self._stream, max(0, end - len(self._packs))))
        return self._packs[end - self.config.packs_per_step : end]

    def knows(self, clip_id: str) -> bool:
        """Whether a sample is trained on."""
        return clip_id in self._rows

    def tokens(self, visit: Visit) -> int:
        """Tokens that a visit sees."""
        row = self._rows[visit.clip_id]
        return row.tokens // row.frames if visit.image else row.tokens

    def fill(self, steps: int) -> float:
        """Share of the budget that the first `steps` steps fill."""
        used = sum(self.tokens(v) for s in range(steps) for pack in self.step(s) for v in pack)
        return used / (steps * self.config.packs_per_step * self.config.budget)

    def _visits(self) -> Iterator[tuple[Visit, int]]:
        seen = dict.fromkeys(self._rows, 0)
        for epoch in itertools.count():
            turn = []
            for clip_id, row in self._rows.items():
                whole = math.floor(row.weight)
                part = row.weight - whole
                more = part > 0 and randomness.uniform(self.config.seed, clip_id, epoch, "weight") < part
                turn.extend([clip_id] * (whole + more))
            if not turn and epoch > 10_000:
                raise ValueError("no row has a weight that lets it be drawn")
            for i in randomness.generator(self.config.seed, self._key, epoch, "order").permutation(len(turn)):
                clip_id, times = turn[i], seen[turn[i]]
                visit = Visit(clip_id, epoch, times, self._is_image(clip_id, epoch, times))
                yield visit, self.tokens(visit)
                seen[clip_id] += 1

    def _is_image(self, clip_id: str, epoch: int, visit: int) -> bool:
        if epoch < self.config.image_epochs:
            return True
        share = self.config.image_share
        return share > 0 and randomness.uniform(self.config.seed, clip_id, visit, "image") < share
