"""Videos of fixed prompts as training goes on: the same prompts, seeds and size each time, from the average weights.

Pictures go to `<root>/logs/dit/<run>/pictures/step-000001000.jpg`, one line per prompt, frames side by side; the last
one is shown in Dagster.  Looking changes no weight and nothing that is drawn in training, so it is no part of what a
checkpoint is named by.  Cost: as sampling (`sample.py`), every `every` steps.
"""

import dataclasses
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # configs load without torch
    from schemas.store import Store
    from trainer.train import Trainer

_SEED = 7
_MOST_BYTES = 120_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WatchConfig:
    """Which videos are made during training, and how often."""

    every: int = 0
    """Steps between two looks. 0: never."""
    prompts: tuple[str, ...] = ()
    """What to show (`--set` takes a JSON list); none takes captions of the manifest."""
    most: int = 4
    """Captions of the manifest that are taken where no prompts are named."""
    width: int = 64
    """Width in pixels."""
    height: int = 48
    """Height in pixels."""
    frames: int = 5
    """Frames, 1 + a multiple of the autoencoder's time compression."""
    steps: int = 12
    """Solver steps."""

    def __post_init__(self) -> None:
        if self.every < 0 or min(self.most, self.width, self.height, self.frames, self.steps) < 1:
            raise ValueError("watch: every >= 0, and the rest at least 1 is needed")


class Watch:
    """Makes the videos; the autoencoder is loaded once."""

    def __init__(self, store: "Store", folder: Path, config: WatchConfig, fps: float | None) -> None:
        """
        Raises:
            ModelError: If the autoencoder does not load.
        """
        from schemas.checkpoints import AUTOENCODER_CHECKPOINT
        from trainer.autoencoder.stage import loaded

        (row,) = store.read(AUTOENCODER_CHECKPOINT).to_pylist()
        self._autoencoder: Any = loaded(store, row)
        self._folder, self._config, self._fps = folder, config, fps

    def look(self, trainer: "Trainer") -> None:
        """Make the videos of this step; in a sharded run every process computes them, the first one writes.

        Raises:
            ConfigError: If their size does not divide into tokens, or training is not on the CPU.
        """
        import numpy as np
        import torch
        from PIL import Image

        from schemas.errors import ConfigError
        from trainer.config import SamplingConfig
        from trainer.sample import Generator, Request
        from trainer.sample_stage import strip
        from trainer.shapes import PixelShape
        from trainer.validate import chosen

        config, model = self._config, trainer.model
        if trainer.world.device != "cpu":
            raise ConfigError("dit.watch makes its videos on the CPU only; set dit.watch.every=0 with another device")
        rows = trainer.samples.rows
        prompts = config.prompts or tuple(rows[c].dense for c in chosen(rows, config.most))
        generator = Generator(model, self._autoencoder, trainer.flow, trainer.sizes, self._fps or 8.0)
        requests = [Request(p, _SEED + i) for i, p in enumerate(prompts)]
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad(), trainer.with_average():
                shape = PixelShape(config.frames, config.height, config.width)
                videos = generator.videos(requests, shape, SamplingConfig(steps=config.steps))
        except ValueError as e:
            raise ConfigError(f"dit.watch: {e}") from e
        finally:
            model.train(was_training)
        if not trainer.world.first:
            return
        sheet = Image.fromarray(np.concatenate([strip(v, 8) for v in videos]))
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / f"step-{trainer.step:09d}.jpg").write_bytes(_jpeg(sheet))


def latest(folder: Path) -> dict[str, bytes]:
    """The last sheet, for the stage's output."""
    found = sorted(folder.glob("step-*.jpg"))
    return {"fixed_prompts": found[-1].read_bytes()} if found else {}


def _jpeg(sheet: Any) -> bytes:
    buffer = io.BytesIO()
    for quality in range(90, 10, -10):
        buffer = io.BytesIO()
        sheet.save(buffer, "JPEG", quality=quality)
        if buffer.tell() <= _MOST_BYTES:
            break
    return buffer.getvalue()
