"""Stage `clip_model`: the CLIP in use, named from outside or trained here on (frames, caption) pairs.

`model` names anything that open_clip can load ("ViT-B-32" with a `pretrained` tag, "hf-hub:org/name",
"local-dir:/path"); then nothing is trained.  Otherwise a small open_clip model of its own shape learns from
`pairs` with open_clip's ClipLoss and is saved in open_clip's own folder format (open_clip_config.json and
safetensors), so that `open_clip.create_model_and_transforms("local-dir:...")` loads it anywhere.
It knows the world it was trained on and no other; the row's `knows` says so, and later stages heed it.
Beside it lies an aesthetic head (see `aesthetic_head`), no wiser than that.

A step draws, for each of a batch of pairs, one of its frames and one of its texts: the short caption or
one sentence of the dense one, since CLIP reads 77 tokens.  Cost: about 0.3 s per step on one core.
Ref: CLIP (arXiv:2103.00020); open_clip.
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from pipelines.clip.aesthetic_head import KNOWS, aesthetic_head
from pipelines.clip.heads import Head, write_head
from pipelines.execute import Context, Output, Progress, Stage
from pipelines.video.frames import read_jpeg
from schemas.captions import SYNTHETIC_PAIRS
from schemas.checkpoints import CLIP_CHECKPOINT, Checkpoint
from schemas.errors import MissingTable, ModelError
from schemas.ids import ID_DIGITS, digest
from schemas.store import Store

WEIGHTS, CARD = "open_clip_model.safetensors", "card.json"
AESTHETIC = "aesthetic_head.safetensors"
SCALE_LIMIT = 100.0
_AT_ONCE = 64
_MEAN, _STD = (0.481, 0.458, 0.408), (0.269, 0.261, 0.276)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClipConfig:
    """Which CLIP scores clips and captions."""

    model: str | None = None
    """An open_clip name or path; None to train a small one on the pairs."""
    pretrained: str = ""
    """open_clip's tag of the weights where `model` is a plain name, such as `laion2b_s34b_b79k`."""
    steps: int = 400
    """Optimiser steps."""
    batch_size: int = 64
    """Pairs in a step; the others of the batch are each one's negatives."""
    learning_rate: float = 2e-3
    """Peak, after a tenth of the steps; falls as a cosine."""
    image_size: int = 64
    """Side of the square picture the model sees, pixel; others are squeezed to it."""
    patch_size: int = 8
    """Side of a patch, pixel."""
    width: int = 128
    """Width of the picture transformer."""
    layers: int = 3
    """Its layers."""
    text_width: int = 64
    """Width of the text transformer."""
    text_layers: int = 2
    """Its layers."""
    context_length: int = 40
    """Tokens of text it reads; captions are scored a sentence at a time, and theirs are shorter than this."""
    seed: int = 0
    """Of the weights and the draws."""
    threads: int = 1
    """CPU threads; the result depends on it in the last bits."""

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size, self.width, self.layers, self.text_width, self.text_layers) < 1:
            raise ValueError("steps, batch_size, widths and layers must be at least 1")
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size must be a multiple of patch_size, got {self.image_size} and {self.patch_size}"
            )


def open_clip_config(config: ClipConfig) -> dict[str, Any]:
    """The model as open_clip describes models."""
    heads = max(1, config.width // 32)
    return {
        "model_cfg": {
            "embed_dim": config.width,
            "vision_cfg": {
                "image_size": config.image_size,
                "layers": config.layers,
                "width": config.width,
                "head_width": config.width // heads,
                "patch_size": config.patch_size,
            },
            "text_cfg": {
                "context_length": config.context_length,
                "vocab_size": 49408,
                "width": config.text_width,
                "heads": max(1, config.text_width // 32),
                "layers": config.text_layers,
            },
        },
        "preprocess_cfg": {
            "mean": list(_MEAN),
            "std": list(_STD),
            "interpolation": "bilinear",
            "resize_mode": "squash",
        },
    }


def sentences(text: str) -> list[str]:
    """Split a caption into sentences; CLIP reads 77 tokens, and a dense caption is longer."""
    return [s.strip() for s in re.split(r"(?<=[.!?])\s+", text.strip()) if s.strip()]


def _clip_model(context: Context) -> Output:
    config: ClipConfig = context.settings
    if config.model is not None:
        row, metrics = _named(config, context.made_by)
    else:
        row, metrics = _train(context, config)
    return Output({CLIP_CHECKPOINT.name: CLIP_CHECKPOINT.from_rows([row])}, metrics=metrics)


def _named(config: ClipConfig, made_by: str) -> tuple[Checkpoint, dict[str, Any]]:
    """Load the named model once, to know that it is there and what its weights are."""
    name = json.dumps({"model": config.model, "pretrained": config.pretrained}, sort_keys=True)
    model, _, _ = load_named(config.model or "", config.pretrained)
    sha = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        sha.update(key.encode())
        sha.update(value.contiguous().cpu().numpy().tobytes())
    row = Checkpoint(
        digest=sha.hexdigest()[:ID_DIGITS],
        kind="clip",
        path=name,
        knows="general",
        trained_on="",
        steps=0,
        metrics="{}",
        made_by=made_by,
    )
    return row, {"model": config.model, "knows": "general"}


def load_named(model: str, pretrained: str) -> tuple[Any, Any, Any]:
    """(model, preprocess, tokenizer) by open_clip name or path.

    Raises:
        ModelError: If the weights are not to be had, with the remedy.
    """
    import open_clip

    try:
        made, _, preprocess = open_clip.create_model_and_transforms(
            model, pretrained=pretrained or None, require_pretrained=True
        )
        return made.eval(), preprocess, open_clip.get_tokenizer(model)
    except Exception as e:
        raise ModelError(
            f"CLIP `{model}`{f' ({pretrained})' if pretrained else ''} does not load: {str(e)[:300]}. Check the name, "
            "download it first (`open_clip` caches under HF_HOME), point `clip.model` at `local-dir:/path`, or set "
            "`clip.model=none` to train a small one"
        ) from e


def load_clip(store_root: str, row: Checkpoint) -> tuple[Any, Any, Any]:
    """(model, preprocess, tokenizer) of a row of `clip_checkpoint`, trained here or named."""
    import torch

    torch.set_num_threads(1)
    if row.path.startswith("{"):
        name = json.loads(row.path)
        return load_named(name["model"], name["pretrained"])
    try:
        folder = Store(store_root).fetch(row.path)
    except MissingTable as e:
        raise ModelError(f"CLIP checkpoint {row.digest} is gone: {e}. Run the stage `clip_model` with --force") from e
    return load_named(f"local-dir:{folder}", "")


def _train(context: Context, config: ClipConfig) -> tuple[Checkpoint, dict[str, Any]]:
    pairs = context.read_optional(SYNTHETIC_PAIRS)
    if pairs is None or not pairs.num_rows:
        raise MissingTable(
            f"stage `clip_model` learns from table `synthetic_pairs`, which was never made under {context.store.root}: "
            "run `dailies stage synthetic_pairs` first, or name a model with `--set clip.model=...`"
        )
    rows = sorted(pairs.to_pylist(), key=lambda r: r["pair_id"])
    train = [r for r in rows if r["split"] == "train"] or rows
    held_out = [r for r in rows if r["split"] != "train"]
    made, metrics = train_clip(train, held_out, config)
    head, told = aesthetic_head(partial(_encode, made), config.image_size, train, held_out or train)
    metrics = {**metrics, **told}
    folder = context.store.scratch()
    made_digest = _save(made, head, config, folder, metrics)
    path = context.store.publish_folder(folder, "checkpoints", "clip", made_digest)
    row = Checkpoint(
        digest=made_digest,
        kind="clip",
        path=path,
        knows="synthetic" if all(r["source"] == "synthetic" for r in train) else "footage",
        trained_on=digest([r["pair_id"] for r in train]),
        steps=config.steps,
        metrics=json.dumps(metrics, sort_keys=True),
        made_by=context.made_by,
    )
    return row, {**metrics, "knows": row.knows, "pairs": len(train)}


def _encode(model: Any, pictures: np.ndarray) -> np.ndarray:
    """(n, size, size, 3) uint8 to (n, dim) unit vectors."""
    import torch

    with torch.no_grad():
        parts = [
            model.encode_image(_tensor(pictures[i : i + _AT_ONCE]), normalize=True).numpy()
            for i in range(0, len(pictures), _AT_ONCE)
        ]
    return np.concatenate(parts)


def _save(model: Any, head: Head, config: ClipConfig, folder: str, metrics: dict[str, Any]) -> str:
    """Write the folder and return the digest of its weights."""
    from safetensors.torch import save_file

    weights = os.path.join(folder, WEIGHTS)
    save_file({k: v.contiguous().clone() for k, v in sorted(model.state_dict().items())}, weights)
    for name, value in (("open_clip_config.json", open_clip_config(config)), (CARD, metrics)):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
            json.dump(value, f, indent=1, sort_keys=True)
    write_head(head, os.path.join(folder, AESTHETIC), KNOWS)
    sha = hashlib.sha256(digest(open_clip_config(config)).encode())
    for path in (weights, os.path.join(folder, AESTHETIC)):
        with open(path, "rb") as f:
            sha.update(f.read())
    return sha.hexdigest()[:ID_DIGITS]


def train_clip(
    train: list[dict[str, Any]], held_out: list[dict[str, Any]], config: ClipConfig
) -> tuple[Any, dict[str, Any]]:
    """Train from scratch; same pairs, config and thread count give the same weights."""
    import open_clip
    import torch

    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    torch.use_deterministic_algorithms(True)
    try:
        cfg = open_clip_config(config)["model_cfg"]
        model = open_clip.CLIP(**cfg)
        tokenizer = open_clip.SimpleTokenizer(context_length=config.context_length)
        frames, texts = _pictures(train, config), [_texts(r) for r in train]
        loss = _fit(model, tokenizer, frames, texts, config)
        metrics: dict[str, Any] = {"loss": round(loss, 4)}
        if held_out:
            metrics.update(_retrieval(model.eval(), tokenizer, held_out, config))
        return model.eval(), metrics
    finally:
        torch.use_deterministic_algorithms(False)


def _pictures(rows: list[dict[str, Any]], config: ClipConfig) -> list[np.ndarray]:
    """All frames of each pair, (frame, size, size, 3) uint8."""
    import cv2

    size = (config.image_size, config.image_size)
    return [
        np.stack([cv2.resize(read_jpeg(j), size, interpolation=cv2.INTER_AREA) for j in row["frames"]]) for row in rows
    ]


def _texts(row: dict[str, Any]) -> list[str]:
    return [row["short"], *sentences(row["dense"])]


def _tensor(pictures: np.ndarray) -> Any:
    """(n, height, width, 3) uint8 to normalised (n, 3, height, width)."""
    import torch

    scaled = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255
    return (scaled - torch.tensor(_MEAN).view(1, 3, 1, 1)) / torch.tensor(_STD).view(1, 3, 1, 1)


def _fit(
    model: Any,
    tokenizer: Callable[[list[str]], Any],
    frames: list[np.ndarray],
    texts: list[list[str]],
    config: ClipConfig,
) -> float:
    import open_clip
    import torch

    criterion = open_clip.ClipLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.05)
    warm = max(1, config.steps // 10)
    rng = np.random.default_rng(config.seed)
    progress, recent = Progress("clip_model", config.steps, "step"), 0.0
    model.train()
    for step in range(config.steps):
        rate = (
            (step + 1) / warm
            if step < warm
            else 0.5 * (1 + np.cos(np.pi * (step - warm) / max(1, config.steps - warm)))
        )
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * float(rate)
        chosen = rng.choice(len(frames), size=min(config.batch_size, len(frames)), replace=False)
        pictures = np.stack([frames[i][rng.integers(len(frames[i]))] for i in chosen])
        words = [texts[i][rng.integers(len(texts[i]))] if rng.random() < 0.5 else texts[i][0] for i in chosen]
        image = model.encode_image(_tensor(pictures), normalize=True)
        text = model.encode_text(tokenizer(words), normalize=True)
        loss = criterion(image, text, model.logit_scale.exp())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, float(np.log(SCALE_LIMIT)))
        recent = float(loss.detach()) if step == 0 else 0.95 * recent + 0.05 * float(loss.detach())
        progress.advance(1, f"loss {recent:.3f}")
    progress.close()
    return recent


def _retrieval(model: Any, tokenizer: Any, rows: list[dict[str, Any]], config: ClipConfig) -> dict[str, Any]:
    """How often the right short caption of up to 100 held-out ones comes first; equal captions count as right."""
    import torch

    rows = rows[:100]
    with torch.no_grad():
        pictures = [_tensor(p) for p in _pictures(rows, config)]
        image = torch.stack([model.encode_image(p, normalize=True).mean(dim=0) for p in pictures])
        text = model.encode_text(tokenizer([r["short"] for r in rows]), normalize=True)
    best = (image @ text.T).argmax(dim=1).tolist()
    hits = sum(rows[i]["short"] == rows[j]["short"] for i, j in enumerate(best))
    return {"held_out_top1": round(hits / len(rows), 4), "held_out": len(rows), "chance": round(1 / len(rows), 4)}


CLIP_MODEL_STAGE = Stage(
    name="clip_model",
    version=2,  # with an aesthetic head
    reads=(),
    optional=(SYNTHETIC_PAIRS,),
    writes=(CLIP_CHECKPOINT,),
    run=_clip_model,
    settings=lambda config: config.clip,
    doc="The CLIP that scores clips and captions.",
)
