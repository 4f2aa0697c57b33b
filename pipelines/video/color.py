"""HDR as an ordinary screen would show it: PQ and HLG code values to BT.709 ones.

Proxies, signals and clip files of an HDR source pass through here, so that luma, exposure and every model
mean the same on all footage; the source's own transfer stays in its row.  Code values become light (PQ: SMPTE
ST 2084; HLG: BT.2100 with the system gamma of a 1000 cd/m2 display), white of 203 cd/m2 (BT.2408) becomes 1,
BT.2020 becomes BT.709, and what is brighter than half of white is rolled off with Moebius' curve (the one
of libavfilter's `tonemap`) so that 1000 cd/m2 just reaches the top; hue is kept by scaling R, G and B alike.

Cost: about 3 ms per proxy; a clip file goes through the same function as a table of 33 x 33 x 33 entries
(`lut3d`), which ffmpeg applies at about the cost of a colour conversion.
"""

import functools

import numpy as np

HDR = ("smpte2084", "arib-std-b67")
NAMES = {1: "bt709", 6: "smpte170m", 16: "smpte2084", 18: "arib-std-b67"}
"""libav's numbers of transfer characteristics that we name."""
_WHITE, _PEAK = 203.0, 1000.0  # cd/m2
_LINEAR_BELOW = 0.5
_GAMMA = 2.4  # BT.1886
_LUT = 33
_TO_709 = np.array(
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]]
)
_LUMA_2020 = np.array([0.2627, 0.6780, 0.0593])


def transfer_of(frame: object) -> str:
    """Transfer characteristic that a frame names; empty if none."""
    return NAMES.get(int(getattr(frame, "color_trc", 2)), "")


def to_sdr(codes: np.ndarray, transfer: str) -> np.ndarray:
    """HDR pictures for an ordinary screen.

    Args:
        codes: (..., 3) R'G'B' code values in [0, 1], BT.2020.
        transfer: `smpte2084` (PQ) or `arib-std-b67` (HLG).

    Returns:
        (..., 3) R'G'B' code values in [0, 1], BT.709.
    """
    light = (_pq_light(codes) if transfer == "smpte2084" else _hlg_light(codes)) / _WHITE
    light = np.maximum(light @ _TO_709.T, 0.0)
    peak = np.maximum(light.max(axis=-1, keepdims=True), 1e-6)
    return np.clip(light * (_rolled_off(peak) / peak), 0.0, 1.0) ** (1 / _GAMMA)


def _pq_light(codes: np.ndarray) -> np.ndarray:
    """Display light in cd/m2 (SMPTE ST 2084)."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    powered = np.clip(codes, 0, 1) ** (1 / m2)
    return 10000 * (np.maximum(powered - c1, 0) / (c2 - c3 * powered)) ** (1 / m1)


def _hlg_light(codes: np.ndarray) -> np.ndarray:
    """Display light in cd/m2 on a display of 1000 cd/m2 (BT.2100)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    codes = np.clip(codes, 0, 1)
    scene = np.where(codes <= 0.5, codes**2 / 3, (np.exp((codes - c) / a) + b) / 12)
    luma = np.maximum(scene @ _LUMA_2020, 1e-9)[..., None]
    return _PEAK * luma**0.2 * scene


def _rolled_off(light: np.ndarray) -> np.ndarray:
    j, peak = _LINEAR_BELOW, _PEAK / _WHITE
    a = -(j**2) * (peak - 1) / (j**2 - 2 * j + peak)
    b = (j**2 - 2 * j * peak + peak) / (peak - 1)
    curve = (b**2 + 2 * b * j + j**2) / (b - a) * (light + a) / (light + b)
    return np.where(light <= j, light, curve)


@functools.cache
def luma_table(transfer: str) -> np.ndarray:
    """(256,) uint8: luma of an HDR picture, 16-235, to that of the tone-mapped one, exact for greys."""
    grey = (np.arange(256) - 16) / 219.0
    mapped = to_sdr(np.repeat(np.clip(grey, 0, 1)[:, None], 3, axis=1), transfer)[:, 0]
    return np.round(mapped * 219 + 16).astype(np.uint8)


def cube_text(transfer: str) -> str:
    """`to_sdr` as a .cube file, red running fastest."""
    axis = np.linspace(0, 1, _LUT)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")
    mapped = to_sdr(np.stack([red, green, blue], axis=-1).reshape(-1, 3), transfer)
    lines = [f"{r:.6f} {g:.6f} {b:.6f}" for r, g, b in mapped]
    return "\n".join([f"LUT_3D_SIZE {_LUT}", *lines, ""])
