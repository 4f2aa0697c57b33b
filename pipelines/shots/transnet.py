"""TransNetV2 for those who have its weights: boundary evidence by a small network over 48 x 27 pictures.

Written from the paper (Soucek & Lokoc 2020, arXiv:2008.04838): three stages of dilated (2+1)D convolutions, frame
similarities and colour histograms over 101 frames, one number per frame.  Parameter names are those of the authors'
PyTorch port (`inference-pytorch`), whose file loads by path (`.safetensors`, or `.pth` read with `weights_only`).
No weights come with this project, and the real ones were NEVER run here: shapes, names and windows are tested with
random ones, accuracy is not.  `benchmarks/cuts.py --transnet PATH` compares it on your footage.

It needs a decode of its own (colour at 48 x 27 is not stored), so it is no part of the scan.
Cost: about 8 MB of weights; windows of 100 frames of which the middle 50 count, constant memory.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from schemas.errors import ConfigError

WIDTH, HEIGHT = 48, 27
_WINDOW, _STEP, _MARGIN = 100, 50, 25
_FILTERS, _STAGES, _BLOCKS, _HIDDEN = 16, 3, 2, 1024
_LOOKUP, _SIMILARITY = 101, 128


def build() -> Any:
    """A `torch.nn.Module` with fresh weights, from (batch, time, 27, 48, 3) uint8 to logits, (batch, time)."""
    import torch
    from torch import Tensor, nn
    from torch.nn import functional

    def around(similarities: Tensor) -> Tensor:
        """(batch, time, time) to each frame's own 101 neighbours, (batch, time, 101); zero outside."""
        half = (_LOOKUP - 1) // 2
        padded = functional.pad(similarities, [half, half])
        time = similarities.shape[1]
        index = torch.arange(time)[:, None] + torch.arange(_LOOKUP)
        return padded.gather(2, index.expand(similarities.shape[0], time, _LOOKUP))

    class Separable(nn.Module):
        """3 x 3 in space, then 3 in time, `dilation` frames apart."""

        def __init__(self, inputs: int, filters: int, dilation: int) -> None:
            super().__init__()
            space = nn.Conv3d(inputs, 2 * filters, (1, 3, 3), padding=(0, 1, 1), bias=False)
            time = nn.Conv3d(
                2 * filters, filters, (3, 1, 1), dilation=(dilation, 1, 1), padding=(dilation, 0, 0), bias=False
            )
            self.layers = nn.ModuleList([space, time])

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = layer(x)
            return x

    class Dilated(nn.Module):
        """Four such convolutions side by side."""

        def __init__(self, inputs: int, filters: int) -> None:
            super().__init__()
            for dilation in (1, 2, 4, 8):
                setattr(self, f"Conv3D_{dilation}", Separable(inputs, filters, dilation))
            self.bn = nn.BatchNorm3d(4 * filters, eps=1e-3)

        def forward(self, x: Tensor) -> Tensor:
            return self.bn(torch.cat([getattr(self, f"Conv3D_{d}")(x) for d in (1, 2, 4, 8)], dim=1))  # type: ignore[no-any-return]

    class Stage(nn.Module):
        """Blocks with a shortcut from the first to the last, then half the size."""

        def __init__(self, inputs: int, filters: int) -> None:
            super().__init__()
            sizes = [inputs] + [4 * filters] * (_BLOCKS - 1)
            self.DDCNN = nn.ModuleList([Dilated(size, filters) for size in sizes])
            self.pool = nn.AvgPool3d((1, 2, 2))

        def forward(self, x: Tensor) -> Tensor:
            first, *others = self.DDCNN
            shortcut = x = functional.relu(first(x))
            for position, block in enumerate(others, start=1):
                x = block(x)
                if position < len(others):
                    x = functional.relu(x)
            return self.pool(functional.relu(x) + shortcut)  # type: ignore[no-any-return]

    class FrameSimilarity(nn.Module):
        """How alike a frame's features are to those of its neighbours."""

        def __init__(self, inputs: int) -> None:
            super().__init__()
            self.projection = nn.Linear(inputs, _SIMILARITY)
            self.fc = nn.Linear(_LOOKUP, _SIMILARITY)

        def forward(self, features: list[Tensor]) -> Tensor:
            x = torch.cat([f.mean(dim=[3, 4]) for f in features], dim=1).transpose(1, 2)
            x = functional.normalize(self.projection(x), p=2, dim=2)
            return functional.relu(self.fc(around(torch.bmm(x, x.transpose(1, 2)))))

    class ColorHistograms(nn.Module):
        """How alike its colours are to theirs: 512 bins."""

        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(_LOOKUP, _SIMILARITY)

        def forward(self, frames: Tensor) -> Tensor:
            batch, time = frames.shape[:2]
            bins = (frames.long() >> 5).reshape(batch, time, -1, 3) @ torch.tensor([64, 8, 1])
            counts = torch.zeros(batch, time, 512).scatter_add_(2, bins, torch.ones(bins.shape))
            x = functional.normalize(counts, p=2, dim=2)
            return functional.relu(self.fc(around(torch.bmm(x, x.transpose(1, 2)))))

    class TransNetV2(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            filters = [_FILTERS * 2**i for i in range(_STAGES)]
            inputs = [3, *(4 * f for f in filters[:-1])]
            self.SDDCNN = nn.ModuleList([Stage(i, f) for i, f in zip(inputs, filters)])
            self.frame_sim_layer = FrameSimilarity(sum(4 * f for f in filters))
            self.color_hist_layer = ColorHistograms()
            self.fc1 = nn.Linear(4 * filters[-1] * 3 * 6 + 2 * _SIMILARITY, _HIDDEN)
            self.cls_layer1 = nn.Linear(_HIDDEN, 1)
            self.cls_layer2 = nn.Linear(
                _HIDDEN, 1
            )  # every frame of a transition; only trained with, kept for the weights

        def forward(self, frames: Tensor) -> Tensor:
            x = frames.permute(0, 4, 1, 2, 3).float() / 255
            features = []
            for stage in self.SDDCNN:
                x = stage(x)
                features.append(x)
            x = x.permute(0, 2, 3, 4, 1).flatten(2)
            x = torch.cat([self.color_hist_layer(frames), self.frame_sim_layer(features), x], dim=2)
            return self.cls_layer1(functional.relu(self.fc1(x)))[..., 0]  # type: ignore[no-any-return]

    return TransNetV2().eval()


def load(path: str) -> Any:
    """The network with weights from a file.

    Raises:
        ConfigError: If the file is absent, or holds other weights.
    """
    import torch

    try:
        if path.endswith(".safetensors"):
            from safetensors.torch import load_file

            weights = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
        model = build()
        model.load_state_dict(weights)
    except Exception as e:  # each reader has its own errors, and all mean the same
        raise ConfigError(f"TransNetV2 weights {path}: {' '.join(str(e).split())[:300]}") from e
    return model


def boundary_curve(model: Any, frames: Iterable[np.ndarray]) -> np.ndarray:
    """Probability that a frame is the last before a boundary, (frame,) float32.

    Args:
        frames: (27, 48, 3) uint8 RGB pictures in order; read as they are needed.
    """
    import torch

    found, num = [], 0
    with torch.inference_mode():
        for window, fresh in _windows(frames):
            logits = model(torch.from_numpy(window)[None])[0, _MARGIN : _MARGIN + _STEP]
            found.append(torch.sigmoid(logits).numpy()[:fresh])
            num += fresh
    return np.concatenate(found).astype(np.float32) if found else np.zeros(0, np.float32)


def _windows(frames: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, int]]:
    """Windows of 100 frames, 50 apart, and how many of their middle 50 are frames of the video.

    The video is continued at both ends by its first and last frame.
    """
    held: list[np.ndarray] = []
    coming = iter(frames)
    first = next(coming, None)
    if first is None:
        return
    held = [first] * _MARGIN + [first]
    over, left = False, 1  # frames of the video that no window gave yet
    while left or not over:
        while len(held) < _WINDOW and not over:
            following = next(coming, None)
            if following is None:
                over = True
            else:
                held.append(following)
                left += 1
        padded = held + [held[-1]] * (_WINDOW - len(held))
        fresh = min(_STEP, left)
        if fresh:
            yield np.stack(padded[:_WINDOW]), fresh
        held, left = padded[_STEP:], left - fresh
