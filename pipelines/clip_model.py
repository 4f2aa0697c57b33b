"""Which CLIP looks at the footage: one that is trained here on known truth, or any that open_clip can load.

By default a small open_clip model is trained on the table `pairs` with open_clip's own contrastive loss, saved
as safetensors with an `open_clip_config.json`, and from then on loaded through open_clip's `local-dir:` path like any
other.  It knows the synthetic world alone, and its checkpoint row says so.  `clip_model.model` names a real one
(an architecture with `clip_model.pretrained`, `hf-hub:org/name`, or `local-dir:/path`); then nothing is trained.

Cost: about 80 CPU seconds for the demo's 500 steps.  Ref: CLIP, arXiv:2103.00020; open_clip 3.3.
"""

import dataclasses
import io
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.execute import Context, Output, Progress, Stage
from schemas.captions import PAIRS
from schemas.checkpoints import CLIP_CHECKPOINT, Checkpoint
from schemas.errors import ModelError
from schemas.ids import digest
from schemas.store import Store, content_digest

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"
_POINTER = "named.json"
_MEAN, _STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClipModelConfig:
    """Which model, and how the small one is trained."""

    model: str | None = None
    """open_clip architecture, `hf-hub:org/name` or `local-dir:/path`; None trains a small one on `pairs`."""
    pretrained: str | None = None
    """Tag or weights file for an architecture, as open_clip takes it."""
    image_size: int = 64
    """Side of the square picture, pixels.  Proxies are squashed to it, as open_clip's `squash` resize does."""
    width: int = 96
    """Width of both towers; heads are 32 wide."""
    layers: int = 3
    """Blocks in each tower."""
    embed_dim: int = 64
    """Length of an embedding."""
    steps: int = 500
    batch_size: int = 64
    learning_rate: float = 1e-3
    threads: int = 1
    """Threads while training; fixed, so that the weights are the same on every run."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.width % 32 or self.image_size % 8:
            raise ValueError(f"width must be a multiple of 32 and image_size of 8, got {self.width}, {self.image_size}")
        if self.steps < 1 or self.batch_size < 2 or self.threads < 1:
            raise ValueError("steps and threads are at least 1, batch_size at least 2")


@dataclasses.dataclass(frozen=True, slots=True)
class Clip:
    """A loaded CLIP: pictures and texts in, unit vectors out."""

    pictures: Callable[[Sequence[bytes]], np.ndarray]
    """JPEGs to (pictures, dim) float32 unit vectors."""
    texts: Callable[[Sequence[str]], np.ndarray]
    """Texts to (texts, dim) float32 unit vectors; each is cut at the context length."""
    digest: str
    knows: str


def _architecture(config: ClipModelConfig) -> dict[str, Any]:
    return {
        "embed_dim": config.embed_dim,
        "vision_cfg": {
            "image_size": config.image_size,
            "layers": config.layers,
            "width": config.width,
            "head_width": 32,
            "patch_size": 8,
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": config.width,
            "heads": config.width // 32,
            "layers": config.layers,
        },
    }


def _train(context: Context) -> Output:
    config: ClipModelConfig = context.settings
    if config.model is not None:
        row = _named(context.store, config)
    else:
        row = _trained(context, config)
    table = CLIP_CHECKPOINT.from_rows([dataclasses.replace(row, made_by=context.made_by)])
    return Output({CLIP_CHECKPOINT.name: table}, metrics={"knows": row.knows, **json.loads(row.metrics)})


def _named(store: Store, config: ClipModelConfig) -> Checkpoint:
    """Write down the name; loading it now proves that it is there."""
    name = digest("clip", config.model, config.pretrained)
    pointer = {"model": config.model, "pretrained": config.pretrained}
    path = f"checkpoints/clip/{name}"
    store.write_json(pointer, path, _POINTER)
    weights = load(
        store, Checkpoint(digest="", kind="clip", path=path, knows="general", trained_on="", steps=0, metrics="{}")
    )
    return Checkpoint(
        digest=weights.digest, kind="clip", path=path, knows="general", trained_on="", steps=0, metrics="{}"
    )


def _trained(context: Context, config: ClipModelConfig) -> Checkpoint:
    pairs = context.read(PAIRS, ["frames", "short", "dense", "split", "source"])
    source = set(pairs["source"].to_pylist())
    model, metrics = _fit(config, pairs)
    folder = Path(context.store.scratch())
    weights = _save(model, config, folder)
    path = context.store.publish_folder(folder, "checkpoints", "clip", weights)
    return Checkpoint(
        digest=weights,
        kind="clip",
        path=path,
        knows="synthetic" if source == {"synthetic"} else "footage",
        trained_on=content_digest(pairs),
        steps=config.steps,
        metrics=json.dumps(metrics, sort_keys=True),
    )


def _fit(config: ClipModelConfig, pairs: pa.Table) -> tuple[Any, dict[str, float]]:
    import open_clip
    import torch
    from open_clip.loss import ClipLoss
    from open_clip.model import CLIP

    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    model = CLIP(**_architecture(config))
    tokenizer = open_clip.SimpleTokenizer(context_length=77)
    train = [i for i, s in enumerate(pairs["split"].to_pylist()) if s == "train"]
    held_out = [i for i, s in enumerate(pairs["split"].to_pylist()) if s != "train"][: config.batch_size]
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.1)
    warmup = max(1, config.steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda s: min(1.0, (s + 1) / warmup) * 0.5 * (1 + np.cos(np.pi * min(1.0, s / config.steps))),
    )
    loss_of = ClipLoss()
    progress = Progress("clip_model", config.steps, "step")
    losses = []
    model.train()
    for step in range(config.steps):
        # counter-based: what a step draws depends on (seed, step) alone
        draw = np.random.Generator(np.random.Philox(key=[config.seed, step]))
        rows = draw.choice(train, size=min(config.batch_size, len(train)), replace=False)
        pictures, tokens = _batch(config, pairs, rows, draw, tokenizer)
        image, text, scale = model(pictures, tokens)
        loss = loss_of(image, text, scale)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, np.log(100))
        losses.append(float(loss))
        progress.advance(note=f"loss {losses[-1]:.2f}")
    progress.close()
    model.eval()
    metrics = {"loss_first": round(float(np.mean(losses[:10])), 3), "loss_last": round(float(np.mean(losses[-10:])), 3)}
    if held_out:
        draw = np.random.Generator(np.random.Philox(key=[config.seed, 2**32]))
        with torch.no_grad():
            image, text, _ = model(*_batch(config, pairs, np.array(held_out), draw, tokenizer))
        hits = (image @ text.T).argmax(1) == torch.arange(len(held_out))
        metrics |= {"held_out_retrieval": round(float(hits.float().mean()), 3), "held_out_chance": 1 / len(held_out)}
    return model, metrics


def _batch(
    config: ClipModelConfig, pairs: pa.Table, rows: np.ndarray, draw: np.random.Generator, tokenizer: Any
) -> tuple[Any, Any]:
    pictures, texts = [], []
    for row in rows:
        frames = pairs["frames"][int(row)].as_py()
        pictures.append(frames[int(draw.integers(len(frames)))])
        # a sentence at a time, as captions are scored: a dense caption need not fit the context
        dense = sentences(pairs["dense"][int(row)].as_py())
        whole = pairs["short"][int(row)].as_py() if draw.random() < 0.5 else " ".join(dense[:3])
        texts.append(whole)
    return _pixels(pictures, config.image_size), tokenizer(texts)


def _pixels(jpegs: Sequence[bytes], side: int) -> Any:
    import torch
    from PIL import Image

    arrays = [
        np.asarray(Image.open(io.BytesIO(j)).convert("RGB").resize((side, side), Image.Resampling.BICUBIC))
        for j in jpegs
    ]
    batch = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255
    return (batch - 0.5) / 0.5


def sentences(text: str) -> list[str]:
    """Split a caption where a sentence ends."""
    return [s.strip() + "." for s in text.replace("!", ".").replace("?", ".").split(".") if s.strip()]


def _save(model: Any, config: ClipModelConfig, folder: Path) -> str:
    """Write weights and open_clip's config; returns the digest of the weights."""
    from safetensors.torch import save_file

    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, str(folder / WEIGHTS_FILE))
    described = {
        "model_cfg": _architecture(config),
        "preprocess_cfg": {"mean": _MEAN, "std": _STD, "interpolation": "bicubic", "resize_mode": "squash"},
    }
    (folder / CONFIG_FILE).write_text(json.dumps(described, indent=1))
    return digest((folder / WEIGHTS_FILE).read_bytes())


def load(store: Store, checkpoint: Checkpoint, threads: int = 1) -> Clip:
    """Load a checkpoint, ours or a named one, through open_clip.

    Raises:
        ModelError: If the weights are not there or do not load; says what to do.
    """
    import open_clip
    import torch

    torch.set_num_threads(threads)
    folder = store.fetch(checkpoint.path)
    name, pretrained = f"local-dir:{folder}", None
    pointer = os.path.join(folder, _POINTER)
    if os.path.exists(pointer):
        named = json.loads(Path(pointer).read_text())
        name, pretrained = named["model"], named["pretrained"]
    try:
        model, _, preprocess = open_clip.create_model_and_transforms(name, pretrained=pretrained)
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as e:  # hub, file and config errors are all of different classes
        raise ModelError(
            f"open_clip cannot load `{name}` (pretrained={pretrained}): {e}. Give clip_model.model and "
            "clip_model.pretrained as open_clip takes them, or a folder as `local-dir:/path`"
        ) from e
    model.eval()

    def pictures(jpegs: Sequence[bytes]) -> np.ndarray:
        from PIL import Image

        with torch.inference_mode():
            batch = torch.stack([preprocess(Image.open(io.BytesIO(j)).convert("RGB")) for j in jpegs])
            return np.asarray(model.encode_image(batch, normalize=True), dtype=np.float32)

    def texts(lines: Sequence[str]) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(model.encode_text(tokenizer(list(lines)), normalize=True), dtype=np.float32)

    known = checkpoint.digest or _weights_digest(model)
    return Clip(pictures, texts, known, checkpoint.knows)


def _weights_digest(model: Any) -> str:
    from safetensors.torch import save_file

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / WEIGHTS_FILE
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, str(file))
        return digest(file.read_bytes())


CLIP_MODEL = Stage(
    name="clip_model",
    version=1,
    reads=(PAIRS,),
    writes=(CLIP_CHECKPOINT,),
    run=_train,
    settings=lambda config: config.clip_model,
    doc="The CLIP that scores and embeds: trained on pairs, or named.",
)
