"""Edited videos: which shots, cuts, defects and files there are, planned without rendering; then their frames.

The plan of video n is a pure function of (config, batch, n), so videos are rendered in any order, on any
machine, and a hundred times as many cost no more memory.  Defects are dealt in turn, so every class has its
share at every scale.  A fade goes through black; a dissolve mixes both shots; a shot's subject moves on
slowly during both.  A flash is no defect and no boundary: light for a few frames inside a sound shot.
"""

import dataclasses
from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from pipelines.synthetic.defects import SHOT_DEFECTS, damage_picture
from pipelines.synthetic.render import Frame, render_frame
from pipelines.synthetic.world import ASPECTS, Scene, WorldConfig, generator, sample_scene

FPS = (
    Fraction(24),
    Fraction(25),
    Fraction(30),
    Fraction(30000, 1001),
    Fraction(15),
    Fraction(12),
    Fraction(24000, 1001),
)
CONTAINERS = ((".mp4", "h264"), (".mkv", "h264"), (".mp4", "h264"), (".webm", "vp9"), (".mp4", "h264"), (".mkv", "vp9"))
_BRIGHTER = 1.06  # how much lighter a near-duplicate is
_SMALLER = 0.8  # and its file's short side
_OVERRUN = 0.3  # a shot's clock runs on so far into transitions, of its own length


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FootageConfig:
    """How much footage, and what is planted in it."""

    seed: int = 0
    """Same seed, same bytes."""
    num_videos: int = 44
    """Source videos at scale 1, exact copies not counted."""
    scale: int = 1
    """Multiplies the number of videos."""
    min_shots: int = 4
    """Fewest shots in a video."""
    max_shots: int = 7
    """Most shots in a video."""
    min_shot_s: float = 2.0
    """Shortest shot, without its transitions."""
    max_shot_s: float = 4.0
    """Longest shot, without its transitions."""
    short_side_px: int = 144
    """Short side of a picture; even sizes follow from the aspect ratio."""
    gradual: float = 0.3
    """Share of boundaries that are fades or dissolves (half each), [0, 1]."""
    flashes: float = 0.1
    """Share of sound shots (a video's first one aside) in which a light flashes for up to 0.16 s, [0, 1]."""
    defects_per_video: float = 1.5
    """Shots with a planted defect per video, on average; the classes take turns."""
    copy_every: int = 14
    """One in so many videos has a byte-for-byte copy under another name."""
    corrupt_every: int = 15
    """One in so many videos is damaged after encoding."""

    def __post_init__(self) -> None:
        if self.num_videos < 1 or self.scale < 1:
            raise ValueError(f"num_videos and scale are at least 1, got {self.num_videos} and {self.scale}")
        if not 1 <= self.min_shots <= self.max_shots:
            raise ValueError(f"1 <= min_shots <= max_shots, got {self.min_shots} and {self.max_shots}")
        if not 0.5 <= self.min_shot_s <= self.max_shot_s:
            raise ValueError(f"0.5 <= min_shot_s <= max_shot_s, got {self.min_shot_s} and {self.max_shot_s}")
        if self.short_side_px < 48:
            raise ValueError(f"short_side_px is at least 48, got {self.short_side_px}")
        if not 0 <= self.gradual <= 1 or not 0 <= self.defects_per_video <= self.min_shots - 1:
            raise ValueError("gradual lies in [0, 1], defects_per_video in [0, min_shots - 1]")
        if not 0 <= self.flashes <= 1:
            raise ValueError(f"flashes is a share in [0, 1], got {self.flashes}")
        if min(self.copy_every, self.corrupt_every) < 5:
            raise ValueError("copy_every and corrupt_every are at least 5")

    @property
    def total(self) -> int:
        """Source videos, copies not counted."""
        return self.num_videos * self.scale


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Flash:
    """Light that washes the picture out for a few frames."""

    start: int
    """First frame, counted from the shot's first frame alone."""
    light: tuple[float, ...]
    """Share of white in each of its frames, (0, 1]."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShotPlan:
    """One shot of a film."""

    scene: Scene
    start_frame: int
    """First frame that shows this shot alone."""
    num_frames: int
    """Frames that show it alone."""
    cut_in: str
    """start, hard, fade or dissolve."""
    transition: int
    """Frames of the transition before it; 0 for a hard cut."""
    defect: str
    duplicate_of: str | None
    seed: int
    """Of its noise and its defect."""
    flash: Flash | None = None

    @property
    def end_frame(self) -> int:
        return self.start_frame + self.num_frames


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class VideoPlan:
    """One file."""

    path: str
    copy: str | None
    """Path of its byte-for-byte copy."""
    aspect: str
    width: int
    height: int
    fps: Fraction
    codec: str
    defect: str
    """none or corrupt."""
    shots: tuple[ShotPlan, ...]

    @property
    def num_frames(self) -> int:
        return self.shots[-1].end_frame


def plan_video(config: FootageConfig, world: WorldConfig, batch: str, index: int) -> VideoPlan:
    """Decide everything about video `index` of a batch."""
    rng = generator("video", config.seed, batch, index)
    aspect = tuple(ASPECTS)[index % len(ASPECTS)]
    fps = FPS[index % len(FPS)]
    suffix, codec = CONTAINERS[index % len(CONTAINERS)]
    corrupt = _is_corrupt(config, index)
    if corrupt:
        suffix, codec = ".mp4", "h264"
    shots = _plan_shots(config, world, batch, index, rng, fps)
    smaller = any(s.defect == "near_duplicate" for s in shots)
    width, height = _size(ASPECTS[aspect], config.short_side_px * (_SMALLER if smaller else 1))
    has_copy = index % config.copy_every == config.copy_every // 2 - 1
    return VideoPlan(
        path=f"v{index:06d}{suffix}",
        copy=f"v{index:06d}_copy{suffix}" if has_copy else None,
        aspect=aspect,
        width=width,
        height=height,
        fps=fps,
        codec=codec,
        defect="corrupt" if corrupt else "none",
        shots=shots,
    )


def _is_corrupt(config: FootageConfig, index: int) -> bool:
    return index % config.corrupt_every == config.corrupt_every // 2


def _size(aspect: float, short: float) -> tuple[int, int]:
    """Even width and height."""
    small, large = 2 * round(short / 2), 2 * round(short * max(aspect, 1 / aspect) / 2)
    return (large, small) if aspect >= 1 else (small, large)


def _planted(config: FootageConfig, index: int) -> list[str]:
    """The defects of video `index`: the classes take turns over all videos."""
    first, end = (int(config.defects_per_video * i) for i in (index, index + 1))
    return [SHOT_DEFECTS[n % len(SHOT_DEFECTS)] for n in range(first, end)]


def _plan_shots(
    config: FootageConfig, world: WorldConfig, batch: str, index: int, rng: np.random.Generator, fps: Fraction
) -> tuple[ShotPlan, ...]:
    count = int(rng.integers(config.min_shots, config.max_shots + 1))
    planted = dict(zip((int(k) for k in rng.permutation(count)), _planted(config, index)))
    frame, shots = 0, []
    sound = 0
    for k in range(count):
        own = generator("shot", config.seed, batch, index, k)
        scene, seconds = _shot_content(config, world, index, own)
        defect, duplicate_of = planted.get(k, "none"), None
        if defect == "static":
            scene = sample_scene(own, world, ASPECTS[tuple(ASPECTS)[index % len(ASPECTS)]], static=True)
        if defect == "near_duplicate":
            found = _original(config, world, batch, index)
            if found is None:
                defect = "none"
            else:
                duplicate_of, scene, seconds = found
        cut_in = (
            "start" if k == 0 else "hard" if own.random() >= config.gradual else ("fade", "dissolve")[own.integers(2)]
        )
        transition = round(own.uniform(0.4, 1.0) * fps) if cut_in in ("fade", "dissolve") else 0
        shot = ShotPlan(
            scene=scene,
            start_frame=frame + transition,
            num_frames=round(seconds * fps),
            cut_in=cut_in,
            transition=transition,
            defect=defect,
            duplicate_of=duplicate_of,
            seed=int(own.integers(1 << 30)),
        )
        if defect == "none":
            sound += 1
            if sound > 1:  # the first one is what near-duplicates repeat
                flash = _flash(config, generator("flash", config.seed, batch, index, k), shot.num_frames, fps)
                shot = dataclasses.replace(shot, flash=flash)
        shots.append(shot)
        frame = shot.end_frame
    return tuple(shots)


def _flash(config: FootageConfig, rng: np.random.Generator, num_frames: int, fps: Fraction) -> Flash | None:
    """A flash somewhere in the middle half of a shot, steady or dying away; from draws of its own."""
    if rng.random() >= config.flashes:
        return None
    length = max(1, min(round(rng.uniform(0.04, 0.16) * fps), int(0.16 * fps)))
    bright, fall = rng.uniform(0.6, 1.0), rng.choice([1.0, 0.7])
    start = int(rng.integers(num_frames // 4, 3 * num_frames // 4))
    return Flash(start=start, light=tuple(float(bright * fall**i) for i in range(length)))


def _shot_content(
    config: FootageConfig, world: WorldConfig, index: int, own: np.random.Generator
) -> tuple[Scene, float]:
    """Scene and length of a shot, the first things that are drawn for it."""
    aspect = ASPECTS[tuple(ASPECTS)[index % len(ASPECTS)]]
    return sample_scene(own, world, aspect), float(own.uniform(config.min_shot_s, config.max_shot_s))


def _original(config: FootageConfig, world: WorldConfig, batch: str, index: int) -> tuple[str, Scene, float] | None:
    """A sound shot of an earlier video of the same aspect ratio, for a near-duplicate to repeat."""
    earlier = index - len(ASPECTS)
    while earlier >= 0 and (_is_corrupt(config, earlier) or "near_duplicate" in _planted(config, earlier)):
        earlier -= len(ASPECTS)
    if earlier < 0:
        return None
    plan = plan_video(config, world, batch, earlier)
    k = next(k for k, s in enumerate(plan.shots) if s.defect == "none")
    scene, seconds = _shot_content(config, world, earlier, generator("shot", config.seed, batch, earlier, k))
    return f"{plan.path}#{k}", scene, seconds


def render_video(plan: VideoPlan) -> Iterator[Frame]:
    """All frames of a film, one at a time."""
    for k, shot in enumerate(plan.shots):
        for j in range(shot.transition):
            before = plan.shots[k - 1]
            old = _picture(plan, before, before.num_frames + j)
            new = _picture(plan, shot, j - shot.transition)
            yield _mix(shot.cut_in, old, new, (j + 1) / (shot.transition + 1))
        for j in range(shot.num_frames):
            yield _picture(plan, shot, j)


def _picture(plan: VideoPlan, shot: ShotPlan, j: int) -> Frame:
    """Frame j of a shot, counted from its first frame alone; negative and beyond its end in transitions."""
    import cv2

    if shot.defect == "freeze":
        j = min(j, round(0.35 * shot.num_frames))  # the very same picture, noise and all, from here on
    u = min(max(j / max(shot.num_frames - 1, 1), -_OVERRUN), 1 + _OVERRUN)
    frame = render_frame(shot.scene, u, plan.width, plan.height, noise=shot.seed + j)
    if shot.defect == "near_duplicate":
        return cv2.convertScaleAbs(frame, alpha=_BRIGHTER)  # type: ignore[return-value]
    if shot.flash is not None and 0 <= j - shot.flash.start < len(shot.flash.light):
        light = shot.flash.light[j - shot.flash.start]
        return cv2.convertScaleAbs(frame, alpha=1 - light, beta=255 * light)  # type: ignore[return-value]
    return damage_picture(frame, shot.defect, shot.seed, j)


def _mix(kind: str, old: Frame, new: Frame, share: float) -> Frame:
    import cv2

    if kind == "dissolve":
        return cv2.addWeighted(old, 1 - share, new, share, 0)  # type: ignore[return-value]
    if share < 0.5:
        return cv2.convertScaleAbs(old, alpha=1 - 2 * share)  # type: ignore[return-value]
    return cv2.convertScaleAbs(new, alpha=2 * share - 1)  # type: ignore[return-value]
