"""Where the pairs that the captioner learns from come from."""

import dataclasses

from pipelines.video.probe import ProbeConfig


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PairSources:
    """Which pairs, and what is kept of a clip that only a file names."""

    synthetic: bool = True
    """Whether rendered pairs (stage `synthetic_pairs`) are among them."""
    lists: tuple[str, ...] = ()
    """Checked pair files under the root, by digest; `dailies captioner train --pairs FILE` adds them."""
    num_frames: int = 32
    """Proxies kept of a clip of another file, evenly over it; `FrameSpec` chooses among them in training."""
    short_side: int = 144
    """Largest short side of such a proxy, pixel, as the scan's."""
    area: int = 256 * 144
    """Largest area of one, pixel."""
    quality: int = 85
    """JPEG quality, 1-95."""
    deadline_s: float = 120.0
    """Time for one clip, s; then its row is left out."""
    limits: ProbeConfig = dataclasses.field(default_factory=ProbeConfig)
    """Limits on pictures and reads."""

    def __post_init__(self) -> None:
        if min(self.num_frames, self.short_side, self.area) < 1 or not 1 <= self.quality <= 95 or self.deadline_s <= 0:
            raise ValueError("num_frames, short_side and area are at least 1, quality in [1, 95], deadline_s positive")
        if not self.synthetic and not self.lists:
            raise ValueError("no pairs at all: name a pair file (`--pairs FILE`), or leave `synthetic` on")
