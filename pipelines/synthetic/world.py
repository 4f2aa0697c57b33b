"""The world of known truth: what can be seen in it, and how a scene is drawn from its vocabulary.

A scene is one to three subjects on a textured background under one camera.  Every random choice comes from
a generator seeded by (seed, purpose, number), so scene n is the same on any machine and in any order.  In a
normal scene something always moves, the subject or the camera: a shot where nothing does is the planted
defect `static`.  Lengths are in units of the picture's short side, with the origin in its middle, x to the
right and y down, so one scene fits every size of an aspect ratio.
"""

import dataclasses
from typing import Any

import numpy as np

from schemas.captions import Fields, Subject
from schemas.ids import digest
from schemas.language import NUM_VARIANTS, render_dense, render_short

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (222, 30, 38),
    "yellow": (250, 222, 30),
    "blue": (30, 84, 236),
    "white": (246, 246, 246),
    "pink": (246, 70, 190),
    "cyan": (24, 216, 222),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "concrete": (124, 124, 122),
    "night sky": (44, 46, 96),
    "sand": (202, 172, 120),
    "grass": (56, 98, 42),
}
SHAPES = ("circle", "square", "triangle", "star")
SIZES: dict[str, float] = {"small": 0.17, "large": 0.27}
"""Radius of a subject, in short sides."""
MOTIONS: dict[str, tuple[int, int]] = {
    "still": (0, 0),
    "moving left": (-1, 0),
    "moving right": (1, 0),
    "moving up": (0, -1),
    "moving down": (0, 1),
}
CAMERAS = ("static", "panning left", "panning right", "zooming in", "zooming out")
RELATIONS = ("left of", "right of", "above", "below", "partly hiding", "partly hidden by")
ASPECTS: dict[str, float] = {"16:9": 16 / 9, "9:16": 9 / 16, "4:3": 4 / 3, "1:1": 1.0, "2.39:1": 2.39}
HELD_OUT = frozenset(
    {
        ("red", "star", "moving up"),
        ("blue", "circle", "moving left"),
        ("yellow", "triangle", "moving right"),
        ("white", "square", "moving down"),
        ("pink", "circle", "moving up"),
        ("cyan", "star", "moving left"),
        ("red", "square", "moving right"),
        ("yellow", "circle", "moving down"),
    }
)
"""(colour, shape, motion) of the main subject that no training pair shows: does a captioner compose?"""
TRAVEL = 0.45
"""How far a moving subject goes over a scene, in short sides."""
NUM_TEXTURES = 8
"""Pictures of each background; two scenes rarely share one."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WorldConfig:
    """How often what is seen.  The weights are our choice: mostly one subject, because samples are judged on one."""

    subject_weights: tuple[float, ...] = (0.85, 0.12, 0.03)
    """Relative weight of scenes with one, two and three subjects."""
    two_events: float = 0.12
    """Share of one-subject scenes in which it first does one thing and then another, [0, 1]."""
    events_among_several: float = 0.0
    """Share of scenes with several subjects apart in which the first one goes and comes back, [0, 1]."""
    camera_static: float = 0.4
    """Share of scenes with a static camera, [0, 1]; the other cameras share the rest."""

    def __post_init__(self) -> None:
        if len(self.subject_weights) != 3 or min(self.subject_weights) < 0 or sum(self.subject_weights) <= 0:
            raise ValueError(f"subject_weights are three weights of at least 0, got {self.subject_weights}")
        for name in ("two_events", "events_among_several", "camera_static"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share in [0, 1], got {getattr(self, name)}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """One subject: how it looks, and where it goes."""

    shape: str
    color: str
    size: str
    motions: tuple[str, ...]
    """One motion, or two that follow each other."""
    middle: tuple[float, float]
    """Where it is in the middle of its way, in short sides."""

    def place(self, u: float) -> tuple[float, float]:
        """Where its centre is at time u, 0 at the scene's start and 1 at its end."""
        x, y = self.middle
        last = len(self.motions) - 1
        for leg, motion in enumerate(self.motions):  # goes on a little before and after, for transitions
            dx, dy = MOTIONS[motion]
            done = u * len(self.motions) - leg
            done = min(max(done, 0.0 if leg else -0.3), 1.0 if leg < last else 1.3)
            x += dx * TRAVEL * (done - 0.5)
            y += dy * TRAVEL * (done - 0.5)
        return x, y


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """All that a shot shows."""

    actors: tuple[Actor, ...]
    relation: str
    background: str
    camera: str
    texture: int
    """Which picture of the background, [0, NUM_TEXTURES)."""
    shift: tuple[float, float]
    """Where in that picture the scene lies, in short sides."""

    @property
    def named(self) -> tuple[Actor, ...]:
        """The actors in the order in which captions name them: by colour, as `COLORS` lists them.

        Colours differ within a scene, so there is one right order and the frames show it.  Named in any order,
        "left of" against "right of" is a coin's toss that no captioner can learn.
        """
        return tuple(sorted(self.actors, key=lambda a: tuple(COLORS).index(a.color)))

    @property
    def key(self) -> tuple[str, str, str]:
        """The first named subject's colour, shape and (first) motion, to compare with `HELD_OUT`."""
        main = self.named[0]
        return main.color, main.shape, main.motions[0]

    def fields(self) -> Fields:
        """The scene as a caption record."""
        main = self.named[0]
        return Fields(
            subjects=[Subject(shape=a.shape, color=a.color, size=a.size, motion=a.motions[0]) for a in self.named],
            relation=self._relation(),
            events=list(main.motions) if len(main.motions) > 1 else [],
            camera=self.camera,
            background=self.background,
        )

    def _relation(self) -> str:
        """How the first named subject stands to the second; `relation` says it of the actors as they were drawn."""
        if not self.relation:
            return ""
        first, second = self.named[:2]
        if self.relation == "partly hiding":  # earlier actors lie on top
            return "partly hiding" if self.actors.index(first) < self.actors.index(second) else "partly hidden by"
        axis = 0 if self.relation in ("left of", "right of") else 1
        before = first.middle[axis] < second.middle[axis]
        return (("left of", "right of"), ("above", "below"))[axis][0 if before else 1]


def generator(*parts: int | str) -> np.random.Generator:
    """A random generator named by numbers and texts."""
    return np.random.default_rng(int(digest(*parts), 16))


def captions(fields: Fields, rng: np.random.Generator) -> tuple[str, str]:
    """A short and a dense caption of a record, in one of the language's wordings."""
    variant = int(rng.integers(NUM_VARIANTS))
    return render_short(fields, variant), render_dense(fields, variant)


def _pick(rng: np.random.Generator, options: Any) -> Any:
    return options[int(rng.integers(len(options)))]


def half_extent(aspect: float) -> tuple[float, float]:
    """Half the picture's width and height, in short sides."""
    return (aspect / 2, 0.5) if aspect >= 1 else (0.5, 0.5 / aspect)


def sample_scene(rng: np.random.Generator, config: WorldConfig, aspect: float, *, static: bool = False) -> Scene:
    """Draw a scene; with `static`, one in which nothing moves."""
    weights = np.asarray(config.subject_weights) / sum(config.subject_weights)
    count = int(rng.choice(3, p=weights)) + 1
    camera = "static" if static or rng.random() < config.camera_static else _pick(rng, CAMERAS[1:])
    moves = ("still",) if static else tuple(MOTIONS) if camera != "static" else tuple(MOTIONS)[1:]
    actors: tuple[Actor, ...]
    if count == 1:
        actors, relation = (_lone(rng, config, aspect, moves),), ""
    else:
        actors, relation = _several(rng, count, aspect, moves)
        if config.events_among_several and relation != "partly hiding" and rng.random() < config.events_among_several:
            actors = _back_and_forth(rng, actors, moves, 1 if relation in ("left of", "right of") else 0)
    return Scene(
        actors=actors,
        relation=relation,
        background=_pick(rng, tuple(BACKGROUNDS)),
        camera=camera,
        texture=int(rng.integers(NUM_TEXTURES)),
        shift=(float(rng.random() * 2), float(rng.random() * 2)),
    )


def _lone(rng: np.random.Generator, config: WorldConfig, aspect: float, moves: tuple[str, ...]) -> Actor:
    motions: tuple[str, ...] = (_pick(rng, moves),)
    if motions[0] != "still" and rng.random() < config.two_events:
        across = [m for m in tuple(MOTIONS)[1:] if MOTIONS[m][0] * MOTIONS[motions[0]][0] == 0 and m != motions[0]]
        across = [m for m in across if MOTIONS[m][1] * MOTIONS[motions[0]][1] == 0]
        motions = (motions[0], _pick(rng, across))
    color, shape, size = _pick(rng, tuple(COLORS)), _pick(rng, SHAPES), _pick(rng, tuple(SIZES))
    return lone_actor(rng, aspect, color=color, shape=shape, size=size, motions=motions)


def _back_and_forth(
    rng: np.random.Generator, actors: tuple[Actor, ...], moves: tuple[str, ...], axis: int
) -> tuple[Actor, ...]:
    """The first named actor goes along an axis, across the row of all, and comes back."""
    first = min(actors, key=lambda a: tuple(COLORS).index(a.color))
    going = _pick(rng, tuple(m for m in moves if MOTIONS[m][axis]))
    coming = next(m for m in MOTIONS if MOTIONS[m] == tuple(-d for d in MOTIONS[going]) and m != "still")
    middle = list(first.middle)
    middle[axis] -= MOTIONS[going][axis] * TRAVEL / 2  # it goes one way only, from where it starts
    changed = dataclasses.replace(first, motions=(going, coming), middle=(middle[0], middle[1]))
    return tuple(changed if a is first else a for a in actors)


def lone_actor(
    rng: np.random.Generator, aspect: float, *, color: str, shape: str, size: str, motions: tuple[str, ...]
) -> Actor:
    """Place a single subject somewhere where its whole way fits the picture."""
    middle = []
    for axis, half in enumerate(half_extent(aspect)):
        travel = TRAVEL / 2 if any(MOTIONS[m][axis] for m in motions) else 0.0
        room = max(0.0, half - SIZES[size] - travel - 0.02)
        middle.append(float(rng.uniform(-0.7, 0.7) * room))
    return Actor(shape=shape, color=color, size=size, motions=motions, middle=(middle[0], middle[1]))


def _several(
    rng: np.random.Generator, count: int, aspect: float, moves: tuple[str, ...]
) -> tuple[tuple[Actor, ...], str]:
    """Two or three subjects in a row; they move across it, so that their relation holds throughout."""
    half = half_extent(aspect)
    axis = (0 if half[0] > half[1] else 1) if half[0] != half[1] else int(rng.integers(2))
    hides = count == 2 and rng.random() < 0.25
    across = tuple(m for m in moves if MOTIONS[m][axis] == 0) or moves
    gap = 0.24 if hides else max(2 * SIZES["small"] + 0.02, min(0.55, (2 * half[axis] - 2 * SIZES["small"]) / count))
    places = (np.arange(count) - (count - 1) / 2) * gap
    order = [int(i) for i in rng.permutation(count)] if count == 2 else list(range(count))
    motions = [_pick(rng, across)] * count if hides else [_pick(rng, across) for _ in range(count)]
    if all(m == "still" for m in motions) and "still" not in moves:
        motions[0] = _pick(rng, across)
    colors = [tuple(COLORS)[int(i)] for i in rng.permutation(len(COLORS))[:count]]
    actors = []
    for i in range(count):
        middle = [float(rng.uniform(-0.04, 0.04))] * 2
        middle[axis] = float(places[order[i]])
        actors.append(
            Actor(
                shape=_pick(rng, SHAPES),
                color=colors[i],
                size="small",
                motions=(motions[i],),
                middle=(middle[0], middle[1]),
            )
        )
    before = places[order[0]] < places[order[1]]
    relation = ("left of", "right of") if axis == 0 else ("above", "below")
    return tuple(actors), "partly hiding" if hides else relation[0 if before else 1]
