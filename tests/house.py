"""One small root with everything in it, made by the real stages in this process."""

from pathlib import Path

from orchestration import recipes, rooms
from pipelines.execute import Local, Result, run_stage
from schemas import batches
from schemas.store import Store

BATCH = "house"
SETTINGS: tuple[str, ...] = (
    "curation.synthetic.footage.num_videos=7",
    "curation.synthetic.footage.min_shots=3",
    "curation.synthetic.footage.max_shots=3",
    "curation.synthetic.footage.copy_every=5",
    "curation.synthetic.footage.corrupt_every=5",
    "curation.synthetic.pairs.count=48",
    "curation.synthetic.pairs.held_out=8",
    "curation.synthetic.prompts.count=4",
    "curation.clip.steps=3",
    "curation.clip.batch_size=8",
    "captioner.backend=fake",
)


def bring_up_to_date(root: Path, *, until: str | None = None, settings: tuple[str, ...] = ()) -> list[Result]:
    """Run the stages in order (up to and with `until`); one that has nothing to do computes nothing."""
    store = Store(root).create()
    folder = str(root / "incoming" / BATCH)
    batches.register(store, batches.Batch(name=BATCH, folder=folder, kind=batches.SYNTHETIC))
    config = recipes.recipe("tiny", [*SETTINGS, *settings])
    done = []
    for placed, batch in rooms.units(rooms.all_stages(), store):
        done.append(run_stage(placed.stage, store, placed.config(config), batch=batch, executor=Local()))
        if placed.name == until:
            break
    return done
