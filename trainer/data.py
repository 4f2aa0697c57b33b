"""Tables to samples: what each visit of the plan becomes, and packs of them.

A visit's noise, noise level, task, caption and caption dropout come from the counter-based generator, keyed by
(seed, clip, visit, purpose): the same in any pack, on any worker, before and after a resume.
Latents are read from their shards when first needed and kept.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from schemas.captions import Fields, fields_of
from schemas.errors import ModelError
from schemas.rendering import Texts, render
from schemas.store import Store
from trainer import randomness
from trainer.config import DrawConfig
from trainer.flow import FlowConfig, draw_t, interpolate, target
from trainer.model.dit import Pack
from trainer.model.patch import patchify
from trainer.model.rope import coordinates
from trainer.plan import Visit
from trainer.shapes import Compression, TokenGrid
from trainer.tasks import draw
from trainer.tasks.base import Layout, Views, parse_views


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """A clip to train on."""

    clip_id: str
    shard: str
    grid: TokenGrid
    seconds_per_frame: float
    short: str
    dense: str
    views: Views = Views()
    fields: Fields | None = None
    human: str = ""

    @property
    def texts(self) -> Texts:
        """What is known of the clip in words."""
        return Texts(short=self.short, dense=self.dense, fields=self.fields, human=self.human)


@dataclasses.dataclass(frozen=True, slots=True)
class Drawn:
    """A visit with everything decided."""

    visit: Visit
    task: str
    layout: Layout
    caption: str
    """short, dense, json, human or none."""
    text: str
    t: float
    given: np.ndarray
    noise: np.ndarray
    positions: np.ndarray


@dataclasses.dataclass(frozen=True)
class Batch:
    """A pack with what the model should answer."""

    pack: Pack
    target: torch.Tensor
    drawn: tuple[Drawn, ...]

    def losses(self, velocity: torch.Tensor) -> torch.Tensor:
        """Mean squared error of each sample over its generated tokens; no sample's rounding depends on another."""
        error = (velocity - self.target).square().mean(dim=1)
        lengths = list(self.pack.lengths)
        parts = zip(error.split(lengths), self.pack.given.split(lengths))
        return torch.stack([e[~g].mean() for e, g in parts])


class Samples:
    """The clips that have latents, and their latents."""

    def __init__(self, store: Store, rows: Sequence[Mapping[str, Any]], patch: int) -> None:
        self.rows = {
            r["clip_id"]: Sample(
                r["clip_id"],
                r["shard"],
                TokenGrid(r["latent_frames"], r["latent_height"] // patch, r["latent_width"] // patch),
                r["seconds_per_frame"],
                r["short"],
                r["dense"],
                parse_views(r.get("views")),
                fields_of(r["fields"]) if r.get("fields") else None,
                r.get("human") or "",
            )
            for r in rows
        }
        self._store, self._patch, self._tokens = store, patch, dict[str, torch.Tensor]()

    def drawn(self, drawn: Drawn) -> torch.Tensor:
        """A visit's clean tokens, (tokens, channels) float32: chains and given regions as encoded apart.

        Raises:
            ModelError: If the clip's shard does not read.
        """
        clip_id, layout = drawn.visit.clip_id, drawn.layout
        grid = self.rows[clip_id].grid
        parts = [
            self.tokens(clip_id, f"tail {c.start}" if c.start else "")[: c.frames * grid.height * grid.width]
            for c in layout.chains
        ]
        if layout.region is not None:
            given = torch.from_numpy(drawn.given)[:, None]
            return torch.where(given, self.tokens(clip_id, layout.region.name), parts[0])
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def variance(self, clip_ids: Sequence[str]) -> torch.Tensor:
        """Mean square of each token channel over these clips, (channels,)."""
        sums = torch.stack([self.tokens(c).double().square().mean(dim=0) for c in clip_ids])
        return sums.mean(dim=0).clamp_min(1e-4).float()

    def tokens(self, clip_id: str, view: str = "") -> torch.Tensor:
        """A clip's latent, or that of one of its views, as tokens, float32.

        Raises:
            ModelError: If its shard does not read.
        """
        name = f"{clip_id} {view}" if view else clip_id
        if name not in self._tokens:
            shard = self.rows[clip_id].shard
            try:
                with safe_open(self._store.fetch(shard), framework="pt") as f:
                    for key in f.keys():  # noqa: SIM118 - not a mapping
                        self._tokens[key] = patchify(f.get_tensor(key).float(), self._patch)
            except (OSError, SafetensorError) as e:
                raise ModelError(f"latents {shard} do not read ({e}); delete the file and run `latents` again") from e
        if name not in self._tokens:
            raise ModelError(f"latents {shard} hold no `{name}`; delete the file and run `latents` again")
        return self._tokens[name]


def draw_visit(
    visit: Visit, sample: Sample, channels: int, seed: int, config: DrawConfig, flow: FlowConfig, sizes: Compression
) -> Drawn:
    """Decide everything about a visit."""

    def generator(purpose: str) -> np.random.Generator:
        return randomness.generator(seed, visit.clip_id, visit.visit, purpose)

    grid, views, weights = sample.grid, sample.views, config.weights()
    if visit.image:
        grid, views, weights = dataclasses.replace(grid, frames=1), Views(), {"text_to_image": 1.0}
    task = draw(weights, grid, views, generator("task"))
    layout = task.draw(grid, views, generator("what is given"))
    if generator("no caption").random() < config.no_caption:
        caption, text = "none", ""
    else:
        caption, text = render(sample.texts, config.rendering(), generator)
    return Drawn(
        visit=visit,
        task=task.name,
        layout=layout,
        caption=caption,
        text=text,
        t=draw_t(generator("t"), grid.num_tokens, flow),
        given=layout.given(grid).reshape(-1),
        noise=randomness.noise(seed, visit.clip_id, visit.visit, (grid.num_tokens, channels)),
        positions=coordinates(grid, sample.seconds_per_frame, sizes, layout.times()),
    )


def batch_of(drawn: Sequence[Drawn], tokens: Sequence[torch.Tensor], device: str = "cpu") -> Batch:
    """Put samples one after the other: no padding, given tokens clean."""
    lengths = tuple(len(x) for x in tokens)
    x0 = torch.cat(list(tokens))
    noise = torch.cat([torch.from_numpy(d.noise) for d in drawn])
    given = torch.cat([torch.from_numpy(d.given) for d in drawn])
    t = torch.tensor([d.t for d in drawn], dtype=torch.float32)
    per_token = torch.repeat_interleave(t, torch.tensor(lengths))[:, None]
    x = torch.where(given[:, None], x0, interpolate(x0, noise, per_token))
    pack = Pack(
        x=x.to(device),
        positions=torch.cat([torch.from_numpy(d.positions) for d in drawn]).to(device),
        given=given.to(device),
        lengths=lengths,
        t=t.to(device),
        texts=tuple(d.text for d in drawn),
    )
    return Batch(pack, target(x0, noise).to(device), tuple(drawn))
