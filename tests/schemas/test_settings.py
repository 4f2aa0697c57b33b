"""Settings from the command line: typed, checked, and named when wrong."""

import dataclasses

import pytest

from schemas.errors import ConfigError
from schemas.settings import override, recipe


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    rate: float = 2.0
    names: tuple[str, ...] = ("a",)
    limit: int | None = None
    loud: bool = False

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ValueError(f"rate must be above 0, got {self.rate}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    inner: Inner = dataclasses.field(default_factory=Inner)
    seed: int = 0


def test_a_dotted_key_changes_that_value_alone() -> None:
    new = override(Outer(), ["inner.rate=4", "seed=7", "inner.names=x,y", "inner.limit=3", "inner.loud=true"])
    assert new == Outer(inner=Inner(rate=4.0, names=("x", "y"), limit=3, loud=True), seed=7)
    assert override(new, ["inner.limit=none"]).inner.limit is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("inner.rat=4", "did you mean `rate`"),
        ("iner.rate=4", "did you mean `inner`"),
        ("inner.rate=fast", "type float"),
        ("inner.rate=0", "above 0"),
        ("inner.loud=maybe", "type bool"),
        ("inner=4", "group of settings"),
        ("seed.deeper=4", "holds no settings"),
        ("seed", "key=value"),
    ],
)
def test_a_wrong_setting_says_what_is_wrong(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        override(Outer(), [setting])


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean `demo`"):
        recipe("dmo", {"demo": Outer, "footage": Outer})
    assert recipe("demo", {"demo": Outer}, ["seed=3"]).seed == 3
