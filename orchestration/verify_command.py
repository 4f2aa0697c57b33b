"""`dailies train verify`: the trainer's promises about packing, tried here and now."""

import argparse
import dataclasses

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


def _short(value: float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:.4g}"
