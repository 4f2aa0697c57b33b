"""Where the subjects are, and a closer look there: what makes small shapes learnable in minutes.

A network that must first find a subject before it can tell its shape learns neither for hundreds of steps (measured:
docs/log.md).  So the places are searched for one after the other: each search knows what the ones before it
found, which is what an order of naming needs ("the red one first, then the next").  It is given a hint, how far
each place differs from its frame's mean colour, and learns from the true places where the pairs have them.  Around
each place a patch is cut from the frames and read by a small 2-D network, always centred on the subject.

Refs: Mnih et al. 2014 (recurrent attention), Jaderberg et al. 2015 (spatial transformers).

Letters: B clips, K subjects, t moments, H and W pixels, h and w cells, N = h * w, C channels, D width.
"""

import dataclasses

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from captioner.train.config import ModelConfig

CELL = 4
"""Pixels along a side of a cell."""
GROUPS = 4
"""Groups of every GroupNorm; of more, each would have so few channels that colour is normalised away."""
_SALIENCE = 8.0  # initial weight of the hint where subjects are: e**8 between the most and the least salient cell
_LOOKS = 2  # moments of which a patch is read, the middle ones; places come from all of them


@torch.no_grad()
def strangeness(pictures_BCHW: Tensor) -> Tensor:
    """How far each pixel is from its picture's mean colour, (B, 1, H, W): a silhouette, whatever the colours."""
    mean = pictures_BCHW.mean(dim=(2, 3), keepdim=True)
    return (pictures_BCHW - mean).square().sum(dim=1, keepdim=True).sqrt()


def middle_of(h: int, w: int) -> tuple[Tensor, Tensor]:
    """Middles of the cells of a grid as (x, y) from the picture's middle, each (N,), in halves of its short side."""
    across = (torch.arange(w) - (w - 1) / 2) / (min(h, w) / 2)
    down = (torch.arange(h) - (h - 1) / 2) / (min(h, w) / 2)
    return across.repeat(h), down.repeat_interleave(w)


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """What the searches found."""

    content: Tensor
    """Features where each subject is, mean over moments (B, K, D)."""
    places: Tensor
    """(x, y) from the picture's middle in halves of its short side, (B, K, t, 2), without gradient."""
    felt: Tensor
    """Flow there, (B, K, t, 2), without gradient."""
    log_where: Tensor
    """Logarithm of how much each search looked where, (B, K, t, N)."""


class Search(nn.Module):
    """Finds the subjects one after the other."""

    def __init__(self, config: ModelConfig, subjects: int) -> None:
        super().__init__()
        width = config.width
        self.queries = nn.Parameter(torch.randn(subjects, width) * 0.3)
        self.to_query = nn.Linear(width, width)
        self.by_look, self.by_place = (nn.Linear(width, n, bias=False) for n in (config.stem[1], width))
        self.to_value = nn.Linear(config.stem[1], width)
        self.salience = nn.Parameter(torch.tensor(_SALIENCE))
        self.found = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(
        self, cells_BtNC: Tensor, salience_BtN: Tensor, flow_BtN2: Tensor, at_ND: Tensor, h: int, w: int
    ) -> Found:
        """Find the subjects.

        Args:
            salience_BtN: The hint, 1 for the strangest cell of each moment.
            at_ND: Embedding of each cell's place.
        """
        across_down = torch.stack(middle_of(h, w), dim=-1)
        before = cells_BtNC.new_zeros(len(cells_BtNC), at_ND.shape[1])
        contents, places, felts, wheres = [], [], [], []
        for query in self.queries:
            asked = self.to_query(query + before)  # brought to the cells, of which there are many, not they to it
            match = torch.einsum("bc,btnc->btn", self.by_look(asked), cells_BtNC)
            match = (match + (self.by_place(asked) @ at_ND.T)[:, None]) * at_ND.shape[1] ** -0.5
            log_where = (match + self.salience * salience_BtN).log_softmax(dim=-1)
            content = self.to_value((log_where.exp()[:, :, None] @ cells_BtNC)[:, :, 0].mean(dim=1))
            before = self.found(torch.cat([content, before], dim=1))
            with torch.no_grad():
                p = (2 * log_where).softmax(dim=-1)  # squared, which sharpens
                places.append(p @ across_down)
                felts.append(torch.einsum("btn,btnc->btc", p, flow_BtN2))
            contents.append(content)
            wheres.append(log_where)
        return Found(*(torch.stack(x, dim=1) for x in (contents, places, felts, wheres)))


def place_loss(log_where_BKtN: Tensor, true_BKt2: Tensor, h: int, w: int) -> Tensor:
    """How unlikely the true places were to the searches, nats.

    Args:
        true_BKt2: (x, y) as shares of the picture's width and height; outside [0, 1] where out of sight or unknown.
    """
    x, y = true_BKt2[..., 0] * w - 0.5, true_BKt2[..., 1] * h - 0.5
    seen = (true_BKt2 >= 0).all(dim=-1) & (true_BKt2 <= 1).all(dim=-1)
    x, y = x.clamp(0, w - 1), y.clamp(0, h - 1)
    left, top = x.floor().clamp(max=max(0, w - 2)), y.floor().clamp(max=max(0, h - 2))
    right, low = x - left, y - top
    total = log_where_BKtN.new_zeros(x.shape)
    for dx, dy, share in (
        (0, 0, (1 - right) * (1 - low)),
        (1, 0, right * (1 - low)),
        (0, 1, (1 - right) * low),
        (1, 1, right * low),
    ):
        cell = ((top + dy).clamp(max=h - 1) * w + (left + dx).clamp(max=w - 1)).long()
        total = total + share * log_where_BKtN.gather(-1, cell[..., None]).squeeze(-1)
    return -(total * seen).sum() / seen.sum().clamp(min=1)


def patches(pictures_BtCHW: Tensor, places_BKt2: Tensor, *, side: int, reach: float) -> Tensor:
    """Square patches of `side` samples around places, (B, t, K, C, side, side).

    Args:
        places_BKt2: (x, y) from the picture's middle, in halves of its short side.
        reach: Half a patch's extent, in the same: what is large looks large, whatever the picture's shape.
    """
    b, t, c, height, width = pictures_BtCHW.shape
    k = places_BKt2.shape[1]
    at, short = places_BKt2.transpose(1, 2), min(height, width)
    steps = torch.linspace(-reach, reach, side)
    across = (at[..., 0, None, None] + steps[None, :]) * (short / width)
    down = (at[..., 1, None, None] + steps[:, None]) * (short / height)
    shape = (b, t, k, side, side)
    grid = torch.stack([across.expand(shape), down.expand(shape)], dim=-1).reshape(b * t, k * side, side, 2)
    cut = F.grid_sample(pictures_BtCHW.flatten(0, 1), grid, align_corners=False)
    return cut.view(b, t, c, k, side, side).transpose(2, 3)


class Glimpse(nn.Module):
    """A closer look at where each subject is, mean over the middle moments: (B, K, D)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.side, self.reach = config.glimpse_side, config.glimpse_reach
        first, second = config.glimpse
        self.look = nn.Sequential(
            nn.Conv2d(4, first, 5, stride=2, padding=2, bias=False),
            nn.GroupNorm(GROUPS, first),
            nn.ReLU(),
            nn.Conv2d(first, second, 3, padding=1, bias=False),
            nn.GroupNorm(GROUPS, second),
            nn.ReLU(),
            nn.Conv2d(second, second, 3, stride=2, padding=1, bias=False),
            nn.GroupNorm(GROUPS, second),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(second * (self.side // 4) ** 2, config.width),
        )
        self.shade = nn.Linear(3, config.width)  # the colour itself, which normalised features only hint at

    def forward(self, moments_BtCHW: Tensor, places_BKt2: Tensor) -> Tensor:
        t = moments_BtCHW.shape[1]
        first = max(0, (t - _LOOKS) // 2)
        chosen = slice(first, first + _LOOKS)
        seen = moments_BtCHW[:, chosen]
        silhouette = strangeness(seen.flatten(0, 1)).view(*seen.shape[:2], 1, *seen.shape[3:])
        with torch.no_grad():
            cut = patches(
                torch.cat([seen, silhouette], dim=2), places_BKt2[:, :, chosen], side=self.side, reach=self.reach
            )
        b, looks, k = cut.shape[:3]
        read = self.look(cut.flatten(0, 2).contiguous(memory_format=torch.channels_last))
        inner = slice(self.side // 4, self.side - self.side // 4)
        shade = self.shade(cut[:, :, :, :3, inner, inner].mean(dim=(4, 5)))
        return (read.view(b, looks, k, -1) + shade).mean(dim=1)
