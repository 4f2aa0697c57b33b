"""How different two videos look to a CLIP vision tower: the perceptual option of the autoencoder's training.

Frames are brought to the tower's size; its patch features at two depths are brought to unit length, and the squared
distance is averaged over patches and layers (LPIPS without learned weights).  The tower is named by the user: the
small one that a root trains (`checkpoints/clip/<digest>`), or any of open_clip's.  It stays frozen.

Sources: LPIPS, arXiv:1801.03924; CLIP features as a perceptual loss, arXiv:2202.05822.
"""

import os
from typing import Any

import torch
from torch.nn import functional

from schemas.errors import ModelError

_MEAN, _STD = (0.4815, 0.4578, 0.4082), (0.2686, 0.2613, 0.2758)  # OpenAI's, where the model names no other


class Perceptual:
    """A frozen tower."""

    def __init__(self, name: str) -> None:
        """
        Args:
            name: Folder in open_clip's layout, or a name that open_clip knows (`ViT-B-32/laion2b_s34b_b79k`).

        Raises:
            ModelError: If it does not load, or its tower has no patch features.
        """
        import open_clip

        folder = os.path.isdir(name)
        model_name, _, weights = (f"local-dir:{name}", "", "") if folder else name.partition("/")
        try:
            model = open_clip.create_model(model_name, pretrained=weights or None, require_pretrained=True)
        except (RuntimeError, OSError, ValueError) as e:
            raise ModelError(f"perceptual model `{os.path.basename(name)}` does not load with open_clip: {e}") from e
        self._tower: Any = model.visual.eval().requires_grad_(False)
        if not hasattr(self._tower, "forward_intermediates"):
            raise ModelError(f"perceptual model `{os.path.basename(name)}` has no patch features; name a ViT")
        size = self._tower.image_size
        self._size = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
        mean = getattr(self._tower, "image_mean", None) or _MEAN
        std = getattr(self._tower, "image_std", None) or _STD
        self._mean, self._std = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]

    def distance(self, a_BCTHW: torch.Tensor, b_BCTHW: torch.Tensor) -> torch.Tensor:
        """Mean squared distance of unit features, 0 to 4; the gradient goes to `b`."""
        with torch.no_grad():
            wanted = self._features(a_BCTHW)
        pairs = zip(wanted, self._features(b_BCTHW))
        return torch.stack([(x - y).square().sum(1).mean() for x, y in pairs]).mean()

    def _features(self, video_BCTHW: torch.Tensor) -> list[torch.Tensor]:
        frames = (video_BCTHW.transpose(1, 2).flatten(0, 1) + 1) / 2
        frames = functional.interpolate(frames, self._size, mode="bilinear", antialias=True, align_corners=False)
        found = self._tower.forward_intermediates((frames - self._mean) / self._std, indices=2, intermediates_only=True)
        return [functional.normalize(x, dim=1) for x in found["image_intermediates"]]
