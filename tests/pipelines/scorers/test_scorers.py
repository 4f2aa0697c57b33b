"""Contract of every scorer, and what each must tell apart."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from pipelines.scorers import SCORERS
from pipelines.scorers.base import Scorer, View
from pipelines.scorers.freeze import longest_freeze
from pipelines.signal_scores import score_clip
from schemas.clips import Clip
from tests.videos import shot, textured

BY_NAME = {s.name: s for s in SCORERS}


def jpeg(picture: np.ndarray) -> bytes:
    import io

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def clip(frames: int, crop: list[int] | None = None) -> Clip:
    return Clip(
        clip_id="c",
        video_id="v",
        shot_id="s",
        start_pts=0,
        end_pts=frames,
        time_base_num=1,
        time_base_den=25,
        start_frame=0,
        end_frame=frames,
        start_s=0.0,
        end_s=frames / 25,
        fps=25.0,
        crop=crop,
        width=160,
        height=96,
        max_inner_boundary=0.0,
    )


def view(frames: list[np.ndarray], step: int = 6, crop: list[int] | None = None) -> View:
    grey = np.stack(frames).astype(np.float32).mean(axis=3) / 255
    change = np.concatenate([[0], np.abs(np.diff(grey, axis=0)).mean(axis=(1, 2))])
    return View(
        clip=clip(len(frames), crop),
        picture_size=(frames[0].shape[1], frames[0].shape[0]),
        luma=grey.mean(axis=(1, 2)),
        contrast=grey.std(axis=(1, 2)),
        saturation=np.full(len(frames), 0.2, np.float32),
        sharpness=np.full(len(frames), 0.01, np.float32),
        difference=change.astype(np.float32),
        jpegs=tuple(jpeg(f) for f in frames[::step]),
        times_s=tuple(i / 25 for i in range(0, len(frames), step)),
        blockiness=(0.1,) * len(frames[::step]),
    )


def score(name: str, seen: View) -> dict[str, float | None]:
    return dict(BY_NAME[name].function(seen))


@pytest.mark.parametrize("scorer", SCORERS, ids=lambda s: s.name)
@pytest.mark.parametrize("frames", [1, 2, 30])
def test_a_scorer_returns_the_columns_it_declares_and_the_same_twice(scorer: Scorer, frames: int) -> None:
    first, second = (score_clip(scorer, view(shot(1, frames)), "m") for _ in range(2))
    assert first == second
    assert set(first) == {"clip_id", "error", "made_by", *scorer.columns}
    assert first["error"] == ""
    assert all(isinstance(first[c], float) and np.isfinite(first[c]) for c in scorer.columns)
    scorer.table.from_rows([first])


@pytest.mark.parametrize("scorer", SCORERS, ids=lambda s: s.name)
def test_a_clip_without_proxies_is_an_error_and_not_a_number(scorer: Scorer) -> None:
    row = score_clip(scorer, replace(view(shot(1, 10)), jpegs=(), times_s=(), blockiness=()), "m")
    missing = [c for c in scorer.columns if row[c] is None]
    assert bool(missing) == bool(row["error"])


@pytest.mark.parametrize("scorer", SCORERS, ids=lambda s: s.name)
def test_a_broken_proxy_is_an_error_of_the_row(scorer: Scorer) -> None:
    row = score_clip(scorer, replace(view(shot(1, 10)), jpegs=(b"broken",) * 2, times_s=(0.0, 0.2)), "m")
    if row["error"]:
        assert all(row[c] is None for c in scorer.columns)


def test_scorer_names_differ() -> None:
    assert len(BY_NAME) == len(SCORERS)


def test_a_still_shot_does_not_move_and_a_pan_does() -> None:
    assert score("motion", view([textured(1)] * 30))["moving_share"] == 0
    assert score("motion", view(shot(1, 30, step=3)))["moving_share"] > 0.5


def test_a_freeze_is_found_over_key_frame_changes_and_doubled_frames_are_none() -> None:
    moving = [0.05] * 30
    frozen = [0.0] * 20 + [0.01] + [0.0] * 20
    assert longest_freeze(np.array(moving + frozen), 7) == 41
    doubled = np.array([0.05, 0.0] * 30)
    assert longest_freeze(doubled, 7) <= 0.1 * len(doubled)  # a run of five or so has more repeats than not


def test_a_dark_clip_is_darker_than_a_bright_one() -> None:
    frames = shot(2, 20)
    dark = [(f * 0.1).astype(np.uint8) for f in frames]
    assert score("luma", view(dark))["bright"] < 0.15 < score("luma", view(frames))["bright"]


def test_a_blurred_clip_has_no_steep_edge() -> None:
    import cv2

    sharp = [
        np.kron(np.random.default_rng(i).integers(0, 255, (12, 20, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        for i in range(6)
    ]
    soft = [cv2.GaussianBlur(f, (0, 0), 5) for f in sharp]
    assert score("blur", view(soft, 1))["edge"] < 0.09 < score("blur", view(sharp, 1))["edge"]


def test_flicker_is_found_and_a_fade_is_none() -> None:
    frames = shot(3, 30)
    flicker = [(f * (0.6 if i % 2 else 0.9)).astype(np.uint8) for i, f in enumerate(frames)]
    fade = [(f * (0.3 + 0.02 * i)).astype(np.uint8) for i, f in enumerate(frames)]
    assert score("flicker", view(flicker))["amplitude"] > 0.05
    assert score("flicker", view(fade))["amplitude"] < 0.005


def _with_text(picture: np.ndarray) -> np.ndarray:
    image = Image.fromarray(picture)
    ImageDraw.Draw(image).text(
        (30, 110), "we have to go now", font=ImageFont.load_default(size=20), stroke_width=1, stroke_fill=(0, 0, 0)
    )
    return np.asarray(image)


def test_burnt_in_text_covers_an_area_and_a_plain_scene_none() -> None:
    frames = [textured(4, 256, 144, shift=3 * i) for i in range(12)]
    assert score("text", view(frames, 2))["area"] == 0
    assert 0.02 < score("text", view([_with_text(f) for f in frames], 2))["area"] < 0.3


def test_a_still_mark_in_a_corner_is_found_and_one_in_the_middle_is_not() -> None:
    def marked(x: int, y: int) -> list[np.ndarray]:
        frames = []
        for i in range(12):
            image = Image.fromarray(textured(4, 256, 144, shift=3 * i))
            draw = ImageDraw.Draw(image)
            draw.ellipse((x, y, x + 28, y + 28), outline=(255, 255, 255), width=3, fill=(20, 20, 20))
            draw.text((x + 8, y + 8), "TV", fill=(255, 255, 255))
            frames.append(np.asarray(image))
        return frames

    assert score("overlay", view(marked(220, 6), 2))["corner"] > 0.6
    assert score("overlay", view(marked(110, 60), 2))["corner"] < 0.3


def _foliage(seed: int) -> np.ndarray:
    """Leaves of every brightness and direction, all over the picture."""
    import cv2

    rng = np.random.default_rng(seed)
    picture = np.full((144, 256, 3), 60, np.uint8)
    for _ in range(1200):
        at, axes = (int(rng.integers(256)), int(rng.integers(144))), (int(rng.integers(2, 7)), int(rng.integers(1, 3)))
        tone = int(rng.integers(10, 250))
        color = (tone // 2, tone, tone // 3)
        cv2.ellipse(picture, at, axes, float(rng.uniform(0, 180)), 0, 360, color, -1, cv2.LINE_AA)
    return picture


def test_texture_that_stands_still_is_neither_text_nor_a_mark() -> None:
    for seed in range(1, 7):
        still = view([_foliage(seed)] * 3, 1)
        assert (score("text", still)["area"] or 0) <= 0.012
        assert (score("overlay", still)["corner"] or 0) <= 0.6


def test_two_lines_of_text_that_touch_are_two_lines() -> None:
    from pipelines.synthetic.defects import damage_picture

    plain = [np.ascontiguousarray(textured(4, 144, 256, shift=3 * i)) for i in range(12)]
    frames = [damage_picture(f, "text", 2, i) for i, f in enumerate(plain)]
    assert score("text", view(frames, 2))["area"] > 0.012


def _through(places: list[tuple[float, float]], zoom: float = 1.0) -> list[np.ndarray]:
    """What a camera sees of a large picture from several places (in pixels), 256 x 144, six frames apart."""
    import cv2

    rng = np.random.default_rng(8)
    world = cv2.GaussianBlur(rng.integers(0, 255, (400, 700, 3), dtype=np.uint8), (0, 0), 2.5)
    world = np.asarray(cv2.normalize(world, np.empty(0), 0, 255, cv2.NORM_MINMAX))
    frames = []
    for i, (x, y) in enumerate(places):
        scale = zoom**-i
        middle = np.array([350 + x, 200 + y])
        matrix = np.array([[scale, 0, middle[0] - 128 * scale], [0, scale, middle[1] - 72 * scale]])
        frames.append(cv2.warpAffine(world, matrix, (256, 144), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP))
    return [f for f in frames for _ in range(6)]


def test_the_camera_is_measured_in_short_sides_per_second() -> None:
    """6 pixels of 144 per proxy, and a proxy every 6 frames of 25 per second."""
    per_s = 6 / 144 * 25 / 6
    pan = score("camera", view(_through([(6.0 * i, 0) for i in range(8)])))
    assert pan["pan"] == pytest.approx(per_s, rel=0.05)
    assert abs(pan["tilt"] or 0) < 0.01
    assert (pan["shake"] or 0) < 0.1 * per_s
    tilt = score("camera", view(_through([(0, -6.0 * i) for i in range(8)])))
    assert tilt["tilt"] == pytest.approx(-per_s, rel=0.05)
    zoom = score("camera", view(_through([(0, 0)] * 8, zoom=1.03)))
    assert zoom["zoom"] == pytest.approx(np.log(1.03) * 25 / 6, rel=0.1)


def test_a_hand_that_shakes_is_told_from_a_steady_pan() -> None:
    rng = np.random.default_rng(2)
    shaken = score("camera", view(_through([(6.0 * i + rng.normal(0, 4), rng.normal(0, 4)) for i in range(8)])))
    steady = score("camera", view(_through([(6.0 * i, 0) for i in range(8)])))
    assert (shaken["shake"] or 0) > 5 * (steady["shake"] or 0)


def test_what_moves_before_a_still_camera_is_no_camera_motion() -> None:
    import cv2

    frames = _through([(0, 0)] * 8)
    for i, frame in enumerate(frames):
        checks = np.kron(np.indices((5, 5)).sum(axis=0) % 2, np.ones((10, 10))).astype(np.uint8) * 200
        at = 20 + 6 * (i // 6)
        frame[50:100, at : at + 50] = cv2.cvtColor(checks, cv2.COLOR_GRAY2RGB)
    found = score("camera", view(frames))
    assert (found["speed"] or 0) < 0.01
    assert (found["object_motion"] or 0) > 0.005
    assert score("camera", view(_through([(6.0 * i, 0) for i in range(8)])))["object_motion"] < 0.01


def test_doubled_frames_and_a_jump_are_jitter_and_smooth_motion_is_none() -> None:
    def with_change(change: list[float]) -> View:
        return replace(view(shot(1, len(change))), difference=np.array(change, np.float32))

    smooth = score("jitter", with_change([0.0] + [0.03] * 40))
    doubled = score("jitter", with_change([0.0] + [0.03, 0.03, 0.03, 0.0] * 10))
    jumped = score("jitter", with_change([0.0] + [0.03] * 20 + [0.3] + [0.03] * 20))
    assert smooth == {"doubled_share": 0.0, "jump": 0.0}
    assert doubled["doubled_share"] == pytest.approx(0.25)
    assert (jumped["jump"] or 0) > 5


def test_blockiness_is_what_the_scan_measured() -> None:
    found = score("blockiness", replace(view(shot(1, 12)), blockiness=(0.0, 0.6)))
    assert found == {"mean": pytest.approx(0.3), "worst": 0.6}


def test_a_dark_and_flat_frame_is_black_and_a_lamp_in_the_dark_is_not() -> None:
    nothing, lamp = np.zeros((96, 160, 3), np.uint8), np.zeros((96, 160, 3), np.uint8)
    lamp[40:60, 70:90] = 255
    assert score("black", view([nothing] * 10 + shot(1, 30)))["share"] == pytest.approx(0.25)
    assert score("black", view([nothing] * 10 + shot(1, 30)))["longest_s"] == pytest.approx(0.4)
    assert score("black", view([lamp] * 10))["share"] == 0


def test_fog_has_less_contrast_than_noon() -> None:
    fog = [(f * 0.2 + 120).astype(np.uint8) for f in shot(2, 12)]
    assert (score("contrast", view(fog))["range"] or 0) < 0.3 < (score("contrast", view(shot(2, 12)))["range"] or 0)


def test_the_crop_is_taken_before_anything_is_measured() -> None:
    frames = [np.pad(f, ((24, 24), (0, 0), (0, 0))) for f in shot(5, 12)]
    seen = view(frames, 2, crop=[0, 24, 160, 96])
    assert seen.frames.shape[1:3] == (96, 160)
    assert score("letterbox", seen)["picture_fraction"] == pytest.approx(96 / 144)
