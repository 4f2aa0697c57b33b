"""Whole captioner configs, by name."""

from collections.abc import Callable

from captioner.backends.base import TRAINED, VlmConfig
from captioner.config import CaptionerConfig
from captioner.expand.config import ExpandConfig, LmTraining
from captioner.frames import FrameSpec
from captioner.train.config import ModelConfig, TrainConfig


def demo() -> CaptionerConfig:
    """Train our captioner from scratch on synthetic pairs, on two CPU cores, and caption with it.

    Run:     dailies stage captioner_model --root runs/demo
    Expect:  0.26 to 0.30 CPU seconds a step on one busy core, so 200 to 240 in all: measured over 100 steps.  A whole
             run of this version was not measured yet (docs/log.md, 2026-11-25, says what was).
    """
    # one thread: other assets train beside it, and two teams of threads on two cores spend their time waiting
    return CaptionerConfig(train=TrainConfig(steps=800, threads=1))


def thorough() -> CaptionerConfig:
    """The same captioner for longer, on four times the pairs, four tenths of which show several subjects.

    Run:     dailies captioner train --recipe thorough --root runs/captioner
             dailies captioner evaluate --root runs/captioner
    Expect:  1450 CPU seconds and 110 for the pairs (2026-11-26, one thread); on 1000 held-out pairs claim P, R 0.998,
             every attribute at least 0.997, a wrong claim in 0.3 % of captions of one subject, 3.3 % of several.
    """
    return CaptionerConfig(train=TrainConfig(steps=6000, threads=1))


def tiny() -> CaptionerConfig:
    """For tests: the same code in seconds.  Its captions are wrong."""
    return CaptionerConfig(
        expand=ExpandConfig(
            candidates=2,
            max_tokens=40,
            lm=LmTraining(steps=4, batch_size=4, warmup_steps=1, width=16, layers=1, heads=2, vocabulary=300),
        ),
        train=TrainConfig(
            steps=6,
            batch_size=4,
            spoken=4,
            warmup_steps=2,
            threads=1,
            model=ModelConfig(
                width=16,
                stem=(8, 8),
                glimpse=(8, 8),
                glimpse_side=8,
                time_cells=2,
                heads=2,
                layers=1,
                free_slots=1,
                vocabulary=300,
            ),
            frames=FrameSpec(num_frames=4, area=24 * 24),
        ),
    )


def full() -> CaptionerConfig:
    """Caption with a pretrained video-language model; wants a GPU and a model hub, and was not measured here.

    Run:     dailies stage captions --recipe full --root ROOT --batch NAME --set captioner.vlm.model=NAME
    """
    return CaptionerConfig(backend="transformers_vlm", batch_size=8)


def lora() -> CaptionerConfig:
    """Fine-tune a pretrained video-language model on the pairs and caption with it; not measured here (GPU, hub).

    Run:     dailies captioner train --recipe lora --set captioner.vlm.model=NAME_OR_FOLDER
             dailies caption --recipe lora --set captioner.vlm.model=NAME_OR_FOLDER
    """
    return CaptionerConfig(backend="transformers_vlm", method="lora", batch_size=8, vlm=VlmConfig(adapter=TRAINED))


RECIPES: dict[str, Callable[[], CaptionerConfig]] = {
    "demo": demo,
    "thorough": thorough,
    "tiny": tiny,
    "full": full,
    "lora": lora,
}
