"""What packing and the transformer cost, beside what others do with the same rows and a transformer of the same size.

    python -m benchmarks.training                  # a few minutes, one thread
    python -m benchmarks.training --only mfu peer

    mfu       a whole training step (packs, forward, backward, clipping, AdamW, average): operations that the shapes
              need per CPU second, over the rate of a matrix product in the same process; and the share of its
              wall time that it waits for packs, which a thread makes ready beside it
    padding   the same rows and weights in random batches padded to the longest, their padding masked, which is what a
              trainer without packing does: useful tokens per CPU second
    buckets   pixels kept, against the nearest bucket of Open-Sora 1.2 (aspect ratio by resize and centre crop, frames
              cut to the bucket's): integers over 20,000 shapes, no model
    packing   fill and speed of the packer (`dailies train verify` prints the same)
    peer      one step of diffusers' WanTransformer3DModel of the same width, depth, heads and MLP, samples of one shape

CPU seconds, not wall: other work may share the machine.  Results go to benchmarks/results/training.json.
"""

import argparse
import itertools
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.machine import RESULTS, keep, machine, say
from trainer import randomness
from trainer.config import DrawConfig, OptimizerConfig
from trainer.data import Batch, Drawn, Sample, batch_of
from trainer.flops import step_flops
from trainer.flow import FlowConfig
from trainer.model.attention import Group, Segments
from trainer.model.config import SIZES, ModelConfig, TextConfig
from trainer.model.dit import DiT, noise_features
from trainer.model.rope import angles
from trainer.model.text import train_tokenizer
from trainer.packing import pack_stream
from trainer.plan import Plan, PlanConfig, Row, Visit
from trainer.shapes import (
    Compression,
    PixelShape,
    ShapeConfig,
    TokenGrid,
    choose_frames,
    fit,
    latent_shape,
    token_grid,
)
from trainer.train import Trainer
from trainer.verify import VerifyConfig, draw_shapes, verify

SIZE = "S"  # width 384, 12 blocks, 6 heads
CHANNELS = 64  # 16 latent channels, patch 2
BUDGET = 4096
FPS = 24.0
# time as in the trainer's facts (cap of 129 frames), pictures small enough for a CPU
SHAPE = ShapeConfig(train_fps=FPS, max_frames=129, max_area=64 * 64, max_tokens=1024, patch=2)
CAPTIONS = (
    "A small red circle moves left over sand, and the camera is still; the light is flat.",
    "A large blue star stands still on grass while the camera pans right; then it falls down slowly and stays there.",
    "Two white squares cross a road at dusk, one after the other, seen from above by a camera that follows them.",
)
# width over height, and frames, of Open-Sora 1.2's bucket table (opensora/datasets/aspect.py and the stage-1 config)
ASPECTS = (0.38, 0.43, 0.48, 0.5, 0.53, 0.54, 0.56, 0.62, 0.67, 0.75, 1.0, 1.33, 1.5, 1.78, 1.89, 2.0, 2.08)
FRAMES = (1, 51, 102, 204, 408)


class Rows:
    """Rows of mixed shapes with made-up latents; has what `trainer.data.Samples` has."""

    def __init__(self, count: int, seed: int = 0) -> None:
        self.rows = {}
        for i, (width, height, frames) in enumerate(draw_shapes(count, seed)):
            grid = grid_of(frames, width, height)
            text = CAPTIONS[i % len(CAPTIONS)]
            self.rows[f"row{i:05d}"] = Sample(f"row{i:05d}", "", grid, 0.125, text[:24], text)

    def tokens(self, clip_id: str) -> torch.Tensor:
        size = (self.rows[clip_id].grid.num_tokens, CHANNELS)
        return torch.from_numpy(randomness.noise(7, clip_id, 0, size, "latent"))

    def drawn(self, drawn: Drawn) -> torch.Tensor:
        return self.tokens(drawn.visit.clip_id)


def grid_of(frames: int, width: int, height: int, fps: float = FPS) -> TokenGrid:
    """Tokens of a clip of this size, as training would take it."""
    sizes = Compression(patch=SHAPE.patch)
    count = len(choose_frames(frames, fps, SHAPE, sizes).indices)
    latent_frames = 1 + (count - 1) // sizes.time
    f = fit(width, height, latent_frames, SHAPE, sizes)
    return token_grid(latent_shape(PixelShape(count, f.height, f.width), sizes), sizes)


def trainer_of(rows: Rows, steps: int = 50, size: str = SIZE) -> Trainer:
    """The real trainer on these rows, at step 0, every zero-initialised part as it is."""
    text = TextConfig()
    torch.manual_seed(0)
    plan = Plan(
        "benchmark", {c: Row(tokens=s.grid.num_tokens) for c, s in rows.rows.items()}, PlanConfig(budget=BUDGET)
    )
    return Trainer(
        DiT(ModelConfig(size=size, text=text), CHANNELS, train_tokenizer(CAPTIONS, text)),
        rows,  # type: ignore[arg-type]
        plan,
        optimizer=OptimizerConfig(steps=steps, threads=1),
        draw=DrawConfig(tasks=("text_to_video:1",)),
        flow=FlowConfig(),
        sizes=Compression(patch=SHAPE.patch),
        manifest="benchmark",
    )


def cpu(run: Callable[[], Any]) -> float:
    """CPU seconds of this process, all its threads."""
    start = time.process_time()
    run()
    return time.process_time() - start


def matrix_rate(side: int = 768, rounds: int = 8) -> float:
    """Operations per CPU second of a float32 matrix product: the median of a few."""
    a, out = torch.ones(side, side), torch.empty(side, side)
    torch.mm(a, a, out=out)
    return 2 * side**3 / statistics.median(cpu(lambda: torch.mm(a, a, out=out)) for _ in range(rounds))


def measure_mfu(steps: int = 2) -> dict[str, Any]:
    """Whole steps of the real trainer, and how long they waited for packs; in the first nothing is made ready."""
    made = trainer_of(Rows(200))
    made.advance()
    before, found, tokens, flops, seconds = matrix_rate(), [], 0, 0.0, 0.0
    waited, wall_s = made.feed.waited_s, 0.0
    for _ in range(steps):
        start, begun = time.process_time(), time.perf_counter()
        done = made.advance()
        took = time.process_time() - start
        wall_s += time.perf_counter() - begun
        tokens, flops, seconds = tokens + done.metrics["tokens"], flops + done.flops, seconds + took
        found.append(done.flops / took)
    rate = statistics.mean([before, matrix_rate()])
    waited = made.feed.waited_s - waited
    packing_s = cpu(lambda: made._prepare(0))
    made.close()
    depth, width, heads = SIZES[SIZE]
    return {
        "width": width,
        "depth": depth,
        "heads": heads,
        "budget_tokens": BUDGET,
        "gemm_gflop_per_cpu_s": round(rate / 1e9, 1),
        "step_gflop_per_cpu_s": [round(f / 1e9, 1) for f in found],
        "tokens_per_cpu_s": round(tokens / seconds, 1),
        "mfu": round(flops / seconds / rate, 3),
        "wait_share_of_wall": round(waited / wall_s, 5),
        "share_of_cpu_to_make_packs_ready": round(packing_s / (seconds / steps), 5),
    }


def measure_padding(rows: int = 40, batch: int = 8, rounds: int = 1, depth: int = 4) -> dict[str, Any]:
    """The same rows through the same weights, packed and padded; the width of S, fewer blocks."""
    _, width, heads = SIZES[SIZE]
    SIZES["benchmark"] = (depth, width, heads)
    made = trainer_of(Rows(rows), size="benchmark")
    with torch.no_grad():
        for p in made.model.parameters():  # zero-initialised parts would agree with anything
            p.add_(0.02 * torch.randn_like(p))
    visits = [v for v, _ in itertools.islice(made.plan._visits(), rows)]
    drawn, tokens = made._drawn(visits, 0)
    packs = list(pack_stream(((i, len(x)) for i, x in enumerate(tokens)), BUDGET, 256))
    order = list(range(rows))
    random.Random(0).shuffle(order)
    batches = [order[i : i + batch] for i in range(0, rows, batch)]

    def step(groups: Sequence[Sequence[int]], losses_of: Callable[[DiT, Batch], torch.Tensor]) -> list[float]:
        made.model.zero_grad(set_to_none=True)
        found = [0.0] * rows
        for group in groups:
            losses = losses_of(made.model, batch_of([drawn[i] for i in group], [tokens[i] for i in group]))
            (losses.sum() / rows).backward()
            for i, loss in zip(group, losses.tolist()):
                found[i] = loss
        return found

    def packed(model: DiT, each: Batch) -> torch.Tensor:
        return each.losses(model(each.pack))

    step([packs[0][:2]], packed)
    step([order[:2]], padded_losses)
    results: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {"packed": [], "padded": []}
    for _ in range(rounds):  # by turns, so that a busy neighbour hits both
        seconds["packed"].append(cpu(lambda: results.update(packed=step(packs, packed))))
        seconds["padded"].append(cpu(lambda: results.update(padded=step(batches, padded_losses))))
    made.close()
    useful = sum(len(x) for x in tokens)
    whole = sum(len(b) * max(len(tokens[i]) for i in b) for b in batches)
    best = {k: min(v) for k, v in seconds.items()}
    return {
        "rows": rows,
        "width": width,
        "depth": depth,
        "useful_tokens": useful,
        "padding_share_packed": 0.0,
        "padding_share_padded": round(1 - useful / whole, 3),
        "batch": batch,
        "cpu_s": {k: [round(s, 2) for s in v] for k, v in seconds.items()},
        "useful_tokens_per_cpu_s": {k: round(useful / s, 1) for k, s in best.items()},
        "ratio": round(best["padded"] / best["packed"], 2),
        "largest_relative_difference_of_a_loss": max(
            abs(a - b) / b for a, b in zip(results["packed"], results["padded"])
        ),
    }


def padded_losses(model: DiT, batch: Batch) -> torch.Tensor:
    """The same blocks over samples padded to the longest, keys masked, as a trainer without packing runs them."""
    pack, lengths = batch.pack, torch.tensor(batch.pack.lengths)
    count, longest = len(lengths), int(lengths.max())
    real = torch.arange(longest) < lengths[:, None]
    flat = real.flatten()
    text, words = model.text(pack.texts)
    most = max(words)
    real_words = torch.arange(most) < torch.tensor(words)[:, None]
    wide = text.new_zeros(count * most, text.shape[1]).masked_scatter(real_words.flatten()[:, None], text)
    x = pack.x.new_zeros(count * longest, pack.x.shape[1]).masked_scatter(flat[:, None], pack.x)
    place = pack.positions.new_zeros(count * longest, 3).masked_scatter(flat[:, None], pack.positions)
    queries = torch.arange(count * longest).view(count, longest)
    restore = torch.arange(count * longest)
    own = Segments((Group(queries, queries, real[:, None, None, :]),), restore, lengths, lengths, longest, longest)
    keys = torch.arange(count * most).view(count, most)
    to_text = Segments((Group(queries, keys, real_words[:, None, None, :]),), restore, lengths, lengths, longest, most)
    rotation = angles(place, model._head_dim, model.config.rope_theta, model.config.rope_per_second)
    levels = torch.cat([pack.t, torch.zeros_like(pack.t)])
    means = torch.stack([part.mean(0) for part in text.split(list(words))])
    condition = model.noise(noise_features(levels)) + model.pooled(means).repeat(2, 1)
    row = torch.arange(count).repeat_interleave(longest)
    x = model.embed(x)
    for block in model.blocks:
        x = block(x, condition, row, wide, own, to_text, (rotation.cos(), rotation.sin()))
    shift, scale = model.modulation(torch.nn.functional.silu(condition)).index_select(0, row).chunk(2, dim=-1)
    return batch.losses(model.head(model.norm(x) * (1 + scale) + shift)[flat])


def measure_buckets(count: int = 20_000, longest: int = 408) -> dict[str, Any]:
    """Pixels kept of clips up to `longest` frames, native shapes against nearest buckets; resolution kept in both."""
    sizes, shape = Compression(), ShapeConfig(train_fps=None, max_frames=longest, max_area=None, max_tokens=10**9)
    whole = native = bucket = cropped = square = 0.0
    for width, height, frames in draw_shapes(count, 0):
        seen = min(frames, longest)
        area = width * height
        whole += area * seen
        kept = len(choose_frames(frames, 24.0, shape, sizes).indices)
        f = fit(width, height, 1 + (kept - 1) // sizes.time, shape, sizes)
        native += f.height * f.width * kept
        aspect = width / height
        nearest = min(ASPECTS, key=lambda a: abs(a - aspect))
        share = min(aspect, nearest) / max(aspect, nearest)
        bucket += area * share * max(n for n in FRAMES if n <= seen)
        cropped += area * share * seen
        square += min(width, height) ** 2 * max(n for n in FRAMES if n <= seen)
    return {
        "rows": count,
        "frames_of_buckets": FRAMES,
        "aspects_of_buckets": ASPECTS,
        "kept_native": round(native / whole, 4),
        "kept_nearest_bucket": round(bucket / whole, 4),
        "kept_nearest_bucket_picture_alone": round(cropped / whole, 4),
        "kept_square_bucket": round(square / whole, 4),
        "ratio": round(native / bucket, 3),
        "ratio_picture_alone": round(native / cropped, 3),
        "ratio_square": round(native / square, 3),
    }


def measure_packing() -> dict[str, Any]:
    """20,000 shapes in a window of 256, and 100,000 on the clock."""
    found = verify(VerifyConfig(packs=1), ShapeConfig())
    return {"fill": round(found.fill, 4), "padding_tokens": found.padding_tokens, "cpu_s_for_100k": found.pack_100k_s}


def measure_peer(samples: int = 4, rounds: int = 2) -> dict[str, Any]:
    """Forward and backward of one shape: ours, and diffusers' transformer of the same size."""
    from diffusers import WanTransformer3DModel

    depth, width, heads = SIZES[SIZE]
    grid, words = TokenGrid(5, 8, 12), 32
    torch.manual_seed(0)
    peer = WanTransformer3DModel(
        num_attention_heads=heads,
        attention_head_dim=width // heads,
        in_channels=16,
        out_channels=16,
        text_dim=96,
        ffn_dim=4 * width,
        num_layers=depth,
    )
    video = torch.randn(samples, 16, grid.frames, 2 * grid.height, 2 * grid.width)
    text, t = torch.randn(samples, words, 96), torch.full((samples,), 500)

    def of_peer() -> None:
        peer.zero_grad(set_to_none=True)
        peer(video, t, text, return_dict=False)[0].square().mean().backward()

    rows = Rows(samples)
    made = trainer_of(rows)
    made.samples.rows = {c: Sample(c, "", grid, 0.125, s.short, s.dense) for c, s in list(rows.rows.items())[:samples]}
    batch = batch_of(*made._drawn([Visit(c, 0, 0) for c in made.samples.rows]))

    def of_ours() -> None:
        made.model.zero_grad(set_to_none=True)
        batch.losses(made.model(batch.pack)).sum().backward()

    of_peer()
    of_ours()
    seconds: dict[str, list[float]] = {"ours": [], "diffusers": []}
    for _ in range(rounds):
        seconds["ours"].append(cpu(of_ours))
        seconds["diffusers"].append(cpu(of_peer))
    made.close()
    tokens = samples * grid.num_tokens
    best = {k: min(v) for k, v in seconds.items()}
    lengths = made.model.text.lengths([d.text for d in batch.drawn])
    flops = step_flops([(grid.num_tokens, n) for n in lengths], made.model.config, CHANNELS, 96)
    return {
        "peer": "diffusers WanTransformer3DModel",
        "grid": [grid.frames, grid.height, grid.width],
        "samples": samples,
        "parameters": {
            "ours": sum(p.numel() for p in made.model.parameters()),
            "diffusers": sum(p.numel() for p in peer.parameters()),
        },
        "cpu_ms_per_token": {k: round(1000 * s / tokens, 3) for k, s in best.items()},
        "our_step_gflop": round(flops / 1e9, 1),
        "diffusers_over_ours": round(best["diffusers"] / best["ours"], 2),
    }


MEASURES: dict[str, Callable[[], dict[str, Any]]] = {
    "packing": measure_packing,
    "buckets": measure_buckets,
    "mfu": measure_mfu,
    "peer": measure_peer,
    "padding": measure_padding,
}


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES))
    ask.add_argument("--keep", action="store_true", help="write benchmarks/results/training.json")
    words = ask.parse_args()
    torch.set_num_threads(1)
    before, found = machine(), {}
    for name in words.only:
        say(f"{name} ...")
        found[name] = MEASURES[name]()
        say(json.dumps(found[name]))
    print(json.dumps(found))
    if words.keep:
        path = RESULTS / "training.json"
        kept = json.loads(path.read_text()) if path.exists() else {}
        old = {k: kept[k] for k in MEASURES if k in kept}
        keep(
            "training", {**old, **found}, "python -m benchmarks.training --only NAME --keep, one name at a time", before
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
