"""All pixel <-> latent <-> token arithmetic, and which size and frames a clip is trained at.  Pure.

A clip keeps its own shape.  Where it is within the budget it is used as it is; a larger one is scaled
down with its aspect ratio kept.  What does not divide into patch cells is *snapped*: less than one cell
is trimmed per axis, half at each edge, and the trim is recorded.  Nothing is resized to a bucket, cropped
to a square or padded.  Frames: a causal video autoencoder takes 1 + 4k of them, so up to three at the end
of a clip are left out.

Cost: integer arithmetic.  Sources: Patch n' Pack (NaViT), arXiv:2307.06304; AutoencoderKLWan, arXiv:2503.20314.
"""

import dataclasses
import math


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShapeConfig:
    """At which size and frame rate clips are trained."""

    train_fps: float | None = 4.0
    """Frames per second to train at; None keeps the clip's own. A clip slower than this keeps its own."""
    max_frames: int = 13
    """Most frames of one sample (1 + a multiple of the time compression is used). A longer clip starts at its start."""
    max_area: int | None = 4096
    """Largest picture, width x height in pixels; larger ones are scaled down. None: no limit."""
    max_tokens: int = 4096
    """Most tokens of one sample; a larger one is scaled down further."""
    patch: int = 2
    """Latent cells per token along height and width (Wan: 2 at 8x8 compression); 1 where compression is 16x16."""
    min_side: int = 16
    """Shortest side in pixels after scale and snap; what would be smaller is skipped."""

    def __post_init__(self) -> None:
        if self.train_fps is not None and not 0 < self.train_fps <= 240:
            raise ValueError(f"train_fps must lie in (0, 240], got {self.train_fps}")
        if self.max_frames < 1 or self.max_tokens < 1 or self.min_side < 1:
            raise ValueError("max_frames, max_tokens and min_side must be at least 1")
        if self.max_area is not None and self.max_area < 256:
            raise ValueError(f"max_area must be at least 256 pixels, got {self.max_area}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Compression:
    """How many pixels one latent cell covers, and how many cells one token covers."""

    time: int = 4
    """Frames per latent cell after the first frame, which has a cell of its own."""
    space: int = 8
    """Pixels per latent cell along height and width."""
    patch: int = 2
    """Latent cells per token along height and width; along time it is 1."""

    @property
    def cell(self) -> int:
        """Pixels per token along height and width."""
        return self.space * self.patch


@dataclasses.dataclass(frozen=True, slots=True)
class PixelShape:
    """A video's size in pictures and pixels."""

    frames: int
    height: int
    width: int


@dataclasses.dataclass(frozen=True, slots=True)
class LatentShape:
    """A latent's size in cells."""

    frames: int
    height: int
    width: int


@dataclasses.dataclass(frozen=True, slots=True)
class TokenGrid:
    """Tokens along time, height and width."""

    frames: int
    height: int
    width: int

    @property
    def num_tokens(self) -> int:
        return self.frames * self.height * self.width


@dataclasses.dataclass(frozen=True, slots=True)
class Fit:
    """How a clip's picture becomes one that divides into cells."""

    scale: float
    """Encoded over native size, (0, 1]."""
    scaled_height: int
    scaled_width: int
    height: int
    """Kept rows; `trimmed_height` of the scaled picture are cut, half at each edge."""
    width: int

    @property
    def trimmed_height(self) -> int:
        return self.scaled_height - self.height

    @property
    def trimmed_width(self) -> int:
        return self.scaled_width - self.width


@dataclasses.dataclass(frozen=True, slots=True)
class FrameChoice:
    """Which frames of a clip are encoded."""

    indices: tuple[int, ...]
    step: float
    """Source frames per encoded frame."""
    seconds_per_frame: float


def latent_shape(pixels: PixelShape, compression: Compression) -> LatentShape:
    """Size after the autoencoder.

    Raises:
        ValueError: If an axis does not divide; names it, the size and the cell.
    """
    for name, size in (("height", pixels.height), ("width", pixels.width)):
        if size % compression.space:
            raise ValueError(f"{name} must be a multiple of {compression.space} pixels, got {size}")
    if (pixels.frames - 1) % compression.time:
        raise ValueError(f"frames must be 1 + a multiple of {compression.time}, got {pixels.frames}")
    return LatentShape(
        1 + (pixels.frames - 1) // compression.time,
        pixels.height // compression.space,
        pixels.width // compression.space,
    )


def token_grid(latent: LatentShape, compression: Compression) -> TokenGrid:
    """Tokens of a latent.

    Raises:
        ValueError: If an axis does not divide; names it and both sizes.
    """
    for name, size in (("height", latent.height), ("width", latent.width)):
        if size % compression.patch:
            raise ValueError(f"latent {name} must be a multiple of the patch, got {size} and {compression.patch}")
    return TokenGrid(latent.frames, latent.height // compression.patch, latent.width // compression.patch)


def pixel_shape(grid: TokenGrid, compression: Compression) -> PixelShape:
    """The inverse of `token_grid(latent_shape(...))`."""
    return PixelShape(
        1 + (grid.frames - 1) * compression.time, grid.height * compression.cell, grid.width * compression.cell
    )


def whole_frames(available: int, compression: Compression) -> int:
    """The largest 1 + k * time that `available` frames allow; 0 if there are none."""
    return 0 if available < 1 else 1 + (available - 1) // compression.time * compression.time


def choose_frames(num_frames: int, fps: float, shape: ShapeConfig, compression: Compression) -> FrameChoice:
    """Which frames of a clip to encode: 1 + 4k of them at `train_fps`, from the clip's start.

    Raises:
        ValueError: If the clip has no frames or no frame rate.
    """
    if num_frames < 1 or not fps > 0:
        raise ValueError(f"a clip needs frames and a frame rate, got {num_frames} frames at {fps} frame/s")
    step = 1.0 if shape.train_fps is None else max(1.0, fps / shape.train_fps)
    available = math.floor((num_frames - 1) / step + 1e-9) + 1
    count = whole_frames(min(available, shape.max_frames), compression)
    indices = tuple(min(num_frames - 1, math.floor(i * step + 0.5)) for i in range(count))
    return FrameChoice(indices, step, step / fps)


def fit(width: int, height: int, latent_frames: int, shape: ShapeConfig, compression: Compression) -> Fit:
    """At which scale to train a picture of this size, and what to trim.

    Native where the snapped picture is within the budget.  Otherwise one of the scales at which height or
    width is a whole number of cells: the one that keeps most of the picture at most resolution
    (tokens times the square of the kept share of the picture).

    Raises:
        ValueError: If no scale gives a picture of `min_side` within the budget; says both sizes.
    """
    cell = compression.cell
    limit = shape.max_tokens // latent_frames
    if shape.max_area is not None:
        limit = min(limit, shape.max_area // (cell * cell))
    least = math.ceil(shape.min_side / cell)
    native = Fit(1.0, height, width, height // cell * cell, width // cell * cell)
    if min(native.height, native.width) >= least * cell and _cells(native, cell) <= limit:
        return native
    best = max(
        (
            f
            for f in _scaled(width, height, cell)
            if min(f.height, f.width) >= least * cell and _cells(f, cell) <= limit
        ),
        key=lambda f: (_cells(f, cell) * _kept(f) ** 2, f.scale),
        default=None,
    )
    if best is None:
        raise ValueError(
            f"{width}x{height} and {latent_frames} latent frames do not fit: at most {limit} tokens per latent frame, "
            f"{cell} pixels each, shortest side at least {least * cell} pixels"
        )
    return best


def _cells(f: Fit, cell: int) -> int:
    return (f.height // cell) * (f.width // cell)


def _kept(f: Fit) -> float:
    return (f.height * f.width) / (f.scaled_height * f.scaled_width)


def _scaled(width: int, height: int, cell: int) -> list[Fit]:
    """Every scale below 1 that makes one side whole."""
    found = []
    for scale in sorted({n * cell / side for side in (height, width) for n in range(1, side // cell + 1)}):
        if scale < 1:
            tall, wide = round(height * scale), round(width * scale)
            found.append(Fit(scale, tall, wide, tall // cell * cell, wide // cell * cell))
    return found
