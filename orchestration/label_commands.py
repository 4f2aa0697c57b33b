"""`dailies label` and `dailies calibrate`: ask a person about clips beside each threshold, and what the answers say."""

import argparse
import dataclasses
import getpass
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow.parquet as pq

from orchestration import claim_labels
from orchestration.ask import Answer, Ask, say
from orchestration.caption_session import CaptionSession
from orchestration.label_server import Asking, Server, Session, Shown
from orchestration.sql import as_text
from pipelines.policy import calibration
from pipelines.policy.label_sample import Judged, draw, judged, sample
from pipelines.policy.scoreboard import SCOREBOARD
from pipelines.synthetic.known import rule_truth
from pipelines.video.frames import nearest_indices
from schemas import batches
from schemas.captions import CAPTIONS
from schemas.clips import CLIPS
from schemas.errors import UsageError
from schemas.labels import DESIGN, WRITTEN, Design, design, standing_labels
from schemas.settings import pick
from schemas.store import Store
from schemas.verdicts import SELECTIONS, Verdict
from schemas.videos import FRAMES

_FRAMES = 16
"""Proxy frames shown of a clip at most."""


def label(question: Ask, args: argparse.Namespace) -> Answer:
    """Serve the questions until interrupted."""
    if args.captions:
        return _captions(question, args)
    if args.claims:
        return claim_labels.label(question, args)
    store = question.readable()
    names = _batches(question)
    found = {f.rule.name: f for f in judged(store, names)}
    if args.rule:
        pick("rule", args.rule, found)
    chosen = _design(store, args)
    questions = sample(store, chosen, names, args.rule or "")
    if not questions:
        raise UsageError("no rule has judged any clip: run `dailies stage verdicts` first")
    pictures = shown(store, {q.clip_id for q in questions}, names)
    session = Session(store, questions, {n: f.rule for n, f in found.items()}, pictures)
    serve(session, args, "keys: r reject, k keep, s skip, u undo")
    state = session.next()
    answer = {"questions": state["all"], "answered": state["done"], "labels": store.at("labels", "labels.jsonl")}
    return Answer(answer, f"{state['done']} of {state['all']} questions answered", question.command("calibrate"))


def serve(session: Asking, args: argparse.Namespace, keys: str) -> None:
    server = Server(session, args.port)
    try:
        say(f"label at {server.url}\n{keys}; end with Ctrl-C, the same command goes on")
        if not args.check:
            server.serve_forever()
    except KeyboardInterrupt:
        say("ended")
    finally:
        server.server_close()


def _captions(question: Ask, args: argparse.Namespace) -> Answer:
    """Serve the page on which people write captions of kept clips."""
    if args.rule or args.per_stratum:
        raise UsageError("--captions asks about every kept clip: leave --rule and --per-stratum out")
    store = question.readable()
    names = [question.batch] if question.batch else store.batches(SELECTIONS)
    kept: set[str] = set()
    drafts: dict[str, tuple[str, str]] = {}
    for batch in names:
        rows = store.read(SELECTIONS, batch=batch, columns=["clip_id", "verdict"]).to_pylist()
        kept |= {r["clip_id"] for r in rows if r["verdict"] == Verdict.KEEP}
        if store.committed(CAPTIONS, batch) is not None:
            for r in store.read(CAPTIONS, batch=batch, columns=["clip_id", "short", "dense"]).to_pylist():
                drafts[r["clip_id"]] = (r["short"], r["dense"])
    if not kept:
        raise UsageError(f"no clip is kept under {store.root}: run `{question.command('curate FOLDER')}` first")
    writer = args.writer or getpass.getuser()
    session = CaptionSession(store, sorted(kept), drafts, shown(store, kept, names), writer, args.seed or 0)
    serve(session, args, "ctrl enter saves")
    state = session.next()
    answer = {"clips": state["all"], "captioned": state["done"], "captions": store.at(*WRITTEN)}
    text = f"{state['done']} of {state['all']} clips have a caption that a person wrote"
    return Answer(answer, text, question.command("captioner train --labels"))


def calibrate(question: Ask, args: argparse.Namespace) -> Answer:
    """Precision and recall of each rule, from labels, or from the truth where footage was rendered."""
    if not 0 < args.precision < 1:
        raise UsageError(f"--precision lies between 0 and 1, got {args.precision:g}")
    if args.claims:
        return claim_labels.calibrate(question, args)
    store = question.readable()
    names = _batches(question)
    labels, chosen = standing_labels(store), design(store)
    synthetic = [b for b in names if batches.get(store, b).kind == batches.SYNTHETIC]
    rows: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    for found in judged(store, names):
        answers = calibration.answered(draw(found, chosen), labels)
        if len(answers):
            rows.append(_row("labels", found, answers, args.precision))
    if synthetic and not args.labels:
        truth = rule_truth(store, synthetic)
        for found in judged(store, synthetic):
            if found.rule.name in truth:
                answers = calibration.known(found, truth[found.rule.name])
                rows.append(_row("truth", found, answers, args.precision))
            else:
                left_out[found.rule.name] = "nothing of its kind is planted in rendered footage"
    if not rows:
        raise UsageError(f"nothing is labelled under {store.root}: answer some with `{question.command('label')}`")
    answer = {
        "estimator": calibration.ESTIMATOR,
        "rules": rows,
        "left_out": left_out,
        "design": dataclasses.asdict(chosen),
    }
    return Answer(answer, _text(rows, left_out), question.command("whatif --set RULE.min=BOUND"))


def _batches(question: Ask) -> list[str]:
    store = question.store
    if question.batch:
        batches.get(store, question.batch)
        if store.committed(SCOREBOARD, question.batch) is None:
            raise UsageError(f"batch {question.batch} has no scoreboard yet: run `dailies stage verdicts`")
        return [question.batch]
    names = store.batches(SCOREBOARD)
    if not names:
        raise UsageError(f"root {store.root} has no scoreboard yet: run `dailies stage verdicts`")
    return names


def _design(store: Store, args: argparse.Namespace) -> Design:
    """The design on disk; a new one is written down, and one in use is not replaced unasked."""
    known = design(store)
    asked = Design(
        seed=known.seed if args.seed is None else args.seed,
        per_stratum=known.per_stratum if args.per_stratum is None else args.per_stratum,
    )
    if asked != known or not store.exists(*DESIGN):
        store.write_json(dataclasses.asdict(asked), *DESIGN)
    return asked


def shown(store: Store, wanted: Collection[str], names: Sequence[str]) -> dict[str, Shown]:
    """Proxies of the clips that are asked about, evenly spread over each."""
    columns = ["clip_id", "video_id", "start_frame", "end_frame", "start_s", "end_s", "width", "height"]
    found: dict[str, Shown] = {}
    for batch in names:
        if store.committed(CLIPS, batch) is None or store.committed(FRAMES, batch) is None:
            continue
        clips = [c for c in store.read(CLIPS, batch=batch, columns=columns).to_pylist() if c["clip_id"] in wanted]
        if not clips:
            continue
        read = pq.read_table(
            store.table_path(FRAMES, batch),
            columns=["video_id", "frame_index", "jpeg"],
            filters=[("video_id", "in", sorted({c["video_id"] for c in clips}))],
            filesystem=store.fs,
            partitioning=None,
        )
        frames: dict[str, list[tuple[int, bytes]]] = {}
        for video, index, jpeg in zip(*(read[c].to_pylist() for c in ("video_id", "frame_index", "jpeg"))):
            frames.setdefault(video, []).append((index, jpeg))
        for clip in clips:
            of_video = sorted(frames.get(clip["video_id"], []))
            inside = [j for i, j in of_video if clip["start_frame"] <= i < clip["end_frame"]]
            about = f"{clip['width']}x{clip['height']}, {clip['end_s'] - clip['start_s']:.1f} s"
            found[clip["clip_id"]] = Shown(about, tuple(inside[i] for i in nearest_indices(len(inside), _FRAMES)))
    return found


def _row(source: str, found: Judged, answers: calibration.Answers, wanted: float) -> dict[str, Any]:
    rule = found.rule
    return {
        "rule": rule.name,
        "source": source,
        "column": rule.column,
        "min": rule.min,
        "max": rule.max,
        "clips": len(found.ids),
        **calibration.measure(rule, answers),
        "threshold": calibration.threshold(rule, answers, wanted),
    }


def _text(rows: Sequence[Mapping[str, Any]], left_out: Mapping[str, str]) -> str:
    shown = []
    for r in rows:
        bound = r["threshold"]["bound"]
        wanted = f"{r['threshold']['side']} {bound:.4g}" if bound is not None else "none"
        shown.append(
            [
                r["rule"], r["source"], r["answers"], _rate(r["precision"]), _rate(r["recall"]),
                "" if r["f1"] is None else f"{r['f1']:.3f}", _rate(r["base_rate"]),
                {True: "yes", False: "not shown", None: ""}[r["better_than_chance"]],
                wanted, _rate(r["threshold"].get("precision")),
            ]
        )  # fmt: skip
    asked = f"bound for {rows[0]['threshold']['wanted']:g}"
    columns = [
        "rule",
        "by",
        "answers",
        "precision",
        "recall",
        "F1",
        "how common",
        "beats chance",
        asked,
        "its precision",
    ]
    notes = [f"left out: {name}, {why}" for name, why in left_out.items()]
    lines = [as_text(columns, shown), "", calibration.ESTIMATOR, *notes]
    return "\n".join(lines)


def _rate(rate: Mapping[str, Any] | None) -> str:
    if rate is None or rate["value"] is None:
        return ""
    return f"{rate['value']:.3f} ({rate['low']:.2f} to {rate['high']:.2f})"
