"""An experiment's report: `report.json` (every number), `report.md` (the table), `plot.png`, `sheet.jpg` (the same
prompts from the same noise, one row per arm), in `<root>/experiments/<name>/` and wherever `--out` says.
"""

import argparse
import dataclasses
import datetime
import importlib.metadata
import io
import json
import os
import platform
import shlex
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestration.ask import Answer
from orchestration.experiments.bench import Bench, Run, name_of
from orchestration.machine import processor
from schemas.ids import canonical_json

if TYPE_CHECKING:
    from trainer.experiments.intervals import Interval

_SHOWN, _LABEL, _HEAD, _LINE = 8, 130, 66, 12
_ONE_SEED = "One training seed: how much another seed would change is not in the intervals (`--seeds 3` puts it there)."


def as_dict(interval: "Interval") -> dict[str, Any]:
    """For JSON."""
    return dataclasses.asdict(interval)


def per_prompt(runs: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, np.ndarray]:
    """Name to one number per prompt: the mean over an arm's seeds."""
    return {name: np.mean([r[name] for r in runs], axis=0) for name in runs[0]}


def costs(on: Bench, name: str, runs: Sequence[Run]) -> dict[str, Any]:
    """What an arm was, and what it took, over its seeds."""
    facts = [r.trained.facts for r in runs]

    def mean(key: str) -> float:
        return float(np.mean([f[key] for f in facts]))

    read: dict[str, int] = {}
    for r in runs:
        for entry in r.trained.ledger(on.store)["caption"].value_counts().to_pylist():
            read[entry["values"]] = read.get(entry["values"], 0) + entry["counts"]
    total = sum(read.values())
    return {
        "name": name,
        "says": runs[0].arm.says,
        "keys": [r.trained.key for r in runs],
        "checkpoints": [f["digest"] for f in facts],
        "seeds": [f["seed"] for f in facts],
        "steps": facts[0]["steps"],
        "clips": facts[0]["rows"],
        "parameters": facts[0]["parameters"],
        "samples_seen": mean("samples_seen"),
        "tokens_seen": mean("tokens_seen"),
        "flops": mean("flops"),
        "loss_first": mean("loss_first"),
        "loss_last": mean("loss_last"),
        "captions_read": {k: round(v / total, 4) for k, v in sorted(read.items())},
        "cpu_s": {
            "training": round(sum(f["cpu_s"] for f in facts), 1),
            "sampling": round(sum(s["cpu_s"] for r in runs for s in r.samples), 1),
        },
    }


def publish(
    on: Bench,
    args: argparse.Namespace,
    found: Mapping[str, Any],
    text: str,
    plot: bytes,
    runs: Sequence[Run],
    style: str = "dense",
) -> Answer:
    """Write the report whole and answer with it.

    Args:
        style: Of the prompts that the sheet shows.
    """
    name = name_of(args)
    optimizer = dataclasses.asdict(runs[0].arm.settings)
    whole = {
        "experiment": args.experiment_command,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": "dailies " + shlex.join(sys.argv[1:]),
        "manifest": on.manifest,
        "autoencoder": on.autoencoder["digest"],
        "clips": len(on.rows),
        "seeds": list(on.seeds),
        "prompts": args.prompts,
        "sampling": {"steps": on.sampling.steps, "guidance": on.sampling.guidance},
        "settings_of_the_first_arm": json.loads(canonical_json(optimizer)),
        "threads": on.threads,
        "cpu_s": round(sum(sum(a["cpu_s"].values()) for a in found["arms"]), 1),
        "machine": machine(),
        **found,
    }
    page = "\n".join(
        [
            f"# Experiment: {args.experiment_command}",
            "",
            f"{whole['date']}, manifest `{on.manifest}`, autoencoder `{on.autoencoder['digest']}`, "
            f"{len(on.rows)} clips, seeds {', '.join(map(str, on.seeds))}; {whole['cpu_s']:.0f} CPU seconds on "
            f"{whole['machine']['cpu']}, {on.threads} thread{'s' if on.threads > 1 else ''}.",
            "",
            f"    {whole['command']}",
            *(["", _ONE_SEED] if len(on.seeds) == 1 else []),
            "",
            text,
            "",
            "![plot](plot.png)",
            "",
            *(
                ["![the same prompts and noise, one row per arm](sheet.jpg)", ""]
                if any(r.samples for r in runs)
                else []
            ),
        ]
    )
    files = {"report.json": json.dumps(whole, indent=1, sort_keys=True).encode(), "report.md": page.encode()}
    files["plot.png"] = plot
    if any(r.samples for r in runs):
        files["sheet.jpg"] = sheet(runs, style)
    stale = on.store.at("experiments", name, "sheet.jpg")
    if "sheet.jpg" not in files and on.store.fs.exists(stale):
        on.store.fs.rm_file(stale)
    for file, data in files.items():
        on.store.write_bytes(data, "experiments", name, file)
        if args.out:
            os.makedirs(args.out, exist_ok=True)
            Path(args.out, file).write_bytes(data)
    at = on.store.at("experiments", name)
    answer = {**whole, "path": at, "out": args.out or ""}
    return Answer(answer, f"{text}\n\n{at}/report.md", on.question.command("report"))


def sheet(runs: Sequence[Run], style: str) -> bytes:
    """Prompts side by side, one row per arm: first, middle and last frame of each.

    Args:
        style: Which of an arm's prompts; an arm that was asked none of these shows those it was asked first.
    """
    from PIL import Image, ImageDraw, ImageFont

    several = len({r.arm.seed for r in runs}) > 1
    lines, prompts = [], list[str]()
    for r in runs:
        mine = [s for s in r.samples if s["style"] == style]
        mine = mine or [s for s in r.samples if s["style"] == r.samples[0]["style"]]
        strips = [Image.open(io.BytesIO(s["strip"])) for s in mine[:_SHOWN]]
        prompts = prompts or [s["prompt"] for s in mine[:_SHOWN]]
        lines.append((r.arm.name + (f" #{r.arm.seed}" if several else ""), strips))
    width = max(150, *(p.width for _, strips in lines for p in strips)) + 6
    height = max(p.height for _, strips in lines for p in strips) + 6
    page = Image.new("RGB", (_LABEL + width * len(prompts), _HEAD + height * len(lines)), "white")
    draw, font, small = ImageDraw.Draw(page), ImageFont.load_default(size=13), ImageFont.load_default(size=10)
    for x, prompt in enumerate(prompts):
        for k, part in enumerate(textwrap.wrap(prompt, width // 6)[: _HEAD // _LINE]):
            draw.text((_LABEL + x * width, 3 + k * _LINE), part, "black", small)
    for y, (name, strips) in enumerate(lines):
        draw.text((6, _HEAD + y * height + height // 3), name, "black", font)
        for x, strip in enumerate(strips):
            page.paste(strip, (_LABEL + x * width, _HEAD + y * height))
    buffer = io.BytesIO()
    page.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def machine() -> dict[str, Any]:
    """Processor, cores, load and versions; never a name or an address."""
    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "load_at_end": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
        "numpy": importlib.metadata.version("numpy"),
    }


def interval(found: Mapping[str, Any], sign: bool = False) -> str:
    """An interval for the table."""
    form = "+.3f" if sign else ".3f"
    if found["value"] is None:
        return "none"
    if found["low"] is None:
        return f"{found['value']:{form}}"
    return f"{found['value']:{form}} [{found['low']:{form}}, {found['high']:{form}}]"


def table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def spent(arm: Mapping[str, Any]) -> str:
    """CPU seconds of an arm for the table, training and sampling."""
    return f"{arm['cpu_s']['training']:.0f} + {arm['cpu_s']['sampling']:.0f}"


def joined(parts: Sequence[str], came_out: Sequence[str]) -> str:
    """The report's text: its parts, and what came out as a list."""
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in came_out)])
