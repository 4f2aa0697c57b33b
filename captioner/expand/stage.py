"""Stage `expander`: the small text model that expands prompts, trained on the manifest's own (short, dense) captions.

The checkpoint holds weights (safetensors), tokenizer, config with the lexicon, and a card that says which manifest it
learned from and how it does on held-out captions.  `open_expander` gives a root's expander, trained or not.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from captioner.expand.config import ExpandConfig, LmTraining
from captioner.expand.expander import Expander, expander_of, speaks_the_language
from captioner.expand.facts import lexicon_of
from captioner.expand.prompts import Source, source_of
from captioner.pairs.read import fields_of
from pipelines.execute import Context, Output, Progress, RunLog, Stage
from schemas.captions import Fields
from schemas.checkpoints import EXPANDER_CHECKPOINT, Checkpoint
from schemas.errors import MissingTable, ModelError, WorldError
from schemas.ids import digest
from schemas.manifest import MANIFEST
from schemas.store import Store, content_digest
from schemas.table import to_rows

KIND, FORMAT = "expander", 1
_WEIGHTS, _CONFIG = "model.safetensors", "config.json"


@dataclasses.dataclass(frozen=True, slots=True)
class _Kept:
    """The snapshot of one training run, under the root's `work/`."""

    store: Store
    name: str

    def load(self) -> bytes | None:
        at = ("work", KIND, self.name)
        return self.store.read_bytes(*at) if self.store.exists(*at) else None

    def save(self, data: bytes) -> None:
        self.store.write_bytes(data, "work", KIND, self.name)


def sources_of(rows: list[dict[str, Any]]) -> list[Source]:
    """Captions out of rows with `short`, `dense` and `fields`, each once, in a fixed order."""
    found = {
        (r["short"], r["dense"]): source_of(r["short"], r["dense"], _record(r["fields"]))
        for r in rows
        if r["short"] and r["dense"]
    }
    return [found[key] for key in sorted(found)]


def _record(said: Mapping[str, Any] | None) -> Fields | None:
    return fields_of(said) if said and said["subjects"] else None


def _lexicon(sources: list[Source]) -> dict[str, list[str]]:
    return lexicon_of([s.record for s in sources if s.record is not None])


def run(context: Context) -> Output:
    """Train on the manifest's captions and publish the checkpoint."""
    from captioner.expand.lm import train_lm

    config: LmTraining = context.settings
    table = context.read(MANIFEST, columns=["clip_id", "manifest", "short", "dense", "fields"])
    sources = sources_of(table.to_pylist())
    if not sources:
        raise WorldError("the manifest holds no captions to learn from: run `dailies caption` and `manifest freeze`")
    manifest = str(table["manifest"][0].as_py())
    name = digest(context.made_by, content_digest(table))
    progress = Progress(KIND, config.steps, "step")
    trained = train_lm(
        sources,
        config,
        _Kept(context.store, f"{name}.pt"),
        on_step=lambda done, note: progress.advance(done - progress.done, note),
        curve=functools.partial(RunLog, context.store, KIND, name),
    )
    progress.close()
    measured = {
        "captions": len(sources),
        "loss_first": round(trained.losses[0], 4),
        "loss_last": round(sum(trained.losses[-20:]) / len(trained.losses[-20:]), 4),
        "held_out_loss": None if trained.held_out_loss != trained.held_out_loss else round(trained.held_out_loss, 4),
        "left_out": trained.left_out,
        "parameters": sum(p.numel() for p in trained.net.parameters()),
    }
    card = {
        "manifest": manifest,
        **measured,
        "steps": config.steps,
        "seed": config.seed,
        "curve": f"logs/{KIND}/{name}",
    }
    words = {"lexicon": _lexicon(sources), "strict": speaks_the_language(sources)}
    found, path = _save(context.store, trained.net, trained.tokenizer, config, words, card)
    row = Checkpoint(
        digest=found,
        kind=KIND,
        path=path,
        knows="footage",
        trained_on=manifest,
        steps=config.steps,
        metrics=json.dumps(measured, sort_keys=True),
        made_by=context.made_by,
    )
    tables = {EXPANDER_CHECKPOINT.name: EXPANDER_CHECKPOINT.from_rows([row])}
    return Output(tables, metrics={**measured, "checkpoint": path})


def _save(
    store: Store, net: Any, tokenizer: Any, config: LmTraining, words: Mapping[str, Any], card: Mapping[str, Any]
) -> tuple[str, str]:
    from safetensors.torch import save_model

    local = Path(store.scratch()) / "checkpoint"
    local.mkdir()
    save_model(net, str(local / _WEIGHTS))
    name = digest((local / _WEIGHTS).read_bytes())
    tokenizer.save_pretrained(str(local))
    described = {"kind": KIND, "format": FORMAT, "digest": name, "vocabulary": len(tokenizer)}
    described |= {"lm": dataclasses.asdict(config), **words}
    (local / _CONFIG).write_text(json.dumps(described, indent=1))
    rows = "\n".join(f"| {key} | {value} |" for key, value in card.items())
    (local / "README.md").write_text(
        f"# Prompt expander {name}\n\nWrites a dense caption behind a short prompt, in the style of one manifest.\n\n"
        f"| | |\n|---|---|\n{rows}\n\nIt knows that manifest's words; others are kept as the user's own sentence.\n"
    )
    path = store.publish_folder(local, "checkpoints", KIND, name)
    if local.parent.exists():
        local.parent.rmdir()
    return name, path


def load_trained(folder: str, config: ExpandConfig) -> Expander:
    """The expander of a checkpoint.

    Raises:
        ModelError: If it is missing, damaged, or of another version.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    from captioner.expand.lm import build
    from captioner.expand.writers import Trained
    from captioner.train.tokenizer import load_tokenizer

    path = Path(folder)
    try:
        described = json.loads((path / _CONFIG).read_text())
        if (described.get("kind"), described.get("format")) != (KIND, FORMAT):
            raise ModelError(
                f"{folder} holds a `{described.get('kind')}` of format {described.get('format')}, no expander"
            )
        found = digest((path / _WEIGHTS).read_bytes())
        if found != described["digest"]:
            raise ModelError(f"{path / _WEIGHTS} has digest {found}, expected {described['digest']}: train it again")
        net = build(LmTraining(**described["lm"]), described["vocabulary"])
        load_model(net, str(path / _WEIGHTS))
        writer = Trained(net.eval(), load_tokenizer(folder), config, found)
        return Expander(writer, described["lexicon"], config.candidates, described["strict"])
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as e:
        raise ModelError(f"expander checkpoint {folder} does not load ({e}): run stage `expander` again") from e


def open_expander(store: Store, config: ExpandConfig) -> Expander:
    """The root's expander, by the config.

    Raises:
        MissingTable: If nothing was trained, or there is no manifest to take examples from.
    """
    if config.writer == "trained":
        if store.committed(EXPANDER_CHECKPOINT) is None:
            raise MissingTable(f"no expander was trained under {store.root}: run `dailies stage expander` first")
        row = to_rows(store.read(EXPANDER_CHECKPOINT), Checkpoint)[0]
        return load_trained(store.fetch(row.path), config)
    if store.committed(MANIFEST) is None:
        raise MissingTable(f"there is no manifest under {store.root} to write in the style of: run `manifest freeze`")
    sources = sources_of(store.read(MANIFEST, columns=["short", "dense", "fields"]).to_pylist())
    return expander_of(config, sources, _lexicon(sources))


EXPANDER = Stage(
    name=KIND,
    version=2,
    reads=(MANIFEST,),
    writes=(EXPANDER_CHECKPOINT,),
    run=run,
    settings=lambda config: config.expand.lm,
    doc="Trains the small text model that expands prompts, on the manifest's captions.",
)
