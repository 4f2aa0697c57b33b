"""Whole configurations as functions: `demo` and `thorough` for two CPU cores, `tiny` for tests, `full` for a GPU.

The demo's sizes were chosen by trial on rendered clips; docs of each recipe say what to expect.
"""

import dataclasses
from collections.abc import Callable

from trainer.autoencoder.config import AutoencoderConfig
from trainer.config import DitConfig, DrawConfig, LatentConfig, OptimizerConfig, SamplingConfig, TrainerConfig
from trainer.flow import FlowConfig
from trainer.launch import LaunchConfig
from trainer.model.config import ModelConfig, TextConfig
from trainer.plan import PlanConfig
from trainer.shapes import ShapeConfig
from trainer.validate import ValidationConfig


def demo() -> TrainerConfig:
    """From scratch on two CPU cores in minutes.

    Run:     dailies demo, or dailies stage autoencoder|latents|dit|samples --recipe demo
    Expect:  on 185 rendered clips, with one thread on a busy machine: autoencoder 152 CPU seconds, 27.3 dB held out
             (pictures 30.1); latents 27; dit (1.0 M parameters) 131, loss 1.42 to 0.70; 64 samples 19. Of 64 prompts
             the videos have the colour asked for in 0.92 (0.16 against shuffled prompts), background 1.00 (0.22);
             shape, motion and camera are still at chance.
    """
    return TrainerConfig(
        shape=ShapeConfig(train_fps=4.0, max_frames=13, max_area=4096, max_tokens=256, patch=2),
        autoencoder=AutoencoderConfig(steps=920, image_share=0.63, video_batch=3, threads=1),
        dit=DitConfig(
            model=ModelConfig(size="tiny"),
            plan=PlanConfig(budget=768),
            flow=FlowConfig(shift=3.0, shift_tokens=48),
            optimizer=OptimizerConfig(steps=1000, learning_rate=2e-3, threads=1),
        ),
    )


def thorough() -> TrainerConfig:
    """From scratch on two cores in at most 100 minutes for autoencoder and DiT: what the trainer can do on a CPU.

    The split: autoencoder 25 minutes (4200 steps, one core), latents 3, DiT 70 (14,500 steps of two packs, a process on
    each core).  Every stage goes on where it was killed.  Beside the demo: 48 latent channels, 5,000 clips, what
    motion hangs on (noise levels near 1, latent channels that weigh what they weigh in pixels: docs/decisions/0014) and
    what shapes hang on (tokens of 8 pixels, a local convolution, Muon, images first and every other visit afterwards,
    noise levels that fall as training goes: 0015).

    Run:     dailies demo --recipe thorough --root runs/thorough
    Expect:  autoencoder 31.8 dB held out; of 240 prompts the videos have the colour asked for in 1.00, the background
             in 1.00, the motion in 0.88 (0.24 against shuffled prompts), the shape in 0.85 (0.26): circles and
             triangles in 130 of 131, squares in 48 of 54, large stars in 23 of 29, small ones in 4 of 26.
    """
    return TrainerConfig(
        shape=ShapeConfig(train_fps=4.0, max_frames=9, max_area=4096, max_tokens=256, patch=1),
        autoencoder=AutoencoderConfig(
            z_dim=48,
            steps=4200,
            image_share=0.1,
            frames=(5, 9),
            start_from_components=True,
            learning_rate=6e-4,
            warmup_steps=100,
            kl_weight=1e-8,
            square_weight=6.0,
            balance=1.0,
            threads=1,
        ),
        dit=DitConfig(
            model=ModelConfig(size="tiny", linear_guess=True, local=True),
            plan=PlanConfig(budget=1536, packs_per_step=2, image_epochs=60, image_share=0.5),
            flow=FlowConfig(logit_std=1.4, shift=11.0, shift_tokens=64, max_shift=11.0, final_shift=2.5),
            optimizer=OptimizerConfig(
                kind="muon", steps=14_500, learning_rate=1.5e-3, warmup_steps=200, ema=0.999, threads=1
            ),
            validation=ValidationConfig(every=3625, holdout=0.04, tasks=("text_to_video",)),
        ),
        launch=LaunchConfig(workers=2),
    )


def tiny() -> TrainerConfig:
    """Seconds, not quality: the whole path with a handful of steps, for tests.

    Run:     dailies stage dit --recipe tiny
    Expect:  files of the right shape, and noise in them.
    """
    return TrainerConfig(
        shape=ShapeConfig(train_fps=4.0, max_frames=5, max_area=2304, max_tokens=64, patch=1),
        autoencoder=AutoencoderConfig(
            pixel_patch=4,
            base_dim=8,
            dim_mult=(1, 1, 1),
            z_dim=8,
            steps=4,
            batch=2,
            video_batch=2,
            frames=(1, 5),
            threads=1,
        ),
        latents=LatentConfig(rows_per_shard=4),
        dit=DitConfig(
            model=ModelConfig(size="nano", text=TextConfig(vocabulary=300, width=24, heads=2)),
            plan=PlanConfig(budget=128, window=64),
            draw=DrawConfig(tasks=("text_to_video:0.7", "image_to_video:0.3")),
            optimizer=OptimizerConfig(steps=6, learning_rate=1e-3, warmup_steps=2, threads=1),
        ),
        sampling=SamplingConfig(steps=3),
    )


def full() -> TrainerConfig:
    """About 1 B parameters at 480p-class sizes on one large GPU, with pretrained autoencoder and text encoder.

    Weights are named, not shipped: the first run downloads them, or `--set trainer.autoencoder.pretrained=PATH` names a
    local copy. Not run in this repository.

    Run:     dailies stage dit --recipe full; on four GPUs with --set trainer.launch.workers=4, sharded with
             --set trainer.launch.mode=shard, by Ray Train with --set trainer.launch.launcher=ray
    """
    return TrainerConfig(
        shape=ShapeConfig(train_fps=16.0, max_frames=81, max_area=480 * 832, max_tokens=32_768, patch=2),
        autoencoder=AutoencoderConfig(pretrained="Wan-AI/Wan2.1-T2V-1.3B-Diffusers"),
        dit=DitConfig(
            model=ModelConfig(
                size="XL",
                rope_theta=10_000.0,
                text=TextConfig(pretrained="google/umt5-xxl", max_tokens=512),
            ),
            plan=PlanConfig(budget=131_072, packs_per_step=4),
            draw=DrawConfig(tasks=("text_to_video:0.7", "image_to_video:0.3")),
            flow=FlowConfig(shift=3.0, shift_tokens=4096),
            optimizer=OptimizerConfig(
                steps=200_000,
                learning_rate=1e-4,
                warmup_steps=2000,
                ema=0.9999,
                device="cuda",
                precision="bfloat16",
                snapshot_every_s=900,
            ),
            validation=ValidationConfig(every=2000, holdout=0.002, clips=48),
        ),
        launch=LaunchConfig(recompute=True),
        sampling=dataclasses.replace(SamplingConfig(), steps=50, guidance=5.0),
    )


RECIPES: dict[str, Callable[[], TrainerConfig]] = {"demo": demo, "thorough": thorough, "tiny": tiny, "full": full}
