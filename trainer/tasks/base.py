"""What a task is: which tokens are given and which are generated.  Pure; training and sampling use the same layouts.

A given token is clean, at noise level 0 and without loss; a generated one is noised and learned.

A causal autoencoder's first latent frame holds one picture, every later one four, and each has seen what was before
it.  A head that is given is therefore the start of an encoding as it stands.  A tail that is given would have seen
what is to be generated, so it is encoded *on its own*: a sample is a row of **chains**, each one causal encoding,
where a chain's first picture is also the last picture of the chain before it.  So a tail says where to arrive, the
generated chain ends there, and each chain decodes by itself.  What a region gives is encoded with the rest greyed
out, for the same reason.  Training sees such encodings too: they are the **views** that stage `latents` keeps of a
clip (`latents.tails`, `latents.regions`), so nothing is given in training that could not be given in sampling.

Sources: per-token noise levels as in Wan2.2 (TI2V) and LTX-2; encoding given frames apart, Open-Sora 1.2.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from trainer import randomness
from trainer.shapes import TokenGrid


@dataclasses.dataclass(frozen=True, slots=True)
class Chain:
    """Latent frames of one causal encoding; the first `given` of them are given."""

    start: int
    """Where it begins on the time axis, in latent frames; its first picture is that of the frame before it."""
    frames: int
    given: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Region:
    """A box of token cells through all frames; either it is given, or everything around it is."""

    top: int
    left: int
    height: int
    width: int
    inside: bool
    """Whether the box is given (outpaint) or what is around it (inpaint, edit)."""

    def given(self, height: int, width: int) -> np.ndarray:
        """Given cells of a grid, bool (height, width)."""
        mask = np.full((height, width), not self.inside)
        mask[self.top : self.top + self.height, self.left : self.left + self.width] = self.inside
        return mask

    @property
    def name(self) -> str:
        return f"{'inside' if self.inside else 'around'} {self.top} {self.left} {self.height} {self.width}"


@dataclasses.dataclass(frozen=True, slots=True)
class Views:
    """What else is known of a clip beside its own encoding: parts that were encoded as a task gives them."""

    tails: tuple[int, ...] = ()
    """Latent frames from whose picture on the clip was encoded on its own."""
    regions: tuple[Region, ...] = ()
    """Regions that it was encoded with, the rest greyed out."""

    def names(self) -> tuple[str, ...]:
        """As the table `latents` has them."""
        return (*(f"tail {t}" for t in self.tails), *(r.name for r in self.regions))


def parse_views(names: tuple[str, ...] | list[str] | None) -> Views:
    """The inverse of `Views.names`."""
    parts = [n.split() for n in names or ()]
    tails = tuple(int(p[1]) for p in parts if p[0] == "tail")
    boxes = [(p[0] == "inside", [int(n) for n in p[1:]]) for p in parts if p[0] != "tail"]
    return Views(tails, tuple(Region(y, x, h, w, inside) for inside, (y, x, h, w) in boxes))


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """A sample's chains, and the region that is given of them."""

    chains: tuple[Chain, ...]
    region: Region | None = None

    def __post_init__(self) -> None:
        if not self.chains or self.chains[0].start != 0:
            raise ValueError("a layout has chains, and the first begins at 0")
        for a, b in zip(self.chains, self.chains[1:]):
            if b.start != a.start + a.frames - 1 or not b.given:
                raise ValueError(f"{b} has to begin, with something given, at the last frame of {a}")
        if any(not 0 <= c.given <= c.frames or c.frames < 1 for c in self.chains):
            raise ValueError(f"a chain has frames, and no more given ones than that: {self.chains}")

    @property
    def frames(self) -> int:
        """Latent frames of all chains; those are a sample's tokens."""
        return sum(c.frames for c in self.chains)

    @property
    def slots(self) -> int:
        """Latent frames on the time axis; chains share one with the next."""
        return self.chains[-1].start + self.chains[-1].frames

    def times(self) -> np.ndarray:
        """Place of each latent frame on the time axis, int (frames,)."""
        return np.concatenate([np.arange(c.start, c.start + c.frames) for c in self.chains])

    def given(self, grid: TokenGrid) -> np.ndarray:
        """Given tokens, bool (frames, height, width)."""
        mask = np.zeros((self.frames, grid.height, grid.width), dtype=bool)
        begin = 0
        for chain in self.chains:
            mask[begin : begin + chain.given] = True
            begin += chain.frames
        return mask | self.region.given(grid.height, grid.width) if self.region else mask


Draw = Callable[[TokenGrid, Views, np.random.Generator], Layout]


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """A name, and what is given in a training sample."""

    name: str
    about: str
    """One line for people."""
    draw: Draw
    """Grid, views and generator to a layout of exactly the grid's latent frames."""
    fits: Callable[[TokenGrid, Views], bool] = lambda grid, views: True
    """Whether a sample can be trained on the task (something must be left to generate, and its view be there)."""
    needs: str = ""
    """`tails` or `regions`, where it is trained on views."""


def nothing(grid: TokenGrid) -> Layout:
    """Everything is generated."""
    return Layout((Chain(0, grid.frames),))


def draw_views(clip_id: str, grid: TokenGrid, tails: int, regions: int) -> Views:
    """Which views of a clip to keep: at most so many tails and regions, drawn by the clip's id."""
    places = randomness.generator(0, clip_id, 0, "tails").permutation(np.arange(1, max(1, grid.frames - 1)))
    boxes = []
    for i in range(regions if grid.height * grid.width > 1 else 0):
        generator = randomness.generator(0, clip_id, i, "region")
        while True:
            height, width = (int(generator.integers(1, n, endpoint=True)) for n in (grid.height, grid.width))
            if height * width < grid.height * grid.width:
                break
        top, left = (
            int(generator.integers(0, grid.height - height + 1)),
            int(generator.integers(0, grid.width - width + 1)),
        )
        boxes.append(Region(top, left, height, width, inside=i % 2 == 1))
    return Views(tuple(sorted(int(p) for p in places[:tails])), tuple(dict.fromkeys(boxes)))
