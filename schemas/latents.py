"""Latents: clips after the video autoencoder."""

import dataclasses

from schemas.table import Table, column


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Latent:
    """One clip's latent, or the reason why it has none."""

    clip_id: str = column("The clip.")
    status: str = column("ok, skipped or failed.")
    reason: str = column("Why it is not ok.", default="")
    shard: str = column("safetensors file, relative to the root; the tensor's key is the clip_id.")
    views: tuple[str, ...] = column(
        "Parts encoded on their own for tasks, in the same shard under `<clip_id> <view>`: `tail T` (from latent frame "
        "T on), `inside Y X H W` and `around Y X H W` (token cells of a box, or all but it; the rest grey).",
        default=(),
    )
    channels: int = column("Latent channels.")
    latent_frames: int = column("Latent cells along time.")
    latent_height: int = column("Latent cells along height.")
    latent_width: int = column("Latent cells along width.")
    pixel_frames: int = column("Frames encoded.")
    pixel_height: int = column("Height encoded, after scale and snap.", unit="pixel")
    pixel_width: int = column("Width encoded, after scale and snap.", unit="pixel")
    frame_step: float = column("Source frames per encoded frame.", default=1.0)
    scale: float = column("Encoded size over clip size; 1 is native.", range="(0, 1]")
    trimmed_height: int = column("Rows trimmed by the snap, at encoded scale.", unit="pixel")
    trimmed_width: int = column("Columns trimmed by the snap, at encoded scale.", unit="pixel")
    seconds_per_frame: float = column("Time between encoded frames.", unit="s")
    tokens: int = column("Tokens the transformer sees.", unit="token")
    autoencoder: str = column("Digest of the autoencoder's weights.")
    made_by: str = column("Digest of code version, config and models.", default="")


LATENTS = Table("latents", Latent, ("clip_id",), partitioned=False, doc="Clips after the video autoencoder.")
