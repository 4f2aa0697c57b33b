"""The trainer's stages, in the order they run."""

from pipelines.execute import Context, Output, Stage
from schemas.checkpoints import AUTOENCODER_CHECKPOINT, DIT_CHECKPOINT
from schemas.clips import CLIP_FILES
from schemas.latents import LATENTS
from schemas.ledger import LEDGER, SKIPPED
from schemas.manifest import MANIFEST
from schemas.samples import PROMPTS, SAMPLES
from schemas.validation import VALIDATION
from trainer.config import AutoencoderSettings, DitSettings, LatentSettings, SampleSettings


def _run_autoencoder(context: Context) -> Output:
    from trainer.autoencoder.stage import run

    return run(context)


def _run_latents(context: Context) -> Output:
    from trainer.latents import run

    return run(context)


def _run_dit(context: Context) -> Output:
    from trainer.dit_stage import run

    return run(context)


def _run_samples(context: Context) -> Output:
    from trainer.sample_stage import run

    return run(context)


AUTOENCODER = Stage(
    name="autoencoder",
    version=3,
    reads=(CLIP_FILES,),
    writes=(AUTOENCODER_CHECKPOINT,),
    run=_run_autoencoder,
    settings=lambda c: AutoencoderSettings(autoencoder=c.autoencoder, shape=c.shape),
    doc="Trains the causal video autoencoder on the kept clips, or takes a pretrained one.",
)
LATENTS_STAGE = Stage(
    name="latents",
    version=2,
    reads=(MANIFEST, AUTOENCODER_CHECKPOINT),
    writes=(LATENTS,),
    run=_run_latents,
    settings=lambda c: LatentSettings(latents=c.latents, shape=c.shape),
    doc="Encodes every manifest row; one row each, with the reason where there is no latent.",
)
DIT = Stage(
    name="dit",
    version=3,
    reads=(MANIFEST, LATENTS),
    writes=(DIT_CHECKPOINT, LEDGER, SKIPPED, VALIDATION),
    run=_run_dit,
    settings=lambda c: DitSettings(dit=c.dit, shape=c.shape, launch=c.launch),
    doc="Trains the video diffusion transformer at native shapes, with a ledger of every step.",
)
SAMPLES_STAGE = Stage(
    name="samples",
    version=2,
    reads=(PROMPTS, DIT_CHECKPOINT, AUTOENCODER_CHECKPOINT),
    writes=(SAMPLES,),
    run=_run_samples,
    settings=lambda c: SampleSettings(sampling=c.sampling),
    doc="Makes a video for every prompt.",
)
STAGES = (AUTOENCODER, LATENTS_STAGE, DIT, SAMPLES_STAGE)
