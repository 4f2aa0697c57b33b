"""Whole runs: one recipe composes the rooms' recipes, and is what `--recipe NAME --set room.key=value` names."""

import dataclasses
import importlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import captioner.recipes
import pipelines.recipes
import trainer.recipes
from captioner.config import CaptionerConfig
from orchestration.rooms import OTHER_ROOMS
from pipelines.config import CurationConfig
from schemas.errors import RootError
from schemas.settings import override
from schemas.settings import recipe as build
from schemas.store import Store
from trainer.config import TrainerConfig

_REMEMBERED = "settings.json"
_THOROUGH = (
    "curation.synthetic.footage.num_videos=1200",  # about 5,000 clips are kept
    "curation.synthetic.prompts.count=240",  # intervals of four points and less
)
_TINY = (
    "curation.synthetic.footage.num_videos=4",
    "curation.synthetic.pairs.count=48",
    "curation.synthetic.pairs.held_out=8",
    "curation.synthetic.prompts.count=4",
    "curation.clip.steps=4",
    "curation.clip.batch_size=8",
    "captioner.backend=fake",  # six steps teach no captioner to write, and a manifest without captions trains nothing
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything a run can be told."""

    curation: CurationConfig
    """Footage to verdicts, clip files and the manifest."""
    captioner: CaptionerConfig
    """Pairs, the captioner's training, captioning."""
    trainer: TrainerConfig
    """Autoencoder, latents, DiT, samples, evaluation."""


def _compose(name: str) -> Recipe:
    """The rooms' recipes of that name; a room without one of its own runs as in the demo."""

    def of(known: Mapping[str, Callable[[], Any]]) -> Any:
        return known.get(name, known["demo"])()

    return Recipe(
        curation=of(pipelines.recipes.RECIPES),
        captioner=of(captioner.recipes.RECIPES),
        trainer=of(trainer.recipes.RECIPES),
    )


def demo() -> Recipe:
    """Synthetic footage all the way to generated videos, sized for two CPU cores.

    Run:     dailies demo
    Expect:  the table that the command prints at its end; README.md shows one.
    """
    return _compose("demo")


def thorough() -> Recipe:
    """The demo with more footage and the trainer's longer recipe: hours, not minutes; goes on where it was stopped.

    Run:     dailies demo --recipe thorough --root runs/thorough
    Expect:  autoencoder and DiT take at most 100 minutes of two free cores (`trainer/recipes.py` has the split);
             footage, curation and captions about an hour of one core before that.
    """
    return override(_compose("thorough"), _THOROUGH)


def footage() -> Recipe:
    """A folder of real footage through the same path; the models that the demo trains know only the synthetic world.

    Run:     dailies demo --footage FOLDER --root runs/footage
    Expect:  the same table without the rows that need known truth.
    """
    return _compose("footage")


def tiny() -> Recipe:
    """The whole path in a minute or two: a handful of files, a handful of steps.  For tests; nothing learns.

    Run:     dailies demo --recipe tiny --root runs/tiny
    Expect:  every table, and numbers near chance.
    """
    return override(_compose("tiny"), _TINY)


def lora() -> Recipe:
    """A pretrained video-language model, fine-tuned on the pairs with LoRA, as the captioner; wants a GPU.

    Run:     dailies captioner train --recipe lora --set captioner.vlm.model=NAME_OR_FOLDER
    Expect:  an adapter under checkpoints/captioner_adapter, which `dailies caption` with the same words then uses.
    """
    return _compose("lora")


RECIPES: dict[str, Callable[[], Recipe]] = {
    "demo": demo,
    "thorough": thorough,
    "footage": footage,
    "tiny": tiny,
    "lora": lora,
}


def recipe(name: str, settings: Iterable[str] = ()) -> Recipe:
    """The recipe of that name with `room.key=value` settings applied."""
    other = os.environ.get(OTHER_ROOMS)
    known = importlib.import_module(other).RECIPES if other else RECIPES
    return build(name, known, settings)  # type: ignore[no-any-return]


def remember(store: Store, name: str, settings: Iterable[str]) -> None:
    """Write down which recipe a root is made with, so that later commands on it need not repeat it."""
    store.write_json({"recipe": name, "set": list(settings)}, _REMEMBERED)


def remembered(root: str | os.PathLike[str]) -> tuple[str | None, tuple[str, ...]]:
    """The recipe and settings that a root was made with; (None, ()) if it does not say."""
    store = Store(root)
    if not store.exists(_REMEMBERED):
        return None, ()
    try:
        value = store.read_json(_REMEMBERED)
        return str(value["recipe"]), tuple(value["set"])
    except (json.JSONDecodeError, KeyError, TypeError) as e:
        raise RootError(f"{store.at(_REMEMBERED)} does not read ({e}); delete it and name --recipe again") from e
