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
    row = score_clip(scorer, replace(view(shot(1, 10)), jpegs=()), "m")
    missing = [c for c in scorer.columns if row[c] is None]
    assert bool(missing) == bool(row["error"])


@pytest.mark.parametrize("scorer", SCORERS, ids=lambda s: s.name)
def test_a_broken_proxy_is_an_error_of_the_row(scorer: Scorer) -> None:
    row = score_clip(scorer, replace(view(shot(1, 10)), jpegs=(b"broken",)), "m")
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
    assert longest_freeze(doubled, 7) <= 1


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

    assert score("overlay", view(marked(220, 6), 2))["corner"] > 0.75
    assert score("overlay", view(marked(110, 60), 2))["corner"] < 0.3


def test_the_crop_is_taken_before_anything_is_measured() -> None:
    frames = [np.pad(f, ((24, 24), (0, 0), (0, 0))) for f in shot(5, 12)]
    seen = view(frames, 2, crop=[0, 24, 160, 96])
    assert seen.frames.shape[1:3] == (96, 160)
    assert score("letterbox", seen)["picture_fraction"] == pytest.approx(96 / 144)
