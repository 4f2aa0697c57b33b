"""A loop: time is cyclic while sampling, so that the end goes over into the start like any frame into the next.

The loop is a ring of latent frames of four pictures each.  A causal encoding begins with a latent of one picture, which
a ring has no place for; so at every step the ring is cut open at several places, each cut gets such a first latent of
its own in front (noised, and generated with the rest), the model sees each as an ordinary clip, and the ring moves by
the mean of the velocities.  No place of the ring is at an edge in all of them, and nothing has to be trained.
At the end the ring is decoded twice in a row and the second turn is kept, whose past is the ring itself.

Cost: `cuts` times the forward passes of a clip of that length, and a decode of twice its length.  Sources: Mobius,
arXiv:2502.20307 (rolling latents); MultiDiffusion, arXiv:2302.08113 (mean of overlapping predictions).
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from trainer.autoencoder.model import decode
from trainer.flow import euler_step
from trainer.model.patch import unpatchify
from trainer.shapes import Compression, TokenGrid

MOST_CUTS = 4

Velocity = Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]


def cuts(ring: int) -> list[int]:
    """Places, evenly spaced, at which a ring of so many latent frames is cut open."""
    count = min(MOST_CUTS, ring)
    return sorted({round(i * ring / count) for i in range(count)})


def solve(
    noise_PNC: torch.Tensor,
    cells: int,
    times: np.ndarray,
    velocity: Velocity,
    first: Callable[[int, int], torch.Tensor],
    on_step: Callable[[], None],
) -> torch.Tensor:
    """Noise to a first latent frame and the ring after it, (prompts, tokens, channels), for as many latent frames.

    Args:
        velocity: Of (samples, tokens, channels), given tokens and t; samples are cuts times prompts.
        first: Noise of the latent before a cut, by cut and cells, (prompts, cells, channels).
    """
    prompts = len(noise_PNC)
    ring = noise_PNC[:, cells:]
    places = cuts(ring.shape[1] // cells)
    fronts = [noise_PNC[:, :cells], *(first(p, cells) for p in places[1:])]
    for t, t_next in itertools.pairwise(times):
        clips = [torch.cat([f, ring.roll(-p * cells, 1)], 1) for p, f in zip(places, fronts)]
        x = torch.cat(clips)
        moves = velocity(x, torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device), float(t)).split(prompts)
        fronts = [euler_step(f, m[:, :cells], float(t), float(t_next)) for f, m in zip(fronts, moves)]
        mean = torch.stack([m[:, cells:].roll(p * cells, 1) for p, m in zip(places, moves)]).mean(0)
        ring = euler_step(ring, mean, float(t), float(t_next))
        on_step()
    return torch.cat([fronts[0], ring], 1)


def decoded(autoencoder: Any, x_PNC: torch.Tensor, grid: TokenGrid, sizes: Compression) -> list[np.ndarray]:
    """Pictures of the ring, 4 per latent frame, from its first latent on; the last goes over into the first."""
    cells, count = grid.height * grid.width, (grid.frames - 1) * sizes.time
    twice = torch.cat([x_PNC, x_PNC[:, cells:]], 1)
    both = TokenGrid(2 * grid.frames - 1, grid.height, grid.width)
    videos = decode(autoencoder, torch.stack([unpatchify(t, both, sizes.patch) for t in twice]))
    return [v[-count:] for v in videos]


def steps_between(video: np.ndarray) -> np.ndarray:
    """Root mean square difference of each frame of a ring to the next, the last one's to the first."""
    after = np.roll(video, -1, axis=0).astype(np.float64)
    return np.sqrt(((after - video) ** 2).mean(axis=(1, 2, 3)))


def seams(ring: np.ndarray, time: int) -> dict[str, float]:
    """Differences between neighbours of a ring that begins with a latent frame's first picture.

    `seam_rms`: where the file ends (see `quietest_first`); `median_rms`: of all; `join_rms`: where the last latent
    meets the first, which is where a video that is no ring jumps; `latent_rms`: median over all places where two latent
    frames of `time` pictures meet, for a comparison with that.
    """
    steps = steps_between(ring)
    return {
        "seam_rms": float(steps.min()),
        "median_rms": float(np.median(steps)),
        "join_rms": float(steps[-1]),
        "latent_rms": float(np.median(steps[time - 1 :: time])),
    }


def quietest_first(video: np.ndarray) -> np.ndarray:
    """The same ring, begun where two neighbours differ least: a ring has no start, and a player shows this one seam."""
    return np.roll(video, -int(steps_between(video).argmin()) - 1, axis=0)
