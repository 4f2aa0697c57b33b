"""A transformer's choices tried in minutes: what it draws after so many steps on rendered clips and a linear code.

    python -m benchmarks.trials --frames 1 --steps 1000 --set model.size=tiny --set model.local=true

No footage, no autoencoder and no captioner: scenes are rendered at the size they are trained at, their captions are
the truth, and a latent is the leading principal components of a block of pixels (4 x 8 x 8, or 4 x 4 x 4 with
`--space 4`).  What is being tried is the trainer's own: model, packs, draws, loss and optimiser; `--set` changes any
setting of `dit`.  `--frames 1` trains on pictures, which shows what a choice does to shapes three times as fast.

It prints what the probe reads off the videos, and two finer numbers while shapes are still at chance: `whole`, how well
the best of the four shapes overlaps what was drawn (random blobs 0.73), and what wrong words cost: the held-out loss
with one attribute's word replaced, less the loss with the right ones, by noise level.
"""

import argparse
import dataclasses
import itertools
import time
from typing import Any

import numpy as np
import torch

from pipelines.execute import Progress
from pipelines.synthetic.probe import is_whole, overlap, pieces, probe
from pipelines.synthetic.prompts import PromptsConfig, make_prompt
from pipelines.synthetic.render import render_clip
from pipelines.synthetic.world import ASPECTS, COLORS, MOTIONS, SHAPES, WorldConfig, captions, generator, sample_scene
from schemas.captions import Fields
from schemas.language import render_dense
from schemas.samples import Prompt
from schemas.settings import override
from trainer.config import DitConfig
from trainer.data import Drawn, Sample
from trainer.determinism import deterministic
from trainer.flow import euler_step, guided, interpolate, solver_times, target
from trainer.model.dit import DiT, Pack, num_parameters
from trainer.model.patch import patchify, unpatchify
from trainer.model.rope import coordinates
from trainer.model.text import train_tokenizer
from trainer.plan import Plan, PlanConfig, Row
from trainer.shapes import Compression, ShapeConfig, TokenGrid, fit
from trainer.train import Trainer

_SHORT_PX = 144  # of the footage that clips are scaled down from
_FPS = 4.0
_LEVELS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
_WORDS = {"color": tuple(COLORS), "shape": SHAPES, "motion": tuple(MOTIONS)}
Pictures = np.ndarray


def scenes(count: int, seed: int, frames: int, sizes: Compression) -> list[tuple[Pictures, Fields, tuple[str, str]]]:
    """Clips with their truth: pictures (time, height, width, 3), record, short and dense caption."""
    shape, made = ShapeConfig(train_fps=_FPS, max_frames=frames, patch=sizes.patch), []
    for i in range(count):
        rng = generator("trial", seed, i)
        aspect = tuple(ASPECTS.values())[i % len(ASPECTS)]
        scene = sample_scene(rng, WorldConfig(), aspect)
        width, height = (round(_SHORT_PX * max(1.0, aspect)), round(_SHORT_PX * max(1.0, 1 / aspect)))
        seconds = rng.uniform(2.0, 4.0)
        length = 1 + min(frames - 1, int((seconds * _FPS - 1) // sizes.time * sizes.time))
        times = np.arange(length) / _FPS / seconds if frames > 1 else rng.random(1)
        size = fit(width, height, 1 + (length - 1) // sizes.time, shape, sizes)
        clip = render_clip(scene, list(times), size.scaled_width, size.scaled_height, noise=int(rng.integers(1000)))
        y, x = size.trimmed_height // 2, size.trimmed_width // 2
        record = scene.fields()
        made.append((clip[:, y : y + size.height, x : x + size.width], record, captions(record, rng)))
    return made


class LinearCode:
    """Principal components of blocks: of one picture for the first frame, of four for every later latent frame."""

    def __init__(self, clips: list[Pictures], space: int, channels: int, balance: float) -> None:
        self.space = space
        blocks = [self._blocks(c) for c in clips]
        self._first = _components(np.concatenate([a.reshape(-1, a.shape[-1]) for a, _ in blocks]), channels)
        self._later = _components(np.concatenate([b.reshape(-1, b.shape[-1]) for _, b in blocks]), channels)
        alike = (self._first[1] * self._later[1].reshape(4, -1, channels).mean(0)).sum(0)
        self._first[1][:, alike < 0] *= -1  # a component of stills means the same in both
        share = (self._later[2] / self._later[2].mean()) ** balance
        self._scales = [np.sqrt(share / share.mean() / c[2]) for c in (self._first, self._later)]

    def encode(self, clip: Pictures) -> torch.Tensor:
        """(channels, time, height, width), of mean variance 1."""
        parts = zip(self._blocks(clip), (self._first, self._later), self._scales)
        coded = [((x - mean) @ vectors) * scale for x, (mean, vectors, _), scale in parts if len(x)]
        return torch.from_numpy(np.concatenate(coded).transpose(3, 0, 1, 2).astype(np.float32))

    def decode(self, latent: torch.Tensor) -> Pictures:
        """The inverse, as far as the components go."""
        x = latent.numpy().transpose(1, 2, 3, 0)
        parts = zip((x[:1], x[1:]), (self._first, self._later), self._scales, (1, 4))
        s, pictures = self.space, []
        for code, (mean, vectors, _), scale, time_ in parts:
            t, h, w, _ = code.shape
            flat = ((code / scale) @ vectors.T + mean).reshape(t, h, w, time_, s, s, 3)
            pictures.append(flat.transpose(0, 3, 1, 4, 2, 5, 6).reshape(t * time_, h * s, w * s, 3))
        return ((np.concatenate(pictures) + 1) * 127.5).clip(0, 255).round().astype(np.uint8)

    def _blocks(self, clip: Pictures) -> tuple[np.ndarray, np.ndarray]:
        s = self.space
        x = clip.astype(np.float32) / 127.5 - 1
        t, h, w, _ = x.shape
        b = x.reshape(t, h // s, s, w // s, s, 3).transpose(0, 1, 3, 2, 4, 5).reshape(t, h // s, w // s, -1)
        later = b[1:].reshape(-1, 4, h // s, w // s, b.shape[-1]).transpose(0, 2, 3, 1, 4)
        return b[:1], later.reshape(*later.shape[:3], 4 * b.shape[-1])


def _components(x: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    values, vectors = np.linalg.eigh(np.cov(x.T))
    return x.mean(0), vectors[:, ::-1][:, :count].copy(), values[::-1][:count].copy()


class Rendered:
    """Clips with their latents as tokens; has what `trainer.data.Samples` has."""

    def __init__(self, made: list[Any], code: LinearCode, sizes: Compression) -> None:
        self.rows, self._tokens = dict[str, Sample](), dict[str, torch.Tensor]()
        for i, (clip, record, (short, dense)) in enumerate(made):
            latent = code.encode(clip)
            grid = TokenGrid(latent.shape[1], latent.shape[2] // sizes.patch, latent.shape[3] // sizes.patch)
            self.rows[f"clip{i:05d}"] = Sample(f"clip{i:05d}", "", grid, 1 / _FPS, short, dense, fields=record)
            self._tokens[f"clip{i:05d}"] = patchify(latent, sizes.patch)

    def tokens(self, clip_id: str) -> torch.Tensor:
        return self._tokens[clip_id]

    def drawn(self, drawn: Drawn) -> torch.Tensor:
        """A visit's clean tokens."""
        return self._tokens[drawn.visit.clip_id][: len(drawn.given)]


def _pack(x: torch.Tensor, place: torch.Tensor, t: float, texts: list[str]) -> Pack:
    count, tokens, _ = x.shape
    given = torch.zeros(count * tokens, dtype=torch.bool)
    return Pack(
        x=x.flatten(0, 1),
        positions=place.repeat(count, 1),
        given=given,
        lengths=(tokens,) * count,
        t=torch.full((count,), t),
        texts=tuple(texts),
    )


@torch.no_grad()
def draw(
    model: DiT, prompts: list[Prompt], frames: int, config: DitConfig, sizes: Compression, guidance: float
) -> dict[str, torch.Tensor]:
    """Latents by prompt, from guided Euler steps."""
    made: dict[str, torch.Tensor] = {}
    progress = Progress("draw", len(prompts), "prompt")
    for (width, height), some in itertools.groupby(
        sorted(prompts, key=lambda p: (p.width, p.height)), key=lambda p: (p.width, p.height)
    ):
        grid = TokenGrid(1 + (frames - 1) // sizes.time, height // sizes.cell, width // sizes.cell)
        place = torch.from_numpy(coordinates(grid, 1 / _FPS, sizes))
        group = list(some)
        noise = [torch.Generator().manual_seed(p.seed) for p in group]
        x = torch.stack([torch.randn(grid.num_tokens, model.token_channels, generator=g) for g in noise])
        times = solver_times(24, grid.num_tokens, config.flow)
        texts = [p.prompt for p in group]
        for t, t_next in itertools.pairwise(times):
            pack = _pack(x.repeat(2, 1, 1), place, float(t), texts + [""] * len(group))
            with_text, without = model(pack).unflatten(0, (2, len(group), -1)).unbind(0)
            x = euler_step(x, guided(with_text, without, guidance), float(t), float(t_next))
        made |= {p.prompt_id: unpatchify(tokens, grid, sizes.patch) for p, tokens in zip(group, x)}
        progress.advance(len(group))
    progress.close()
    return made


def seen(prompts: list[Prompt], videos: dict[str, Pictures]) -> dict[str, float]:
    """Share of each attribute that is as asked for, and how well the best shape overlaps what was drawn."""
    right: dict[str, list[float]] = {n: [] for n in ("color", "background", "motion", "shape")}
    overlaps = []
    for p in prompts:
        if p.fields is None:
            continue
        subject, found = p.fields.subjects[0], probe(videos[p.prompt_id])
        wanted = {"background": p.fields.background, **{n: getattr(subject, n) for n in _WORDS}}
        for name, value in wanted.items():
            right[name].append(found.get(name) == value)
        for mask in pieces(videos[p.prompt_id]):
            if mask is not None and is_whole(mask):
                overlaps.append(max(overlap(mask, shape) for shape in SHAPES))
    return {n: float(np.mean(v)) for n, v in right.items()} | {"whole": float(np.mean(overlaps or [0.0]))}


def _reworded(record: Fields, name: str) -> str:
    subject = record.subjects[0]
    options = _WORDS[name]
    other = options[(options.index(getattr(subject, name)) + 1) % len(options)]
    return render_dense(dataclasses.replace(record, subjects=[dataclasses.replace(subject, **{name: other})]), 0)


@torch.no_grad()
def wrong_words(model: DiT, held: Rendered, sizes: Compression) -> dict[float, dict[str, float]]:
    """By noise level: loss with the right words, and what a wrong word of each kind adds."""
    one = [(c, s) for c, s in held.rows.items() if s.fields and len(s.fields.subjects) == 1 and not s.fields.events]
    found: dict[float, dict[str, float]] = {}
    for level in _LEVELS:
        sums: dict[str, list[float]] = {name: [] for name in ("right", *_WORDS)}
        for i, (clip_id, sample) in enumerate(one):
            assert sample.fields is not None
            texts = [render_dense(sample.fields, 0), *(_reworded(sample.fields, n) for n in _WORDS)]
            clean = held.tokens(clip_id)
            noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(i))
            x = interpolate(clean, noise, torch.tensor(level)).repeat(len(texts), 1, 1)
            place = torch.from_numpy(coordinates(sample.grid, 1 / _FPS, sizes))
            velocity = model(_pack(x, place, level, texts)).unflatten(0, (len(texts), -1))
            losses = (velocity - target(clean, noise)).square().mean(dim=(1, 2)).tolist()
            for name, loss in zip(sums, losses):
                sums[name].append(loss)
        right = float(np.mean(sums.pop("right")))
        found[level] = {"right": right} | {n: float(np.mean(v)) - right for n, v in sums.items()}
    return found


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=9, help="pictures of a clip, 1 + 4k (default: %(default)s)")
    parser.add_argument("--clips", type=int, default=2400, help="clips to train on (default: %(default)s)")
    parser.add_argument("--space", type=int, default=8, help="pixels of a latent cell (default: %(default)s)")
    parser.add_argument("--patch", type=int, default=1, help="cells of a token (default: %(default)s)")
    parser.add_argument("--channels", type=int, default=32, help="of the linear code (default: %(default)s)")
    parser.add_argument("--balance", type=float, default=1.0, help="as autoencoder.balance (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=1000, help="optimiser steps (default: %(default)s)")
    parser.add_argument("--prompts", type=int, default=96, help="videos to judge (default: %(default)s)")
    parser.add_argument("--guidance", type=float, default=3.0, help="default: %(default)s")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of dit; repeatable")
    return parser


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Render, train, draw, judge."""
    sizes = Compression(space=args.space, patch=args.patch)
    base = DitConfig(plan=PlanConfig(budget=1536))
    tokens = (64 // sizes.cell) ** 2 * (1 + (args.frames - 1) // sizes.time)
    flow = dataclasses.replace(base.flow, shift=10.0, shift_tokens=tokens, max_shift=64.0, logit_std=1.4)
    steps = dataclasses.replace(base.optimizer, steps=args.steps, learning_rate=1.5e-3, ema=0.998, threads=1)
    model = dataclasses.replace(base.model, linear_guess=True)
    config = override(dataclasses.replace(base, flow=flow, optimizer=steps, model=model), args.set)
    codes = [clip for clip, _, _ in scenes(300, 7, 13, sizes)]
    code = LinearCode(codes, args.space, args.channels, args.balance)
    data = Rendered(scenes(args.clips, 1, args.frames, sizes), code, sizes)
    held = Rendered(scenes(64, 2, args.frames, sizes), code, sizes)
    texts = [t for s in data.rows.values() for t in (s.short, s.dense)]
    torch.manual_seed(config.plan.seed)
    dit = DiT(config.model, args.channels * args.patch**2, train_tokenizer(texts, config.model.text))
    if config.model.linear_guess:
        dit.variance.copy_(torch.cat([data.tokens(c) for c in data.rows]).square().mean(0).clamp_min(1e-4))
    rows = {c: Row(tokens=s.grid.num_tokens, frames=s.grid.frames) for c, s in data.rows.items()}
    trainer = Trainer(
        dit,
        data,  # type: ignore[arg-type]
        Plan("trial", rows, config.plan),
        optimizer=config.optimizer,
        draw=config.draw,
        flow=config.flow,
        sizes=sizes,
        manifest="trial",
    )
    with deterministic(config.optimizer.threads):
        progress = Progress("trial", args.steps, "step")
        start, samples, losses = time.process_time(), 0, list[float]()
        for _ in range(args.steps):
            metrics = trainer.train_step()[1]
            samples += metrics["samples"]
            losses.append(metrics["loss"])
            progress.advance(note=f"loss {metrics['loss']:.3f}")
        progress.close()
        seconds = time.process_time() - start
        trainer.close()
        prompts = [make_prompt(PromptsConfig(count=args.prompts), i) for i in range(args.prompts)]
        with trainer.with_average():
            dit.eval()
            drawn = draw(dit, prompts, args.frames, config, sizes, args.guidance)
            words = wrong_words(dit, held, sizes)
    return {
        "parameters": num_parameters(dit),
        "cpu_s": round(seconds),
        "samples": samples,
        "loss_last_tenth": round(float(np.mean(losses[-max(1, len(losses) // 10) :])), 4),
        "seen": {n: round(v, 3) for n, v in seen(prompts, {k: code.decode(v) for k, v in drawn.items()}).items()},
        "wrong_words": {str(t): {n: round(v, 4) for n, v in row.items()} for t, row in words.items()},
    }


def main() -> None:
    found = run(arguments().parse_args())
    words = found.pop("wrong_words")
    for name, value in found.items():
        print(f"{name}: {value}")
    print("held-out loss by noise level, and what a wrong word adds:")
    for level, row in words.items():
        print(f"  t {level}: " + ", ".join(f"{n} {v:.4f}" for n, v in row.items()))


if __name__ == "__main__":
    main()
