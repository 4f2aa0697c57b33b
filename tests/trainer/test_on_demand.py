"""`dailies sample`, from sizes (pure) to signed files: every task, what is given comes back, and what is refused."""

import itertools
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from orchestration import cli
from pipelines.execute import run_stage
from pipelines.video.read import read_frames
from pipelines.video.write import write_video
from schemas.errors import UsageError
from schemas.store import Store
from tests.trainer.small_world import make_root, pictures
from tests.trainer.test_tasks import with_views
from tests.videos import make_video
from trainer import cyclic, wishes
from trainer.canvas import box_of, canvas, check, latent_frames
from trainer.credentials import read as credentials_of
from trainer.on_demand import Outcome, as_text, sample_one
from trainer.shapes import Compression, PixelShape, ShapeConfig
from trainer.sources import cover, hole_of, open_source
from trainer.stages import STAGES
from trainer.tasks.base import Region
from trainer.wishes import Bench, Job, Wish, jobs

SIZES = Compression(space=8, patch=2)
SIDE = st.integers(2, 400)


@given(SIDE, SIDE, st.integers(1, 60))
def test_any_size_is_made_in_whole_cells_and_trimmed_by_less_than_one(width: int, height: int, frames: int) -> None:
    size = canvas(width, height, SIZES)
    rows, columns = size.window()
    assert size.height % SIZES.cell == size.width % SIZES.cell == 0
    assert max(size.trimmed) <= SIZES.cell
    assert (rows.stop - rows.start, columns.stop - columns.start) == (height - height % 2, width - width % 2)
    assert 0 <= rows.start <= rows.stop <= size.height
    assert 0 <= 1 + (latent_frames(frames, SIZES) - 1) * SIZES.time - frames < SIZES.time


@given(st.integers(0, 90), st.integers(0, 90), st.integers(1, 96), st.integers(1, 96))
def test_a_box_is_made_anew_in_every_cell_it_touches(x: int, y: int, width: int, height: int) -> None:
    shape = PixelShape(1, 96, 96)
    if x + width > 96 or y + height > 96:
        with pytest.raises(UsageError, match="is not inside"):
            box_of(x, y, width, height, shape, SIZES)
        return
    if x < 16 and y < 16 and x + width > 80 and y + height > 80:
        with pytest.raises(UsageError, match="touches every cell"):
            box_of(x, y, width, height, shape, SIZES)
        return
    region = box_of(x, y, width, height, shape, SIZES)
    cell = SIZES.cell
    assert region.left * cell <= x < x + width <= (region.left + region.width) * cell
    assert region.top * cell <= y < y + height <= (region.top + region.height) * cell
    assert region.width * cell < width + 2 * cell


def test_a_size_over_the_limit_is_refused_with_what_would_fit() -> None:
    size = canvas(160, 160, SIZES)
    assert check(size, 3, SIZES, 300) == 300
    with pytest.raises(UsageError, match=r"400 tokens, and the limit is 300 .*9 frames at this size or about 138x138"):
        check(size, 4, SIZES, 300)


@given(st.integers(2, 9), st.integers(1, 6), st.integers(1, 3))
def test_a_ring_is_cut_at_different_places_and_every_step_moves_it_by_the_mean(
    ring: int, cells: int, prompts: int
) -> None:
    """With a velocity that depends on a token alone, cutting open changes nothing: it is a plain Euler run."""
    noise = torch.randn(prompts, (ring + 1) * cells, 2, generator=torch.Generator().manual_seed(ring))
    times = np.linspace(1, 0, 5)
    seen: list[int] = []

    def velocity(x: torch.Tensor, given_: torch.Tensor, t: float) -> torch.Tensor:
        seen.append(len(x))
        assert not given_.any()
        return x * t

    made = cyclic.solve(noise, cells, times, velocity, lambda place, n: torch.zeros(prompts, n, 2), lambda: None)
    plain = noise
    for t, t_next in itertools.pairwise(times):
        plain = plain + (t_next - t) * plain * t
    assert torch.allclose(made, plain, atol=1e-5)
    assert set(seen) == {prompts * min(cyclic.MOST_CUTS, ring)}


def test_the_differences_of_a_ring() -> None:
    ring = np.zeros((8, 2, 2, 3), np.uint8)
    ring[4:] = 10
    ring[7] = 30
    found = cyclic.seams(ring, 4)
    assert found == {"seam_rms": 0.0, "median_rms": 0.0, "join_rms": 30.0, "latent_rms": 20.0}


def test_a_loop_begins_where_it_moves_least() -> None:
    rng = np.random.default_rng(0)
    video = rng.integers(0, 255, (12, 4, 4, 3), dtype=np.uint8)
    video[7] = video[6]
    turned = cyclic.quietest_first(video)
    assert np.array_equal(turned[0], turned[-1])
    assert sorted(map(bytes, turned)) == sorted(map(bytes, video))


def test_pictures_of_a_source_are_those_shown_at_the_models_frame_rate(tmp_path: Path) -> None:
    film = np.repeat(np.arange(0, 240, 10, dtype=np.uint8)[:, None, None, None], 48, 1).repeat(64, 2).repeat(3, 3)
    write_video(str(tmp_path / "v.mp4"), film, 24, crf=1)
    source = open_source(str(tmp_path / "v.mp4"), 8.0, lambda w, h: (32, 16))
    assert source.pictures.shape == (8, 16, 32, 3)
    assert (source.own_width, source.own_height) == (64, 48)
    assert np.abs(source.pictures[:, 8, 16, 0].astype(int) - np.arange(0, 240, 30)).max() <= 4
    assert cover(film[3], 64, 48) is not None
    with pytest.raises(UsageError, match=r"nothing\.mp4 does not read"):
        open_source(str(tmp_path / "nothing.mp4"), 8.0, lambda w, h: (w, h))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match=r"bad\.png does not read"):
        open_source(str(tmp_path / "bad.png"), 8.0, lambda w, h: (w, h))


@pytest.mark.parametrize(("turn", "aspect", "coded"), [(90, None, (48, 64)), (0, 2, (32, 48)), (270, 2, (24, 64))])
def test_a_source_is_seen_as_a_player_shows_it(
    turn: int, aspect: int | None, coded: tuple[int, int], tmp_path: Path
) -> None:
    """48 pixels wide and 64 high on the side, or wide pixels, or both: 64 x 48 for all, red on the left."""
    shown_ = np.zeros((48, 64, 3), np.uint8)
    shown_[:, :32, 0] = 220
    squeezed = shown_ if aspect is None else np.asarray(Image.fromarray(shown_).resize((64, 48)))
    stored = np.rot90(squeezed, k=turn // 90)
    stored = np.asarray(Image.fromarray(np.ascontiguousarray(stored)).resize(coded))
    sar = Fraction(aspect) if aspect else None
    path = make_video(tmp_path / "a.mp4", [stored] * 5, rotation=-turn, sar=sar)
    source = open_source(str(path), 25.0, lambda w, h: (w, h))
    assert (source.own_width, source.own_height) == (64, 48)
    assert source.pictures[0, :, :24, 0].min() > 150
    assert source.pictures[0, :, 40:, 0].max() < 70


def test_a_mask_gives_the_box_of_its_white_part(tmp_path: Path) -> None:
    mask = np.zeros((30, 40), np.uint8)
    mask[5:12, 20:29] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    assert hole_of(str(tmp_path / "m.png")) == (20, 5, 9, 7, 40, 30)
    Image.fromarray(mask * 0).save(tmp_path / "m.png")
    with pytest.raises(UsageError, match="no white part"):
        hole_of(str(tmp_path / "m.png"))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"image": "a.png", "loop": True}, "one task at a time"),
        ({"extend": "sideways"}, "forward or backward"),
        ({"extend": "forward"}, "needs a video"),
        ({"strength": 0.0}, r"strength lies in \(0, 1\]"),
        ({"seconds": -1.0}, "above 0"),
        ({"from_draft": True, "loop": True}, "a draft leads to"),
    ],
)
def test_wishes_that_contradict_themselves_are_refused(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        print(Wish(prompt="x", **wrong).task)  # type: ignore[arg-type]


def opened_as(film: np.ndarray) -> Callable[..., wishes.Source]:
    return lambda path, fps, size, most_s=None: wishes.Source(film, *size(16, 16), "0")


def laid_out(job: Job) -> list[int]:
    """Which frame of the source is where; -1 is one that is made."""
    assert job.given is not None
    made = np.full(1 + (job.slots - 1) * 4, -1)
    for chain, shown in zip([c for c in job.given.layout.chains if c.given], job.given.pictures):
        assert len(shown) == 1 + (chain.given - 1) * 4
        made[chain.start * 4 : chain.start * 4 + len(shown)] = shown[:, 0, 0, 0]
    before, after = ([] if p is None else p[:, 0, 0, 0].tolist() for p in (job.before, job.after))
    return [*before, *made[job.keep].tolist(), *after]


def test_a_box_at_the_edge_of_a_source_that_the_canvas_trims_begins_at_the_canvas() -> None:
    film = np.zeros((5, 32, 80, 3), np.uint8)
    bench = Bench(SIZES, 4.0, ShapeConfig(max_frames=13), 10_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wishes, "open_source", lambda *_: wishes.Source(film, 344, 144, "0"))
        patch.setattr(wishes, "_opened", lambda *_: (wishes.Source(film, 344, 144, "0"), canvas(80, 32, SIZES)))
        (job,) = jobs(Wish(prompt="x", video="v", box=(0, 0, 137, 57)), bench)
        assert job.given is not None
        assert job.given.layout.region == Region(0, 0, 1, 2, inside=False)
        with pytest.raises(UsageError, match="the region 300,0,60,20 is not inside 344x144"):
            list(jobs(Wish(prompt="x", video="v", box=(300, 0, 60, 20)), bench))


@given(st.integers(6, 40), st.integers(1, 30), st.integers(1, 12), st.integers(1, 4))
def test_no_frame_of_what_is_given_is_lost_and_what_is_asked_is_made(
    length: int, start: int, gap: int, trained: int
) -> None:
    film = np.zeros((length, 16, 16, 3), np.uint8) + np.arange(length, dtype=np.uint8)[:, None, None, None]
    bench = Bench(SIZES, 4.0, ShapeConfig(max_frames=1 + 4 * trained), 10_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wishes, "open_source", opened_as(film))
        for way in ("forward", "backward"):
            (job,) = jobs(Wish(prompt="x", width=16, height=16, video="v", extend=way, frames=gap), bench)
            new, old = [-1] * gap, list(range(length))
            assert laid_out(job) == (old + new if way == "forward" else new + old)
        wish = Wish(prompt="x", width=16, height=16, video="v", gaps=((start / 4, (start + gap) / 4),))
        snapped = 4 * -(-(gap + 1) // 4) - 1
        if start + snapped >= length:
            with pytest.raises(UsageError, match="a gap lies inside"):
                list(jobs(wish, bench))
            return
        (job,) = jobs(wish, bench)
        assert laid_out(job) == [*range(start), *[-1] * snapped, *range(start + snapped, length)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = make_root(tmp_path_factory.mktemp("root"))
    for stage in STAGES[:3]:
        run_stage(stage, store, with_views())
    return store


@pytest.fixture
def make(root: Store) -> Callable[..., Outcome]:
    return lambda **wish: sample_one(root, with_views().sampling, with_views().shape, Wish(prompt="a square", **wish))


def film(root: Store, number: int) -> str:
    return str(root.fetch(f"blobs/clips/clip{number}.mp4"))


def shown(root: Store, made: Outcome) -> np.ndarray:
    return read_frames(root.fetch(made.path))[0]


def test_any_size_and_length_and_the_same_again(root: Store, make: Callable[..., Outcome]) -> None:
    made = make(width=50, height=34, frames=7, seed=3)
    assert shown(root, made).shape == (7, 34, 50, 3)
    assert made.facts["trimmed"] == {"rows": 14, "columns": 14, "frames": 2}
    assert make(width=50, height=34, frames=7, seed=3).path == made.path
    assert make(width=50, height=34, frames=7, seed=4).path != made.path
    with pytest.raises(UsageError, match=r"sampling\.max_tokens"):
        make(width=9000, height=9000)


def test_given_pictures_come_back_and_the_credentials_say_what_was_given(
    root: Store, make: Callable[..., Outcome], tmp_path: Path
) -> None:
    picture = tmp_path / "first.png"
    Image.fromarray(pictures(1)[3]).save(picture)
    made = make(image=str(picture), frames=5)
    video = shown(root, made)
    asked = cover(pictures(1)[3], video.shape[2], video.shape[1])
    assert _psnr(video[0], asked) > 28
    assert made.facts["kept"]["reconstruction_db"] > 60
    told = credentials_of(root.fetch(made.path))
    assert told["state"] == "Valid"
    assert told["generation"]["given"] == made.facts["given"]
    assert list(made.facts["given"]) == ["image"]
    assert told["generation"]["task"] == "image_to_video"
    assert make(frames=5).facts["given"] == {}
    assert root.exists(made.path.replace(".mp4", ".sheet.png"))


@pytest.mark.parametrize("way", ["forward", "backward"])
def test_extending_keeps_every_frame_of_the_video(root: Store, make: Callable[..., Outcome], way: str) -> None:
    made = make(video=film(root, 0), extend=way, frames=4)
    video, own = shown(root, made), made.facts
    source = open_source(film(root, 0), own["fps"], lambda w, h: (own["width"], own["height"])).pictures
    assert len(video) == len(source) + 4
    kept = video[: len(source)] if way == "forward" else video[4:]
    assert _psnr(kept, source) > 28
    assert own["kept"]["reconstruction_db"] > 60
    assert ("joint_db" in own["kept"]) == (way == "backward")


def test_connecting_filling_and_several_gaps(root: Store, make: Callable[..., Outcome]) -> None:
    made = make(first=film(root, 0), second=film(root, 4), frames=3)
    own = made.facts
    a, b = (open_source(film(root, i), 8.0, lambda w, h: (own["width"], own["height"])).pictures for i in (0, 4))
    video = shown(root, made)
    assert len(video) == len(a) + 3 + len(b)
    assert _psnr(video[: len(a)], a) > 28
    assert _psnr(video[-len(b) :], b) > 28
    filled = make(video=film(root, 0), gaps=((0.5, 0.8), (1.25, 1.6)))
    video = shown(root, filled)
    assert len(video) == len(a)
    there = [i for i in range(18) if not (4 <= i < 7 or 10 <= i < 13)]
    assert _psnr(video[there], a[there]) > 28
    assert not np.array_equal(video[5], a[5])
    with pytest.raises(UsageError, match="a gap lies inside the video"):
        make(video=film(root, 0), gaps=((2.0, 9.0),))


def test_regions_are_kept_outside_of_the_box_and_outpainting_inside(
    root: Store, make: Callable[..., Outcome], tmp_path: Path
) -> None:
    made = make(video=film(root, 0), box=(0, 0, 20, 20), width=64, height=48, frames=5)
    source = open_source(film(root, 0), 8.0, lambda w, h: (64, 48)).pictures[:5]
    video = shown(root, made)
    assert made.facts["given"]["region"] == "0,0,32,32"
    assert _psnr(video[:, 34:], source[:, 34:]) > 28
    assert _psnr(video[:, :30, :30], source[:, :30, :30]) < _psnr(video[:, 34:], source[:, 34:])
    edited = make(video=film(root, 0), box=(0, 0, 20, 20), edit=True, strength=0.3, width=64, height=48, frames=5)
    assert edited.facts["task"] == "edit_region"
    mask = np.zeros((48, 64), np.uint8)
    mask[:20, :20] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    masked = make(video=film(root, 0), mask=str(tmp_path / "m.png"), width=64, height=48, frames=5)
    assert masked.facts["given"]["region"] == "0,0,32,32"
    wide = make(video=film(root, 1), outpaint=(96, 64), seconds=0.7)
    assert shown(root, wide).shape[1:] == (64, 96, 3)
    x, y, w, h = map(int, wide.facts["given"]["source_at"].split(","))
    inner = open_source(film(root, 1), 8.0, lambda _w, _h: (w, h)).pictures[:5]
    assert _psnr(shown(root, wide)[:, y + 2 : y + h - 2, x + 2 : x + w - 2], inner[:, 2:-2, 2:-2]) > 28
    with pytest.raises(UsageError, match="touches every cell"):
        make(video=film(root, 0), box=(0, 0, 64, 48), width=64, height=48)


def test_less_strength_stays_closer_to_the_source(root: Store, make: Callable[..., Outcome]) -> None:
    made = [shown(root, make(video=film(root, 0), strength=s, width=64, height=48, frames=5)) for s in (0.05, 0.5, 1.0)]
    near = [float(np.abs(v.astype(float) - made[0]).mean()) for v in made]
    assert near[1] < near[2]


def test_a_loop_a_picture_and_a_draft(root: Store, make: Callable[..., Outcome]) -> None:
    ring = make(loop=True, frames=9)
    steps = cyclic.steps_between(shown(root, ring))
    assert len(steps) == 12
    kept = ring.facts["kept"]
    assert kept["seam_rms"] <= kept["median_rms"]
    assert steps[-1] == pytest.approx(kept["seam_rms"], abs=3)  # as the file has it
    assert "difference at the seam" in as_text(ring.facts, ring.path)
    picture = make(frames=1, width=30, height=20)
    assert picture.path.endswith(".png")
    assert picture.facts["task"] == "text_to_image"
    assert make(width=64, height=64, frames=5, draft=True).facts["width"] == 32
    full = make(width=64, height=64, frames=5, from_draft=True)
    assert (full.facts["width"], full.facts["strength"]) == (64, with_views().sampling.draft_strength)


def test_the_command_prints_one_object_and_names_wrong_options(
    root: Store, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    base = ["sample", "--root", root.root, "--prompt", "x"]
    options = ["--set", "trainer.sampling.steps=2", "--size", "40x32", "--frames", "5", "--steps", "1", "--json"]
    assert cli.main([*base, *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["width"], found["height"], found["frames"], found["steps"]) == (40, 32, 5, 1)
    for wrong, says in (
        (["--extend", "forward"], "--extend needs --video"),
        (["--edit", "v.mp4"], "--edit VIDEO and --region"),
        (["--loop", "--image", "i.png"], "one task at a time"),
        (["--fill", "v.mp4", "--gap", "2:1"], "START:END"),
        (["--edit", "v.mp4", "--region", "1,2"], "X,Y,WIDTH,HEIGHT"),
        (["--loop", "--strength", "0.5"], "--strength goes with"),
        (["--video", str(tmp_path / "no.mp4"), "--strength", "0.5"], "does not read"),
    ):
        assert cli.main([*base, *wrong]) == 2
        assert says in capsys.readouterr().err


@pytest.mark.parametrize("how", [["--device", "cuda"], ["--set", "trainer.sampling.device=cuda:3"]])
def test_a_device_that_is_not_there_is_named_with_what_to_do(
    root: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, how: list[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli.main(["sample", "--root", root.root, "--prompt", "x", "--frames", "1", *how]) == 2
    said = capsys.readouterr().err
    assert f"trainer.sampling.device={how[-1].rpartition('=')[2]}" in said
    assert "sees no CUDA device here: set trainer.sampling.device=cpu" in said


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * float(np.log10(255**2 / max(1e-9, float(np.mean((a.astype(float) - b) ** 2)))))
