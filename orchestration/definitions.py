"""The code location: assets of all stages, jobs, the sensor, resources.  `dg dev` and `make ui` load it.

    everything   the whole graph for one batch, footage rendered too; what the demo runs
    batch        one batch of real footage through curation and captions, with the models these need
    train        manifest to report, over all batches

The root is `DAILIES_ROOT`; its recipe is the one it was made with (`settings.json`).  Loads in seconds:
nothing here imports torch or ray.
"""

import os
from collections.abc import Sequence

import dagster as dg

from orchestration import recipes, rooms
from orchestration.assets.stages import build_assets
from orchestration.partitions import BATCHES
from orchestration.resources import Compute, Lake
from orchestration.rooms import SYNTHETIC_ONLY, Placed, with_ancestors
from orchestration.sensors import incoming_footage

DEFAULT_ROOT = "runs/demo"
EVERYTHING = "everything"
_PRELOAD = ("orchestration.ray_jobs", "ray.job_submission", "duckdb")  # seconds that each step would spend otherwise


def executor() -> dg.ExecutorDefinition:
    """Two steps at a time, forked from a server that has this code location loaded."""
    return dg.multiprocess_executor.configured(
        {
            "max_concurrent": int(os.environ.get("DAILIES_STEPS", "2")),
            "start_method": {"forkserver": {"preload_modules": ["orchestration.definitions", *_PRELOAD]}},
        }
    )


def lake() -> Lake:
    """The root that this process works on."""
    root = os.environ.get("DAILIES_ROOT", DEFAULT_ROOT)
    name, settings = recipes.remembered(root)
    return Lake(root=root, recipe=name or "demo", settings=list(settings))


def keys(placed: Sequence[Placed]) -> list[dg.AssetKey]:
    """Asset keys of all tables of some stages."""
    return [dg.AssetKey(t.name) for p in placed for t in p.stage.writes]


def build(placed: Sequence[Placed], lake: Lake, compute: Compute) -> dg.Definitions:
    """Definitions over a list of stages."""
    real = [p for p in placed if p.name != SYNTHETIC_ONLY]
    per_batch = with_ancestors([p for p in real if p.stage.partitioned], real)
    rest = [p for p in real if not p.stage.partitioned and p not in per_batch]

    def job(name: str, stages: Sequence[Placed], text: str) -> object:
        return dg.define_asset_job(name, dg.AssetSelection.assets(*keys(stages)), description=text)

    jobs = [job(EVERYTHING, placed, "The whole graph for one batch of synthetic footage.")]
    if per_batch:
        jobs.append(job("batch", per_batch, "One batch of footage through curation and captions."))
    if rest:
        jobs.append(job("train", rest, "Manifest, training, samples and report over all batches."))
    return dg.Definitions(
        assets=build_assets(placed),
        jobs=jobs,  # type: ignore[arg-type]
        sensors=[incoming_footage] if per_batch else [],
        resources={"lake": lake, "compute": compute},
        executor=executor(),
    )


@dg.definitions
def defs() -> dg.Definitions:
    return build(rooms.all_stages(), lake(), Compute(executor=os.environ.get("DAILIES_EXECUTOR", "ray")))


def everything() -> dg.JobDefinition:
    """The job `everything`; a function, so that step processes can build it again."""
    return defs().resolve_job_def(EVERYTHING)


__all__ = ["BATCHES", "build", "defs", "everything"]
