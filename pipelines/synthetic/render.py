"""Scenes to pictures: a textured background under a camera, antialiased subjects, a little sensor noise.

Subjects move in the world; the camera is a transform of the world, so a pan shifts subjects and background
alike.  Backgrounds are periodic pictures made once per kind, number and size, and warped per frame; subjects
are polygons with sub-pixel corners.  A frame is a pure function of (scene, time, size, noise number).
Cost: about 0.1 ms per 48 px frame and 0.5 ms per 256x144 frame on one core.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipelines.synthetic.world import BACKGROUNDS, COLORS, SIZES, Actor, Scene

Frame = npt.NDArray[np.uint8]
PAN = 0.3
"""How far a panning camera goes over a scene, in short sides."""
ZOOM = 1.35
"""Magnification between the two ends of a zoom."""
NOISE = 1.6
"""Standard deviation of the sensor noise, of 255."""
_TILE_UNITS = 2.0  # a background picture covers 2 x 2 short sides and repeats
_TILE = 320
_SHIFT = 4  # sub-pixel bits of polygon corners


def camera_at(camera: str, u: float) -> tuple[float, float, float]:
    """Centre (x, y) and magnification of the camera at time u in [0, 1]."""
    if camera.startswith("panning"):
        return (-1 if camera.endswith("left") else 1) * PAN * (u - 0.5), 0.0, 1.0
    if camera.startswith("zooming"):
        share = u if camera.endswith("in") else 1 - u
        return 0.0, 0.0, ZOOM ** min(max(share, 0.0), 1.0)
    return 0.0, 0.0, 1.0


def render_frame(scene: Scene, u: float, width: int, height: int, noise: int = 0) -> Frame:
    """One picture.

    Args:
        u: Time, 0 at the scene's start and 1 at its end.
        noise: Number of the noise picture; equal numbers give equal noise.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    import cv2

    short = min(width, height)
    cx, cy, zoom = camera_at(scene.camera, u)
    tile = _tile(scene.background, scene.texture, short)
    unit = tile.shape[0] / (3 * _TILE_UNITS)  # tile pixels per short side
    scale = unit / (short * zoom)
    offset_x = (cx + scene.shift[0] + _TILE_UNITS) * unit - (width - 1) / 2 * scale
    offset_y = (cy + scene.shift[1] + _TILE_UNITS) * unit - (height - 1) / 2 * scale
    matrix = np.array([[scale, 0, offset_x], [0, scale, offset_y]])
    frame: Frame = cv2.warpAffine(  # type: ignore[assignment]
        tile, matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_WRAP
    )
    for actor in reversed(scene.actors):  # the main subject lies on top
        _draw(frame, actor, on_screen(scene, actor, u, width, height), SIZES[actor.size] * zoom * short)
    return _with_noise(frame, noise)


def on_screen(scene: Scene, actor: Actor, u: float, width: int, height: int) -> tuple[float, float]:
    """Where an actor's centre is in a picture of that size, as x and y in pixels; it may lie outside."""
    short = min(width, height)
    cx, cy, zoom = camera_at(scene.camera, u)
    x, y = actor.place(u)
    return (x - cx) * zoom * short + (width - 1) / 2, (y - cy) * zoom * short + (height - 1) / 2


def render_clip(scene: Scene, times: Sequence[float], width: int, height: int, noise: int = 0) -> Frame:
    """Pictures at several times, (time, height, width, 3) uint8."""
    return np.stack([render_frame(scene, u, width, height, noise + i) for i, u in enumerate(times)])


def shape_corners(shape: str, radius: float) -> npt.NDArray[np.float64]:
    """Corners of a shape around the origin.  All shapes of one radius look about equally large."""
    if shape == "square":
        side = 0.88 * radius
        return np.array([[-side, -side], [side, -side], [side, side], [-side, side]])
    if shape == "triangle":
        return _ring(3, 1.2 * radius) + np.array([0, 0.18 * radius])
    if shape == "star":
        corners = _ring(10, 1.2 * radius)
        corners[1::2] *= 0.42
        return corners
    return _ring(40, radius)


def _ring(count: int, radius: float) -> npt.NDArray[np.float64]:
    angles = np.arange(count) * 2 * math.pi / count - math.pi / 2
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _draw(frame: Frame, actor: Actor, at: tuple[float, float], radius: float) -> None:
    import cv2

    corners = (shape_corners(actor.shape, radius) + at) * (1 << _SHIFT)
    cv2.fillPoly(frame, [np.round(corners).astype(np.int32)], COLORS[actor.color], cv2.LINE_AA, _SHIFT)


def _with_noise(frame: Frame, noise: int) -> Frame:
    """Add noise cut from one large picture at a place that the number decides."""
    import cv2

    height, width = frame.shape[:2]
    y, x = (noise * 7919) % 257, (noise * 104729) % 263
    more, less = _noise_pictures(height + 257, width + 263)
    frame = cv2.add(frame, more[y : y + height, x : x + width])  # type: ignore[assignment]
    return cv2.subtract(frame, less[y : y + height, x : x + width])  # type: ignore[return-value]


@functools.lru_cache(maxsize=16)
def _noise_pictures(height: int, width: int) -> tuple[Frame, Frame]:
    """What the noise adds, and what it takes away: two 8-bit pictures add faster than one of 16 bits."""
    drawn = np.repeat(np.round(np.random.default_rng(7).normal(0, NOISE, (height, width, 1))), 3, axis=2)
    return np.maximum(drawn, 0).astype(np.uint8), np.maximum(-drawn, 0).astype(np.uint8)


@functools.lru_cache(maxsize=192)  # six sizes of all pictures: about 75 MB in `pairs`, 140 MB in `footage`
def _tile(background: str, number: int, short: int) -> Frame:
    """A background picture, three times three, at the density of a picture whose short side is `short` pixels."""
    import cv2

    tile = _texture(background, number)
    size = round(_TILE_UNITS * short)
    tile = cv2.resize(tile, (size, size), interpolation=cv2.INTER_AREA if size < _TILE else cv2.INTER_LINEAR)  # type: ignore[assignment]
    return np.tile(tile, (3, 3, 1))  # laid out 3 x 3: warping with a wrapping border costs twice as much


@functools.lru_cache(maxsize=32)
def _texture(background: str, number: int) -> Frame:
    rng = np.random.default_rng([number, list(BACKGROUNDS).index(background)])
    y, x = np.mgrid[0:_TILE, 0:_TILE] / _TILE
    base = np.array(BACKGROUNDS[background], dtype=np.float64)
    if background == "concrete":
        light = 11 * _clouds(rng, 5, 5) + 5 * _clouds(rng, 40, 40)
        light -= 34 * (_line(x, 2) + _line(y, 3))
    elif background == "night sky":
        light = 4 * _clouds(rng, 4, 4) + 62 * _stars(rng)
    elif background == "sand":
        light = 13 * np.sin(2 * math.pi * (7 * y + 0.5 * _clouds(rng, 3, 3))) + 6 * _clouds(rng, 40, 40)
    else:
        light = 13 * _clouds(rng, 26, 6) + 8 * _clouds(rng, 60, 14)
    tint = rng.uniform(-4, 4, 3)
    return np.clip(base + tint + light[..., None], 0, 255).astype(np.uint8)


def _clouds(rng: np.random.Generator, cycles_x: float, cycles_y: float) -> npt.NDArray[np.float64]:
    """Periodic noise with detail up to so many cycles per picture, standard deviation 1."""
    fy, fx = np.fft.fftfreq(_TILE) * _TILE, np.fft.fftfreq(_TILE) * _TILE
    keep = np.exp(-((fx[None, :] / cycles_x) ** 2) - (fy[:, None] / cycles_y) ** 2)
    keep[0, 0] = 0
    drawn = np.fft.ifft2(np.fft.fft2(rng.normal(size=(_TILE, _TILE))) * keep).real
    return np.asarray(drawn / drawn.std())


def _line(position: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.float64]:
    """Joints between slabs, `count` per picture."""
    return (np.abs((position * count) % 1 - 0.5) < 0.012 * count).astype(np.float64)


def _stars(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Small soft dots, 0 to 1."""
    import cv2

    light = np.zeros((_TILE, _TILE))
    for x, y in rng.integers(8, _TILE - 8, (70, 2)):
        light[y, x] = 1.0
    soft = np.asarray(cv2.GaussianBlur(light, (0, 0), 2.0))
    return np.minimum(soft / soft.max() * 1.2, 1.0)
