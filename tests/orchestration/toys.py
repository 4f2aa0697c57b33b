"""A small world of stages for tests: an orchard's crates are weighed per batch, pressed to juice once.

With DAILIES_ROOMS=tests.orchestration.toys they take the place of the real rooms, in Ray jobs too.
"""

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from orchestration import rooms
from pipelines.execute import Context, Failure, Output, Stage
from schemas import batches
from schemas.store import Store
from schemas.table import Table, column

JPEG = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffd9")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Apple:
    name: str = column("Its name.")
    weight_g: float | None = column("Weight.", unit="g", range="(0, inf)")
    status: str = column("ok or failed.")
    reason: str = column("Why it failed.", default="")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Juice:
    batch: str = column("Where it comes from.")
    total_g: float = column("Sum of weights.", unit="g")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Orchard:
    """The toy room's settings."""

    apples: int = 4
    """Apples per batch."""
    bad: str = ""
    """Name of the apple that raises."""
    deadly: str = ""
    """Name of the apple that kills its worker."""
    slow_s: float = 0.0
    """Seconds per apple."""
    broken: bool = False
    """Pressing stops with an error."""

    def __post_init__(self) -> None:
        if self.apples < 1:
            raise ValueError(f"apples must be at least 1, got {self.apples}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ToyRecipe:
    """Holds the toy room."""

    toy: Orchard = dataclasses.field(default_factory=Orchard)
    """The one room."""


TRUTH = Table("truth_apples", Apple, ("name",), doc="What was planted.")
APPLES = Table("apples", Apple, ("name",), doc="What was weighed.")
PRESS = Table("press", Juice, ("batch",), partitioned=False, doc="A press, made without apples.")
JUICE = Table("juice", Juice, ("batch",), partitioned=False, doc="All batches pressed.")


@dataclasses.dataclass(frozen=True)
class Weigh:
    """Weighs one apple, leaving a mark for each time it did."""

    settings: Orchard
    marks: str

    def __call__(self, name: str) -> dict[str, pa.Table]:
        with open(os.path.join(self.marks, name), "a") as f:
            f.write("x")
        if name == self.settings.deadly:
            os._exit(17)
        if name == self.settings.bad:
            raise RuntimeError("worm")
        time.sleep(self.settings.slow_s)
        weight = 100.0 + sum(name.encode()) % 17
        return {"apples": APPLES.from_rows([Apple(name=name, weight_g=weight, status="ok")])}


def plant(context: Context) -> Output:
    rows = [Apple(name=f"apple{i}", weight_g=1.0, status="ok") for i in range(context.settings.apples)]
    return Output({"truth_apples": TRUTH.from_rows(rows)})


def weigh(context: Context, loaded: bool = False) -> Output:
    marks = Path(context.store.path) / "marks"
    marks.mkdir(exist_ok=True)

    def failed(name: str, failure: Failure) -> dict[str, pa.Table]:
        return {"apples": APPLES.from_rows([Apple(name=name, weight_g=None, status="failed", reason=failure.kind)])}

    names = [f"apple{i}" for i in range(context.settings.apples)]
    fn = Weigh(context.settings, str(marks))
    work: Any = Loader(fn) if loaded else fn
    tables = context.each(work, names, key=str, outputs=[APPLES], on_error=failed, unit="apple", loaded=loaded)
    ok = sum(s == "ok" for s in tables["apples"]["status"].to_pylist())
    return Output(tables, {"ok": ok, "ok_share": ok / len(names), "note": "fresh"}, {"sheet": JPEG})


@dataclasses.dataclass(frozen=True)
class Loader:
    """Stands for a model that is loaded once per worker."""

    fn: Weigh

    def __call__(self) -> Weigh:
        return self.fn


def weigh_loaded(context: Context) -> Output:
    return weigh(context, loaded=True)


def make_press(context: Context) -> Output:
    return Output({"press": PRESS.from_rows([Juice(batch="none", total_g=0.0)])})


def press(context: Context) -> Output:
    if context.settings.broken:
        raise RuntimeError("the press is jammed at gear 7")
    rows = []
    for name in context.store.batches(APPLES):
        weights = context.store.read(APPLES, batch=name)["weight_g"].to_pylist()
        rows.append(Juice(batch=name, total_g=sum(w or 0.0 for w in weights)))
    return Output({"juice": JUICE.from_rows(rows)}, {"litres": 2.5})


def _all(settings: Orchard) -> Orchard:
    return settings


WEIGH = Stage("weigh", 1, (), (APPLES,), weigh, _all, doc="Puts apples on the scale.")
STAGES: tuple[Stage, ...] = (
    Stage("juice", 1, (APPLES, PRESS), (JUICE,), press, _all, doc="Presses them."),
    WEIGH,
    Stage("press", 1, (), (PRESS,), make_press, lambda s: None),
    Stage("footage", 1, (), (TRUTH,), plant, _all),
)
PLACED = rooms.place([("toy", s, lambda recipe: recipe.toy) for s in STAGES], after={"weigh": ("footage",)})
RECIPES = {"demo": ToyRecipe, "footage": ToyRecipe}


def root(path: Path, batch: str = "b1", kind: str = batches.SYNTHETIC) -> Store:
    """A root with one registered batch."""
    store = Store(path).create()
    batches.register(store, batches.Batch(name=batch, folder=str(path / "incoming" / batch), kind=kind))
    return store
