"""`dailies experiment framing`: native shapes against square crops.

The same rows, seeds and steps.  One arm trains on latents of whole clips, the other on latents of the square in each
clip's middle, from the same autoencoder at the same token budget.  The Sora report shows that a model of square crops
makes videos whose subject is only partly in view.  Here that is counted: the share of videos whose subject is whole and
in frame, of the native arm at native shapes, of the square arm at squares, of the native arm at squares too (the same
canvas), and of the clips that each arm was trained on.
"""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from orchestration.ask import Answer, Ask, say
from orchestration.experiments import bench, report
from orchestration.experiments.bench import Bench, Run, of_arm, run_arms, texts_of
from orchestration.experiments.prompts import asked
from orchestration.experiments.report import as_dict
from pipelines.synthetic.evaluate import rate
from pipelines.synthetic.prompts import SHAPES_PX
from schemas.errors import UsageError
from schemas.ids import digest
from schemas.manifest import MANIFEST

NATIVE, SQUARE = "native", "square"
_AT_NATIVE, _AT_SQUARE = "native shape", "square"
_READ_BY = "framing 1"
_INTERVAL = "95 %, percentile bootstrap over prompts (clips for training data); Wilson's are in report.json"


def run(question: Ask, args: argparse.Namespace) -> Answer:
    """Encode squares, train both arms, sample, count, report."""
    from trainer.experiments.arms import Arm, plain, steps_for
    from trainer.experiments.sampling import Reader, Wanted

    if args.clips < 2:
        raise UsageError(f"--clips is at least 2, got {args.clips}: an interval needs them")
    on = bench.bench(question, args)
    on.needs_truth("whether a subject is whole and in frame")
    # a dry run encodes nothing: squares have about as many tokens as whole clips
    whole_rows, square_rows, left_out = (on.rows, on.rows, {}) if args.dry_run else _both(on)
    on = dataclasses.replace(on, rows=whole_rows)
    native = asked(question.config().curation.synthetic.prompts, args.prompts, args.seed, ["dense"]).wanted
    width, height = SHAPES_PX[0]
    squares = [dataclasses.replace(w, style=_AT_SQUARE, width=width, height=height) for w in native]
    wanted: dict[str, list[Wanted]] = {
        NATIVE: [*(dataclasses.replace(w, style=_AT_NATIVE) for w in native), *squares],
        SQUARE: squares,
    }
    steps = args.steps or steps_for(bench.FLOPS, on.settings, whole_rows)
    texts = texts_of(whole_rows)
    arms = [
        Arm(
            name=name,
            says=says,
            settings=plain(on.settings, steps=steps, seed=seed, threads=on.threads),
            rows=rows,
            texts=texts,
        )
        for name, rows, says in ((NATIVE, whole_rows, "whole clips"), (SQUARE, square_rows, "squares of their middle"))
        for seed in on.seeds
    ]
    if args.dry_run:
        return bench.forecast(on, arms, wanted)
    runs = run_arms(on, arms, wanted, Reader(_READ_BY, _read))
    trained_on = _training_data(on, args.clips)
    found = {**measured(on, runs, trained_on), "clips_left_out": left_out}
    return report.publish(on, args, found, _text(found), _picture(found), runs, style=_AT_NATIVE)


def _read(video: np.ndarray) -> dict[str, Any]:
    from pipelines.synthetic.framing import framing

    return dataclasses.asdict(framing(video))


def _both(on: Bench) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, str]]:
    """The same clips whole and as squares, and clips that have no square with the reason."""
    from trainer.experiments.squares import square_latents
    from trainer.latent_check import not_finite

    wanted = {r["clip_id"] for r in on.rows}
    manifest = [r for r in on.store.read(MANIFEST).to_pylist() if r["clip_id"] in wanted]
    latents = square_latents(on.store, manifest, on.autoencoder, on.settings.shape, on.threads)
    left_out = {r["clip_id"]: f"{r['status']}: {r['reason']}" for r in latents if r["status"] != "ok"}
    ok = {r["clip_id"]: r for r in latents if r["status"] == "ok"}
    left_out |= not_finite(on.store, list(ok.values()))
    # tails and regions are encoded for whole clips alone: neither arm has them
    native = [{**r, "views": ()} for r in on.rows if r["clip_id"] not in left_out]
    return native, [{**r, **ok[r["clip_id"]], "views": ()} for r in native], left_out


def _training_data(on: Bench, most: int) -> dict[str, list[dict[str, Any]]]:
    """How subjects lie in the clips that each arm was trained on: clips of one subject, the same for both."""
    from trainer.autoencoder.pictures import Unfit, prepare, read
    from trainer.dit_stage import sizes_of

    of_one = {r["clip_id"] for r in on.rows if r["fields"] and len(r["fields"]["subjects"]) == 1}
    if len(of_one) < 2:
        raise UsageError("fewer than two clips of this manifest show one subject: framing of training data needs them")
    rows = [r for r in on.store.read(MANIFEST).to_pylist() if r["clip_id"] in of_one]
    rows = sorted(rows, key=lambda r: digest("framing", r["clip_id"]))[:most]
    sizes = sizes_of(on.rows[0], on.settings.shape.patch)
    say(f"looking at {len(rows)} training clips, whole and square")
    found: dict[str, list[dict[str, Any]]] = {NATIVE: [], SQUARE: []}
    for row in rows:
        for name in found:
            square = name == SQUARE
            width, height = (min(row["width"], row["height"]),) * 2 if square else (row["width"], row["height"])
            try:
                plan = prepare(row["num_frames"], row["fps"], width, height, on.settings.shape, sizes)
                found[name].append(_read(read(on.store.fetch(row["path"]), plan, square=square)))
            except (Unfit, OSError, ValueError):  # its latent row has the reason
                break
    count = min(map(len, found.values()))
    return {name: some[:count] for name, some in found.items()}


Seen = Sequence[Sequence[Mapping[str, Any]]]
"""What was read of each video, by seed."""


def measured(on: Bench, runs: Sequence[Run], trained_on: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Shares of whole subjects with intervals, and the differences that matter."""
    seen: dict[tuple[str, str], Seen] = {}
    arms = []
    for name, styles in ((NATIVE, (_AT_NATIVE, _AT_SQUARE)), (SQUARE, (_AT_SQUARE,))):
        mine = of_arm(runs, name)
        for style in styles:
            seen[name, style] = [[s["seen"] for s in r.samples if s["style"] == style] for r in mine]
        generated = {style: _share(seen[name, style]) for style in styles}
        costs = report.costs(on, name, mine)
        arms.append({**costs, "generated": generated, "training_data": _share([trained_on[name]])})
    differences = {
        "each at its own shape": _difference(seen[NATIVE, _AT_NATIVE], seen[SQUARE, _AT_SQUARE]),
        "both at squares": _difference(seen[NATIVE, _AT_SQUARE], seen[SQUARE, _AT_SQUARE]),
        "training data": _difference([trained_on[NATIVE]], [trained_on[SQUARE]]),
    }
    return {"arms": arms, "native_minus_square": differences, "interval": _INTERVAL, "came_out": came_out(differences)}


def _of(seen: Seen, name: str) -> np.ndarray:
    """One number per prompt: the mean over seeds."""
    return np.mean([[float(v[name]) for v in one] for one in seen], axis=0)


def _share(seen: Seen) -> dict[str, Any]:
    """Whole in every frame, shares of frames, and of those frames that show a subject the share that show it whole."""
    from trainer.experiments.intervals import mean, ratio

    hits, trials = sum(v["whole"] for one in seen for v in one), sum(map(len, seen))
    wilson = rate("framing", "whole", "share", hits, trials)
    return {
        "whole": as_dict(mean(_of(seen, "whole"))),
        "whole_wilson": {"value": wilson.value, "low": wilson.low, "high": wilson.high, "n": wilson.n},
        "frames_whole": as_dict(mean(_of(seen, "frames_whole"))),
        "frames_seen": as_dict(mean(_of(seen, "frames_seen"))),
        "whole_of_seen": as_dict(ratio(_of(seen, "frames_whole"), _of(seen, "frames_seen"))),
    }


def _difference(native: Seen, square: Seen) -> dict[str, Any]:
    """The native share less the square one on the same prompts: of videos, and of frames that show a subject."""
    from trainer.experiments.intervals import difference, ratio_difference

    pairs = [(_of(some, "frames_whole"), _of(some, "frames_seen")) for some in (native, square)]
    return {
        "whole": as_dict(difference(_of(native, "whole"), _of(square, "whole"))),
        "whole_of_seen": as_dict(ratio_difference(*pairs[0], *pairs[1])),
    }


def came_out(differences: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """What the numbers say, in sentences."""
    said = []
    for name, both in differences.items():
        for key, what in (("whole", "whole in every frame"), ("whole_of_seen", "whole where there is one")):
            d = both[key]
            if d["low"] is None:
                said.append(f"{name}: too few videos show a subject to say how often it is {what}")
                continue
            word = "more often" if d["low"] > 0 else "less often" if d["high"] < 0 else "not told apart,"
            end = f"{d['value']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}]"
            said.append(f"{name}: subjects of the native arm {what} {word} {end}")
    return said


def _text(found: Mapping[str, Any]) -> str:
    header = ["arm", "shape", "whole in every frame", "of frames with a subject, whole", "frames with a subject"]
    body = [
        [what, shape, *(report.interval(share[k]) for k in ("whole", "whole_of_seen", "frames_seen"))]
        for a in found["arms"]
        for what, shape, share in (
            *((f"{a['name']}, generated", style, share) for style, share in a["generated"].items()),
            (f"{a['name']}, training data", a["says"], a["training_data"]),
        )
    ]
    costs = [
        [
            a["name"],
            f"{a['steps']}",
            f"{a['clips']}",
            f"{a['samples_seen']:.0f}",
            f"{a['tokens_seen']:.0f}",
            report.spent(a),
        ]
        for a in found["arms"]
    ]
    left = (
        f" {len(found['clips_left_out'])} clips have no square and are in neither arm."
        if found["clips_left_out"]
        else ""
    )
    return report.joined(
        [
            "A subject is whole where its mask touches no edge and covers at most half of the picture. Intervals: "
            f"{found['interval']}.{left}",
            report.table(header, body),
            report.table(["arm", "steps", "clips", "samples seen", "tokens seen", "CPU s"], costs),
        ],
        found["came_out"],
    )


def _picture(found: Mapping[str, Any]) -> bytes:
    from orchestration.experiments.plot import Series, bars

    native, square = found["arms"]
    rows = [
        ("native, native shape", native["generated"][_AT_NATIVE]),
        ("native, square", native["generated"][_AT_SQUARE]),
        ("square, square", square["generated"][_AT_SQUARE]),
        ("whole clips (data)", native["training_data"]),
        ("squares of them (data)", square["training_data"]),
    ]
    series = [
        Series("whole in every frame", [share["whole"] for _, share in rows]),
        Series("of frames with a subject, whole", [share["whole_of_seen"] for _, share in rows]),
    ]
    return bars("Framing: subjects whole and in frame (95 % intervals)", [name for name, _ in rows], series)
