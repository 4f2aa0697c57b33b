"""The probe is right on real renders, and still of use on washed-out ones: it judges what a model draws."""

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from pipelines.synthetic.probe import ATTRIBUTES, CHANCE, probe
from pipelines.synthetic.prompts import PromptsConfig, make_prompt
from pipelines.synthetic.render import render_clip
from pipelines.synthetic.world import Scene, generator, lone_actor
from pipelines.video.read import read_frames
from pipelines.video.write import write_video

COUNT = 120
Frames = npt.NDArray[np.uint8]


def _asked(index: int) -> tuple[dict[str, str], Frames]:
    prompt = make_prompt(PromptsConfig(), index)
    assert prompt.fields is not None
    main, rng = prompt.fields.subjects[0], generator("probe test", index)
    actor = lone_actor(
        rng, prompt.width / prompt.height, color=main.color, shape=main.shape, size=main.size, motions=(main.motion,)
    )
    scene = Scene(
        actors=(actor,),
        relation="",
        background=prompt.fields.background,
        camera=prompt.fields.camera,
        texture=index % 8,
        shift=(float(rng.random() * 2), float(rng.random() * 2)),
    )
    frames = render_clip(
        scene, [i / (prompt.num_frames - 1) for i in range(prompt.num_frames)], prompt.width, prompt.height
    )
    wanted = {name: getattr(main, name) for name in ("color", "shape", "motion")}
    return wanted | {"background": prompt.fields.background, "camera": prompt.fields.camera}, frames


@pytest.fixture(scope="module")
def asked() -> list[tuple[dict[str, str], Frames]]:
    return [_asked(i) for i in range(COUNT)]


def _accuracy(pairs: list[tuple[dict[str, str], dict[str, str]]], name: str) -> float:
    return sum(seen.get(name) == wanted[name] for wanted, seen in pairs) / len(pairs)


def test_the_probe_is_right_on_every_attribute_of_every_render(asked: list[tuple[dict[str, str], Frames]]) -> None:
    pairs = [(wanted, probe(frames)) for wanted, frames in asked]
    assert {name: _accuracy(pairs, name) for name in ATTRIBUTES} == dict.fromkeys(ATTRIBUTES, 1.0)


def test_the_probe_is_right_after_the_codec_too(asked: list[tuple[dict[str, str], Frames]], tmp_path: object) -> None:
    pairs = []
    for i, (wanted, frames) in enumerate(asked[:40]):
        path = f"{tmp_path}/{i}.mp4"
        write_video(path, frames, 8)
        pairs.append((wanted, probe(read_frames(path)[0])))
    for name in ("color", "background", "shape", "motion"):
        assert _accuracy(pairs, name) == 1.0


def test_washed_out_and_blurred_pictures_are_mostly_read(asked: list[tuple[dict[str, str], Frames]]) -> None:
    pairs = [(wanted, probe(_worn(frames, i))) for i, (wanted, frames) in enumerate(asked[:60])]
    for name, least in {"color": 0.95, "background": 0.95, "shape": 0.85, "motion": 0.9}.items():
        assert _accuracy(pairs, name) >= least


def _worn(frames: Frames, seed: int) -> Frames:
    noise = np.random.default_rng(seed).normal(0, 6, frames.shape)
    soft = np.stack([cv2.GaussianBlur(f, (0, 0), 1.5) for f in frames]).astype(float)
    return np.clip(0.75 * soft + 0.25 * 110 + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("background", ATTRIBUTES["background"])
def test_an_empty_background_has_no_subject(background: str) -> None:
    scene = Scene(actors=(), relation="", background=background, camera="panning left", texture=1, shift=(0.2, 0.3))
    seen = probe(render_clip(scene, [i / 8 for i in range(9)], 64, 64))
    assert seen == {"background": background, "camera": "panning left"}


def test_one_frame_has_no_motion(asked: list[tuple[dict[str, str], Frames]]) -> None:
    wanted, frames = asked[0]
    seen = probe(frames[:1])
    assert seen["color"] == wanted["color"]
    assert not {"motion", "camera"} & set(seen)


def test_chance_is_one_over_the_words() -> None:
    assert all(CHANCE[name] == pytest.approx(1 / len(words)) for name, words in ATTRIBUTES.items())
