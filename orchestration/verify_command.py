"""`dailies train verify`, the trainer's promises about packing, tried here and now; `train replay`, a skipped step."""

import argparse
import dataclasses
import math

from orchestration.ask import Answer, Ask

_PROMISES = {
    "packed_vs_alone_max_rel": "a sample's loss in a pack and alone, largest relative difference; promise 1e-6",
    "permutation_bitwise_equal": "another order of a pack gives the same losses to the bit",
    "cropped_pixels": "pixels cut off beyond the snap; promise 0",
    "padding_tokens": "tokens that belong to no sample; promise 0",
    "fill": "share of the budget filled, window 256, 20,000 shapes; promise 0.98",
    "pack_100k_s": "CPU seconds to pack 100,000 samples; promise 1 s",
}


def verify(question: Ask, args: argparse.Namespace) -> Answer:
    """Every promise with its number; exit code 1 if one does not hold."""
    import torch

    from trainer.verify import VerifyConfig
    from trainer.verify import verify as measure

    torch.set_num_threads(1)
    found = measure(VerifyConfig(), question.config().trainer.shape)
    numbers, kept = dataclasses.asdict(found), found.kept
    lines = [f"{'ok  ' if kept[n] else 'FAIL'}  {n:<26} {_short(v):<9} {_PROMISES[n]}" for n, v in numbers.items()]
    return Answer(numbers, "\n".join(lines), question.command("train dit"), 0 if all(kept.values()) else 1)


def replay(question: Ask, args: argparse.Namespace) -> Answer:
    """A crash capsule's losses, computed again beside those that were recorded; exit code 1 if they differ."""
    import torch

    from trainer.capsule import replay as compute

    torch.set_num_threads(1)
    found = compute(args.capsule)
    capsule, samples = found.capsule, found.capsule["samples"]
    lines = [f"step {capsule['step']}: {capsule['reason']}"]
    lines += [f"{'clip':<22} {'task':<16} {'t':>6} {'caption':<8} {'recorded':>10} {'again':>10}"]
    for s, loss in zip(samples, found.losses):
        mark = "  <" if s["clip_id"] in found.suspects else ""
        lines.append(
            f"{s['clip_id']:<22} {s['task']:<16} {s['t']:6.3f} {s['caption']:<8} {s['loss']:>10.4g} {loss:>10.4g}{mark}"
        )
    close = found.largest_difference <= 1e-5
    end = "reproduced" if close else "NOT reproduced"
    lines.append(f"largest relative difference {found.largest_difference:.3g}: {end}")
    answer = {
        "step": capsule["step"],
        "reason": capsule["reason"],
        "manifest": capsule["manifest"],
        "suspects": found.suspects,
        "largest_difference": found.largest_difference,
        "losses": [
            {"clip_id": s["clip_id"], "recorded": _number(s["loss"]), "again": _number(loss)}
            for s, loss in zip(samples, found.losses)
        ],
    }
    return Answer(answer, "\n".join(lines), question.command(f"audit {found.suspects[0]}"), 0 if close else 1)


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


def _short(value: float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:.4g}"
