"""What is taken from the one pass while it runs: signals in batches, and proxies of the frames that the grid chose.

Small pictures are gathered in a batch and measured together; a detector looks at neighbours; so a frame waits
a little before it is known whether it gets a proxy.  At most 16 MB of pictures wait (and three
more of any size): more would push the decoder's own out of the cache.
Cost beside decoding, per frame: scaling it down (0.1 ms at 480p, 0.2 ms at 1080p), 0.1 ms of measuring and of
Python; per proxy 1 to 2 ms.
"""

from collections import deque
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from pipelines.scan.proxy_grid import AdaptiveRule, ProxyGrid
from pipelines.shots.letterbox import edges
from pipelines.shots.signals import SignalMeter
from pipelines.video.decode import Frame
from pipelines.video.frames import ProxyMaker, Shrinker, proxy_size
from schemas.videos import ProxyFrame, Video

if TYPE_CHECKING:
    from pipelines.scan.scan import ScanConfig

_HELD_BYTES = 16 * 2**20
_MOST_HELD = 32


def rule_of(config: "ScanConfig") -> AdaptiveRule:
    """What counts as a cut for the grid of proxies."""
    cuts = config.cuts
    return AdaptiveRule(ratio=cuts.adaptive_ratio, min_change=cuts.min_change, window=cuts.window_frames)


class Gatherer:
    """Takes the frames of a video, or of a part of it, in display order."""

    def __init__(
        self, video: Video, config: "ScanConfig", time_base: Fraction, picture: Any, *, is_start: bool = True
    ) -> None:
        """Args:
        picture: The first frame, for its size.
        is_start: It is the first of the video.
        """
        self.meter = SignalMeter()
        self.damaged: list[bool] = []
        self.proxies: list[ProxyFrame] = []
        self.end_pts = 0
        size = proxy_size(video.width, video.height, config.proxy_short_side, config.proxy_area)
        self._grid = ProxyGrid(time_base, config.proxy_fps, rule_of(config), is_start=is_start)
        self._maker = ProxyMaker(size, video.rotation, config.proxy_quality)
        self._shrinker = Shrinker(picture.width, picture.height)
        self._video_id, self._time_base, self._config = video.video_id, time_base, config
        frame_bytes = max(1, picture.width * picture.height * 3 // 2)
        self._most = max(1, min(_MOST_HELD, _HELD_BYTES // frame_bytes))
        self._room = self._shrinker.room(self._most)
        self._batch: list[int] = []
        self._held: deque[Frame] = deque()

    @property
    def small_size(self) -> tuple[int, int]:
        """Width and height of the pictures that are measured."""
        return self._shrinker.width, self._shrinker.height

    def add(self, frame: Frame) -> None:
        self._shrinker.shrink_into(frame.picture, self._room, len(self._batch))
        self._batch.append(frame.pts)
        self._held.append(frame)
        self.damaged.append(frame.is_damaged)
        self.end_pts = frame.pts + frame.duration
        if len(self._batch) == self._most:
            self._measure()

    def finish(self, *, is_end: bool = True) -> None:
        """No frame follows."""
        self._measure()
        self._keep(self._grid.finish(is_end=is_end))

    def _measure(self) -> None:
        num, room = len(self._batch), self._room
        if not num:
            return
        changes = self.meter.add(self._batch, room.luma[:num], room.chroma_blue[:num], room.chroma_red[:num])
        self._keep(self._grid.add(self._batch, changes.tolist()))
        self._batch = []

    def _keep(self, chosen: list[int]) -> None:
        """Make the proxies of the chosen frames, and let go of all that are decided."""
        wanted = set(chosen)
        while self._held and (self._held[0].index < self._grid.decided):
            frame = self._held.popleft()
            if frame.index in wanted:
                self.proxies.append(self._proxy(frame))

    def _proxy(self, frame: Frame) -> ProxyFrame:
        return ProxyFrame(
            video_id=self._video_id,
            frame_index=frame.index,
            pts=frame.pts,
            time_s=float(frame.pts * self._time_base),
            width=self._maker.size[0],
            height=self._maker.size[1],
            jpeg=self._maker.jpeg(frame.picture),
            edges=edges(*self._maker.borders(frame.picture), self._config.edges),
            blockiness=self._maker.blockiness(frame.picture),
        )
