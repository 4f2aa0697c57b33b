"""What assets use, as Dagster resources that the UI shows: where the tables are, and who runs the stages."""

from typing import Any

import dagster as dg
from pydantic import Field

from orchestration import recipes
from orchestration.rooms import Placed
from schemas.store import Store


class Lake(dg.ConfigurableResource):
    """The root that holds all tables, and the recipe it is made with."""

    root: str = Field(description="Folder or URL.")
    recipe: str = Field(default="demo", description="Name of the recipe.")
    settings: list[str] = Field(default_factory=list, description="`room.key=value` settings on top of it.")

    def store(self) -> Store:
        return Store(self.root)

    def config(self, placed: Placed) -> Any:
        """The config of the room that a stage belongs to."""
        return placed.config(recipes.recipe(self.recipe, self.settings))


class Compute(dg.ConfigurableResource):
    """Who runs the stages."""

    executor: str = Field(
        default="ray",
        description="`ray`: one Ray job per stage and batch.  `local`: in the step's own process, without Ray.",
    )
    address: str = Field(default="", description="The Ray Jobs API; empty for the head that `dailies up` started.")
    python: str = Field(default="", description="Interpreter on the cluster; this one if empty.")
