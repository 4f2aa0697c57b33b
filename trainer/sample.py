"""Noise to video: Euler steps on the velocity, guided by text, with the same layouts as training.

Prompts of one shape go through the transformer together, each beside its own text-free twin (classifier-free
guidance), in one pack.  Given tokens stay as they are at every step, in both twins, so guidance follows the text alone
and never what is given.  Each chain decodes by itself; where a chain ends at the first picture of a given one, and
wherever else something was given, the pictures are put back as they were given.  How far the decoded ones are from
that is in `Made.kept`.  Noise follows from the prompt's seed and shape alone, so a prompt gives the same video in any
company.

Both models run where they lie; noise is drawn on the CPU, so a seed means the same start on any device.

Cost: 2 x steps forward passes, an encoding of what is given, and one decode.  Sources: arXiv:2209.03003 (Euler),
arXiv:2207.12598 (guidance), arXiv:2108.01073 (SDEdit).
"""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from trainer import cyclic, randomness
from trainer.autoencoder.model import decode, encode
from trainer.config import SamplingConfig
from trainer.flow import FlowConfig, euler_step, guided, interpolate, solver_times
from trainer.model.dit import DiT, Pack
from trainer.model.patch import patchify, unpatchify
from trainer.model.rope import coordinates
from trainer.shapes import Compression, PixelShape, TokenGrid, latent_shape, token_grid
from trainer.tasks import image_to_video
from trainer.tasks.base import Layout, nothing
from trainer.views import given_pixels, greyed

_EQUAL_DB = 100.0
"""What stands for pictures that are equal."""


@dataclasses.dataclass(frozen=True, slots=True)
class Given:
    """What a request gives, at the size of the video to make."""

    task: str
    layout: Layout
    pictures: tuple[np.ndarray, ...] = ()
    """(time, height, width, 3) uint8: of every chain that is given something, its given 1 + 4k pictures; where a
    region is given, all pictures, of which the rest is not looked at."""
    source: np.ndarray | None = None
    """Pictures to start from instead of noise alone (SDEdit)."""
    strength: float = 1.0
    """Noise level t that `source` is brought to; 1 forgets it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One video to make."""

    prompt: str
    seed: int
    given: Given | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Made:
    """A video."""

    pictures: np.ndarray
    """(time, height, width, 3) uint8, what was given as it was given."""
    decoded: np.ndarray
    """The same without that."""
    kept: dict[str, float]
    """`given_db`: PSNR of the decoded given pixels to those given; `reconstruction_db`: to what the autoencoder makes
    of these alone; `joint_db`: of the picture that generated chains end at to the given one that they meet.  Of a loop,
    the differences that `cyclic.seams` tells."""


def first_picture(picture: np.ndarray, frames: int) -> Given:
    """Image to video, of so many latent frames."""
    return Given("image_to_video", image_to_video.layout(frames), (picture[None],))


@dataclasses.dataclass(frozen=True)
class Generator:
    """Loaded models and what they were trained with."""

    dit: DiT
    autoencoder: Any
    flow: FlowConfig
    sizes: Compression
    fps: float

    def videos(self, requests: Sequence[Request], shape: PixelShape, config: SamplingConfig) -> list[np.ndarray]:
        """Make videos of one shape, (time, height, width, 3) uint8 each."""
        return [m.pictures for m in self.make(requests, shape, config)]

    @property
    def device(self) -> torch.device:
        """Where the transformer lies, and sampling with it."""
        return self.dit.embed.weight.device

    @torch.no_grad()
    def make(
        self,
        requests: Sequence[Request],
        shape: PixelShape,
        config: SamplingConfig,
        on_step: Callable[[], None] = lambda: None,
    ) -> list[Made]:
        """Make videos of one shape whose chains are of the same lengths.

        Args:
            on_step: Called after each solver step.

        Raises:
            ValueError: If the shape does not divide into cells, or what is given has another one.
        """
        slots = token_grid(latent_shape(shape, self.sizes), self.sizes)
        givens = [r.given or Given("text_to_video", nothing(slots)) for r in requests]
        layout = givens[0].layout
        grid = TokenGrid(layout.frames, slots.height, slots.width)
        for g in givens:
            self._check(g, givens[0], slots, shape)
        fps = config.fps or self.fps
        noise = [self._noise(r.seed, shape, grid) for r in requests]
        times = solver_times(config.steps, grid.num_tokens, self.flow, givens[0].strength)
        place = torch.from_numpy(coordinates(grid, 1 / fps, self.sizes, layout.times())).to(self.device)
        step = functools.partial(self._velocity, [r.prompt for r in requests], place, config)
        if givens[0].task == "loop":
            cells = grid.height * grid.width
            x = cyclic.solve(
                torch.stack(noise), cells, times, step, functools.partial(self._ring_noise, requests), on_step
            )
            rings = cyclic.decoded(self.autoencoder, x, grid, self.sizes)
            return [Made(cyclic.quietest_first(ring), ring, cyclic.seams(ring, self.sizes.time)) for ring in rings]
        clean = [self._clean(g, grid) for g in givens]
        given = torch.stack([torch.from_numpy(g.layout.given(grid).reshape(-1)) for g in givens]).to(self.device)
        start = torch.stack([self._from(g, n, float(times[0])) for g, n in zip(givens, noise)])
        x = torch.where(given[..., None], torch.stack(clean), start)
        for t, t_next in itertools.pairwise(times):
            velocity = step(x, given, float(t))
            x = torch.where(given[..., None], x, euler_step(x, velocity, float(t), float(t_next)))
            on_step()
        parts = self._decode(x, layout, grid)
        return [self._finish(g, [p[i] for p in parts], c, grid) for i, (g, c) in enumerate(zip(givens, clean))]

    def _check(self, given: Given, first: Given, slots: TokenGrid, shape: PixelShape) -> None:
        def outline(layout: Layout) -> list[tuple[int, int]]:
            return [(c.start, c.frames) for c in layout.chains]

        if outline(given.layout) != outline(first.layout) or given.strength != first.strength:
            raise ValueError("videos that are made together have chains of the same lengths and one strength")
        if (given.task == "loop") != (first.task == "loop"):
            raise ValueError("a loop is not made together with others")
        if given.layout.slots != slots.frames:
            raise ValueError(f"{shape} has {slots.frames} latent frames, what is given makes {given.layout.slots}")
        for pictures in (*given.pictures, *([] if given.source is None else [given.source])):
            if pictures.shape[1:3] != (shape.height, shape.width):
                raise ValueError(f"what is given is {pictures.shape[1:3]}, the video {shape.height, shape.width}")

    def _noise(self, seed: int, shape: PixelShape, grid: TokenGrid) -> torch.Tensor:
        size = (grid.num_tokens, self.dit.token_channels)
        return torch.from_numpy(randomness.noise(seed, f"{shape}", 0, size, "sample")).to(self.device)

    def _ring_noise(self, requests: Sequence[Request], roll: int, cells: int) -> torch.Tensor:
        """Noise of the frame that stands before a rolled loop, (prompts, cells, channels)."""
        size = (cells, self.dit.token_channels)
        rows = [randomness.noise(r.seed, f"before roll {roll}", 0, size, "sample") for r in requests]
        return torch.from_numpy(np.stack(rows)).to(self.device)

    def _clean(self, given: Given, grid: TokenGrid) -> torch.Tensor:
        """Tokens of what is given, in their places; zero elsewhere."""
        clean = torch.zeros(grid.num_tokens, self.dit.token_channels, device=self.device)
        if given.layout.region is not None:
            return self._tokens(greyed(given.pictures[0], given.layout.region, self.sizes))
        left, begin, cells = iter(given.pictures), 0, grid.height * grid.width
        for chain in given.layout.chains:
            if chain.given:
                tokens = self._tokens(next(left))
                if len(tokens) != chain.given * cells:
                    raise ValueError(f"{chain} is given {len(tokens) // cells} latent frames of pictures")
                clean[begin * cells : (begin + chain.given) * cells] = tokens
            begin += chain.frames
        return clean

    def _from(self, given: Given, noise: torch.Tensor, t: float) -> torch.Tensor:
        """What sampling starts from: noise, or the source noised to t."""
        if given.source is None or given.strength == 1:
            return noise
        return interpolate(self._tokens(given.source), noise, torch.tensor(t))

    def _tokens(self, pictures: np.ndarray) -> torch.Tensor:
        """Pictures as clean tokens beside the transformer."""
        return patchify(encode(self.autoencoder, pictures), self.sizes.patch).to(self.device)

    def _velocity(
        self,
        texts: list[str],
        place: torch.Tensor,
        config: SamplingConfig,
        x: torch.Tensor,
        given: torch.Tensor,
        t: float,
    ) -> torch.Tensor:
        """Guided velocity, (samples, tokens, channels); samples are a multiple of the texts."""
        texts = texts * (len(x) // len(texts))
        copies = 1 if config.guidance == 1 else 2
        count = len(texts) * copies
        pack = Pack(
            x=x.repeat(copies, 1, 1).flatten(0, 1),
            positions=place.repeat(count, 1),
            given=given.repeat(copies, 1).flatten(),
            lengths=(x.shape[1],) * count,
            t=torch.full((count,), t, dtype=torch.float32, device=self.device),
            texts=tuple(texts + [""] * (count - len(texts))),
        )
        half = config.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16) if half else contextlib.nullcontext():
            velocity = self.dit(pack).float().unflatten(0, (count, x.shape[1]))
        if copies == 1:
            return velocity
        with_text, without_text = velocity.chunk(2)
        return guided(with_text, without_text, config.guidance)

    def _decode(self, x: torch.Tensor, layout: Layout, grid: TokenGrid) -> list[list[np.ndarray]]:
        """Pictures of each chain, of each sample."""
        parts, begin, cells = [], 0, grid.height * grid.width
        for chain in layout.chains:
            own = TokenGrid(chain.frames, grid.height, grid.width)
            tokens = x[:, begin * cells : (begin + chain.frames) * cells]
            parts.append(decode(self.autoencoder, torch.stack([unpatchify(t, own, self.sizes.patch) for t in tokens])))
            begin += chain.frames
        return parts

    def _finish(self, given: Given, parts: list[np.ndarray], clean: torch.Tensor, grid: TokenGrid) -> Made:
        """Chains joined, what was given put back, and the distances."""
        layout, time = given.layout, self.sizes.time
        decoded = np.concatenate([parts[0], *(p[1:] for p in parts[1:])])
        pictures, kept = decoded.copy(), dict[str, list[float]]()

        def note(name: str, a: np.ndarray, b: np.ndarray) -> None:
            kept.setdefault(name, []).append(float(np.mean((a.astype(np.float64) - b) ** 2)))

        if layout.region is not None:
            mask = given_pixels(layout.region, decoded.shape[1], decoded.shape[2], self.sizes)
            (alone,) = self._decode(clean[None], layout, grid)
            pictures[:, mask] = given.pictures[0][:, mask]
            note("given_db", decoded[:, mask], given.pictures[0][:, mask])
            note("reconstruction_db", decoded[:, mask], alone[0][:, mask])
        else:
            own = iter(given.pictures)
            for i, chain in enumerate(layout.chains):
                if not chain.given:
                    continue
                shown, at = next(own), chain.start * time
                head = parts[i][: len(shown)]
                pictures[at : at + len(shown)] = shown
                note("given_db", head, shown)
                note("reconstruction_db", head, decode(self.autoencoder, encode(self.autoencoder, shown)[None])[0])
                if i:
                    note("joint_db", parts[i - 1][-1], shown[0])
        return Made(pictures, decoded, {k: _db(float(np.mean(v))) for k, v in kept.items()})


def _db(square_error: float) -> float:
    return min(_EQUAL_DB, 10 * float(np.log10(255.0**2 / max(square_error, 1e-9))))
