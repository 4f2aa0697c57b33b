"""Stage `synthetic_pairs`: (clip, captions) pairs that the captioner and the small CLIP learn from.

Rendered straight at the small sizes that proxy frames are brought to, in five shapes of about equal area,
and then worn a little (resized, blurred, lightened, compressed), because real proxies come out of an encoder
and a model trained on clean renders alone reads them worse.  Training pairs leave out the combinations in
`world.HELD_OUT`; about half of the held-out pairs show just those.  Cost: about 4 ms per pair of 8 frames.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipelines.execute import Context, Failure, Output, Stage, Tables
from pipelines.synthetic.render import Frame, on_screen, render_clip
from pipelines.synthetic.world import HELD_OUT, Actor, Scene, WorldConfig, captions, generator, sample_scene
from schemas.captions import SYNTHETIC_PAIRS, Pair
from schemas.errors import WorldError

SIZES = ((64, 40), (40, 64), (56, 40), (48, 48), (72, 32))
"""Width and height: 16:9, 9:16, 4:3, 1:1 and 2.39:1 as near as multiples of 8 come to an area of 48 x 48."""
_CHUNK = 100


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PairsConfig:
    """How many pairs, and how worn."""

    seed: int = 0
    """Same seed, same pairs."""
    count: int = 4000
    """Training pairs."""
    held_out: int = 200
    """Pairs kept from training, about half of them unseen combinations."""
    num_frames: int = 8
    """Pictures per pair, evenly spaced."""
    worn: float = 0.6
    """Share of pairs that are resized, blurred or re-lit, [0, 1]."""
    two_subjects: float = 0.15
    """Share of scenes with two subjects, [0, 1]; one third as many have three.  A captioner has to see a few."""
    two_events: float = 0.2
    """Share of scenes in which one subject does one thing and then another, [0, 1]; more than the footage has."""

    def __post_init__(self) -> None:
        if self.count < 1 or self.held_out < 0 or self.num_frames < 1:
            raise ValueError("pairs: count and num_frames are at least 1, held_out at least 0")
        if not 0 <= self.worn <= 1 or not 0 <= self.two_events <= 1 or not 0 <= self.two_subjects <= 0.75:
            raise ValueError("pairs: worn and two_events lie in [0, 1], two_subjects in [0, 0.75]")


def scene_of(config: PairsConfig, world: WorldConfig, split: str, index: int) -> tuple[Scene, tuple[int, int]]:
    """The scene of a pair and the size it is rendered at; a held-out pair of even index shows an unseen combination."""
    width, height = SIZES[index % len(SIZES)]
    rng = generator("pair", config.seed, split, index)
    weights = (1 - config.two_subjects * 4 / 3, config.two_subjects, config.two_subjects / 3)
    events = config.two_events
    world = dataclasses.replace(world, subject_weights=weights, two_events=events, events_among_several=events)
    while True:
        scene = sample_scene(rng, world, width / height)
        unseen = scene.key in HELD_OUT
        if unseen == (split == "held_out" and index % 2 == 0):
            return scene, (width, height)


def make_pair(config: PairsConfig, world: WorldConfig, split: str, index: int) -> Pair:
    """Render one pair."""
    scene, (width, height) = scene_of(config, world, split, index)
    rng = generator("wear", config.seed, split, index)
    seconds = float(rng.uniform(2.0, 3.0))
    first, last = rng.uniform(0.0, 0.1), rng.uniform(0.9, 1.0)
    times = np.linspace(first, last, config.num_frames)
    noise = int(rng.integers(1 << 20))
    factor = 2 if rng.random() < config.worn else 1
    frames = render_clip(scene, [float(t) for t in times], width * factor, height * factor, noise)
    fields = scene.fields()
    short, dense = captions(fields, generator("caption", config.seed, split, index))
    return Pair(
        pair_id=f"{split}-{index:06d}",
        split=split,
        frames=[_jpeg(f, int(rng.integers(82, 93))) for f in _worn(frames, factor, rng)],
        times_s=[round(float(t), 4) for t in (times - first) * seconds],
        width=width,
        height=height,
        short=short,
        dense=dense,
        fields=fields,
        source="synthetic",
        places=tuple(_track(scene, actor, times.tolist(), width, height) for actor in scene.named),
    )


def _track(scene: Scene, actor: Actor, times: Sequence[float], width: int, height: int) -> tuple[float, ...]:
    """Where an actor's centre is at each time: x and y as shares of the picture, flat."""
    at = [on_screen(scene, actor, float(u), width, height) for u in times]
    return tuple(round(v, 4) for x, y in at for v in ((x + 0.5) / width, (y + 0.5) / height))


def _worn(frames: Frame, factor: int, rng: np.random.Generator) -> list[Frame]:
    """What an encoder, a resize and another camera do to a clip; the same for all its frames."""
    import cv2

    if factor == 1:
        return list(frames)
    quality, light = int(rng.integers(50, 90)), float(rng.uniform(0.92, 1.08))
    blur = float(rng.uniform(0, 0.9)) * factor * (rng.random() < 0.4)
    height, width = frames.shape[1] // factor, frames.shape[2] // factor
    out = []
    for frame in frames:
        coarse = np.asarray(cv2.imdecode(np.frombuffer(_jpeg(frame, quality), np.uint8), cv2.IMREAD_COLOR_RGB))
        if blur > 0.3:
            coarse = np.asarray(cv2.GaussianBlur(coarse, (0, 0), blur))
        small = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_AREA)
        out.append(cv2.convertScaleAbs(small, alpha=light))
    return out  # type: ignore[return-value]


def _jpeg(frame: Frame, quality: int) -> bytes:
    import cv2

    done, data = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError("a picture could not be encoded as JPEG")
    return data.tobytes()


def _make_chunk(chunk: tuple[str, Sequence[int]], *, config: PairsConfig, world: WorldConfig) -> dict[str, pa.Table]:
    split, indices = chunk
    return {SYNTHETIC_PAIRS.name: SYNTHETIC_PAIRS.from_rows(make_pair(config, world, split, i) for i in indices)}


def run(context: Context) -> Output:
    """Render all pairs, a hundred per item."""
    world, config = context.settings
    chunks = [
        (split, range(start, min(start + _CHUNK, count)))
        for split, count in (("train", config.count), ("held_out", config.held_out))
        for start in range(0, count, _CHUNK)
    ]
    rows = context.each(
        functools.partial(_make_chunk, config=config, world=world),
        chunks,
        key=lambda chunk: f"{chunk[0]}/{chunk[1][0]}-{chunk[1][-1]}",
        outputs=(SYNTHETIC_PAIRS,),
        on_error=_stop,
        unit="chunk",
    )
    unseen = sum(scene_of(config, world, "held_out", i)[0].key in HELD_OUT for i in range(config.held_out))
    return Output(tables=rows, metrics={"train": config.count, "held_out": config.held_out, "unseen": unseen})


def _stop(chunk: tuple[str, Sequence[int]], failure: Failure) -> Tables:
    raise WorldError(f"pairs {chunk[0]} {chunk[1][0]} and following could not be rendered: {failure}")


PAIRS_STAGE = Stage(
    name="synthetic_pairs",
    version=2,
    reads=(),
    writes=(SYNTHETIC_PAIRS,),
    run=run,
    settings=lambda c: (c.synthetic.world, c.synthetic.pairs),
    doc="Renders the (clip, captions) pairs that the captioner and the small CLIP learn from.",
)
