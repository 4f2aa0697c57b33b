"""At which size a video is made, so that one of any size and length comes out.  Pure.

What is asked for is made in whole cells and whole latent frames, the next larger ones, and trimmed afterwards, half at
each edge and at the end: less than a cell, and at most three frames.  The limit is the tokens of one sample; what is
over it is refused with the largest that fits.  A draft is the same at half the sides.
"""

import dataclasses
import math

from schemas.errors import UsageError
from trainer.shapes import Compression, PixelShape
from trainer.tasks.base import Region


@dataclasses.dataclass(frozen=True, slots=True)
class Canvas:
    """The size that is made and the size that is kept, in pixels."""

    height: int
    width: int
    kept_height: int
    kept_width: int

    @property
    def trimmed(self) -> tuple[int, int]:
        """Rows and columns that are cut off after decoding."""
        return self.height - self.kept_height, self.width - self.kept_width

    def window(self) -> tuple[slice, slice]:
        """Rows and columns that are kept."""
        top, left = self.trimmed[0] // 2, self.trimmed[1] // 2
        return slice(top, top + self.kept_height), slice(left, left + self.kept_width)


def canvas(width: int, height: int, sizes: Compression) -> Canvas:
    """Whole cells that hold a picture of this size; sides of a video are even."""
    cell = sizes.cell
    return Canvas(
        math.ceil(height / cell) * cell, math.ceil(width / cell) * cell, height - height % 2, width - width % 2
    )


def latent_frames(frames: int, sizes: Compression) -> int:
    """Latent frames that hold so many frames, the first of which has one of its own."""
    return 1 + math.ceil((frames - 1) / sizes.time)


def check(size: Canvas, frames: int, sizes: Compression, most_tokens: int) -> int:
    """Tokens of a sample of so many latent frames.

    Raises:
        UsageError: If they are more than the limit; names it and what would fit.
    """
    cells = (size.height // sizes.cell) * (size.width // sizes.cell)
    if cells * frames <= most_tokens:
        return cells * frames
    fitting, side = most_tokens // cells, math.sqrt(most_tokens / (cells * frames))
    longest = f"{1 + (fitting - 1) * sizes.time} frames at this size" if fitting else "no frame at this size"
    smaller = f"{math.floor(size.kept_width * side)}x{math.floor(size.kept_height * side)} at this length"
    raise UsageError(
        f"{size.kept_width}x{size.kept_height} with {1 + (frames - 1) * sizes.time} frames is {cells * frames} tokens, "
        f"and the limit is {most_tokens} (sampling.max_tokens): {longest} or about {smaller} would fit"
    )


def half(width: int, height: int, sizes: Compression) -> tuple[int, int]:
    """Size of a draft: half the sides, at least a cell."""
    return max(sizes.cell, width // 2), max(sizes.cell, height // 2)


def box_of(x: float, y: float, width: float, height: float, size: PixelShape, sizes: Compression) -> Region:
    """The cells that a box of pixels touches, to be generated.

    Raises:
        UsageError: If it lies outside of the picture, or touches all of it.
    """
    cell, bit = sizes.cell, 1e-6
    rows, columns = size.height // cell, size.width // cell
    top, left = math.floor(y / cell + bit), math.floor(x / cell + bit)
    bottom, right = math.ceil((y + height) / cell - bit), math.ceil((x + width) / cell - bit)
    if not (0 <= top < bottom <= rows and 0 <= left < right <= columns):
        raise UsageError(
            f"the region {x:.0f},{y:.0f},{width:.0f},{height:.0f} is not inside {size.width}x{size.height}"
        )
    if (bottom - top) * (right - left) == rows * columns:
        raise UsageError(
            f"the region touches every cell ({cell}x{cell} pixels) of {size.width}x{size.height}, so nothing is given: "
            "take a smaller one, or a larger --size"
        )
    return Region(top, left, bottom - top, right - left, inside=False)
