"""The command `dailies`: its map, its common options, and how it ends.

Standard output holds the answer (with --json exactly one JSON object), standard error the progress.  A
request that cannot be met is one line and exit code 2; a broken world one line and 1.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from orchestration import experiment_command, sample_command
from orchestration.ask import Answer, Ask, from_arguments
from schemas.errors import DailiesError, UsageError

Command = Callable[[Ask, argparse.Namespace], Answer]

_DESCRIPTION = """\
Raw footage in; a curated, densely captioned Parquet manifest and a native-shape video DiT out.

  start here    demo, doctor, selftest
  curation      curate FOLDER, stage NAME, whatif, label, calibrate
  captions      captioner train, captioner evaluate, caption, manifest freeze, manifest list, export
  training      train autoencoder, train dit, train verify, train replay, expand, sample, credentials, evaluate,
                experiment captions|scaling|framing|filters
  look          report, sql, audit CLIP_ID, explain clip|step, diff A B, forget VIDEO
  services      up, ui, down
"""


_POLICY = "a TOML file of rules, or preset:NAME such as preset:cosmos or preset:easyanimate (default: the recipe's)"


def _lazily(module: str, name: str) -> Command:
    def command(question: Ask, args: argparse.Namespace) -> Answer:
        import importlib

        return getattr(importlib.import_module(f"orchestration.{module}"), name)(question, args)  # type: ignore[no-any-return]

    return command


def _train(question: Ask, args: argparse.Namespace) -> Answer:
    if (args.what == "replay") != bool(args.capsule):
        raise UsageError("`train replay` takes the folder of a crash capsule, and nothing else does")
    module = "verify_command" if args.what in ("verify", "replay") else "run_commands"
    return _lazily(module, args.what if args.what in ("verify", "replay") else "train")(question, args)


def _caption(question: Ask, args: argparse.Namespace) -> Answer:
    command = ("caption_commands", "replay") if args.what == "replay" else ("run_commands", "caption")
    return _lazily(*command)(question, args)


def _options(settings: str = "set", change: str = "change a setting; repeatable") -> argparse.ArgumentParser:
    """The common options; `settings` is where `--set` goes."""
    common = argparse.ArgumentParser(add_help=False)
    group = common.add_argument_group("common options")
    group.add_argument("--root", help="where all tables live: a folder or URL (default: $DAILIES_ROOT or runs/demo)")
    group.add_argument("--recipe", help="demo or footage (default: the one the root was made with)")
    group.add_argument("--set", dest=settings, action="append", metavar="KEY=VALUE", help=change)
    group.add_argument(
        "--executor",
        choices=("inline", "local", "ray"),
        help="who maps over items: this process (for a debugger), its children, or Ray (default: local; demo: ray)",
    )
    group.add_argument("--workers", type=int, help="how many items at once (default: 1 with local, all CPUs with ray)")
    group.add_argument("--batch", help="one batch of footage (default: all)")
    group.add_argument("--json", action="store_true", help="one JSON object on standard output")
    return common


def parser() -> argparse.ArgumentParser:
    """The map of all commands."""
    common = _options()
    top = argparse.ArgumentParser(
        prog="dailies", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")

    def add(
        name: str, text: str, command: Command, to: Any = commands, options: argparse.ArgumentParser = common
    ) -> argparse.ArgumentParser:
        sub = to.add_parser(name, help=text, description=text, parents=[options])
        sub.set_defaults(run=command)
        return sub  # type: ignore[no-any-return]

    def group(name: str, text: str) -> Any:
        sub = commands.add_parser(name, help=text, description=text)
        return sub.add_subparsers(dest=f"{name}_command", required=True, metavar="COMMAND")

    demo = add("demo", "footage to generated videos through Dagster and Ray", _lazily("serve_commands", "demo"))
    demo.add_argument("--footage", metavar="FOLDER", help="your own files instead of rendered ones")
    demo.set_defaults(usual_executor="ray")  # not `executor`: all commands share that option's default
    demo.add_argument("--no-dagster", action="store_true", help="run the same stages in this process, for debugging")
    add("doctor", "is everything here that a run needs?", _lazily("serve_commands", "doctor"))
    test = add(
        "selftest", "curation of rendered footage, counted against its truth", _lazily("selftest_command", "run")
    )
    test.description = (
        "Render footage whose truth is known, curate it, and print precision, recall and F1 of boundaries, planted "
        "defects and near-duplicates with 95 % intervals. Takes a few minutes; exit code 1 where a mark is missed. "
        "Without --root everything is gone afterwards."
    )
    test.add_argument("--seed", type=int, help="of the footage (default: one nothing was tuned on)")
    test.add_argument("--scale", type=float, default=1.0, help="how much footage; 1 is 120 files (default: 1)")
    stage = add("stage", "bring one stage's tables up to date", _lazily("run_commands", "stage"))
    stage.add_argument("name", nargs="?", help="the stage")
    stage.add_argument("--list", action="store_true", help="all stages, with what they write")
    stage.add_argument("--force", action="store_true", help="compute even if nothing changed, quarantined items too")
    stage.add_argument(
        "--only", metavar="ITEM", help="run one item (a file, a clip id) and commit nothing: what became of it?"
    )
    curate = add("curate", "a folder of footage to verdicts and clip files", _lazily("run_commands", "curate"))
    curate.add_argument("folder", help="folder or URL with videos, searched recursively")
    bounds = _options("bounds", "move a bound: rule.min=0.3, rule.max=none, rule=off, table.column.min=1; repeatable")
    what = "other rules over the scores that are there: funnel, overlap, hours left, what changes"
    whatif = add("whatif", what, _lazily("whatif_command", "whatif"), options=bounds)
    whatif.add_argument("--policy", metavar="FILE", help=_POLICY)
    whatif.set_defaults(set=None)
    label = add(
        "label", "a page on loopback that asks about clips beside each threshold", _lazily("label_commands", "label")
    )
    label.add_argument(
        "--captions",
        action="store_true",
        help="write captions of kept clips; `captioner train --labels` learns from them",
    )
    label.add_argument("--claims", action="store_true", help="are captions true? sentence by sentence, of a sample")
    label.add_argument("--sample", type=int, default=40, help="claims: how many clips (default: 40)")
    label.add_argument("--writer", metavar="NAME", help="captions: who writes (default: the user's name)")
    label.add_argument("--rule", help="ask about this rule only")
    label.add_argument("--per-stratum", type=int, help="clips from each of the six strata of a rule (default: 12)")
    label.add_argument("--seed", type=int, help="of the sample (default: 0)")
    label.add_argument("--port", type=int, default=0, help="of the page (default: a free one)")
    label.add_argument("--check", action="store_true", help="draw the sample and stop before serving")
    what = "precision and recall of each rule with intervals, and the threshold for a wanted precision"
    calibrate = add("calibrate", what, _lazily("label_commands", "calibrate"))
    calibrate.add_argument("--precision", type=float, default=0.95, help="the wanted precision (default: 0.95)")
    calibrate.add_argument("--claims", action="store_true", help="what `label --claims` says of the captions")
    calibrate.add_argument("--sample", type=int, default=40, help="claims: as it was labelled (default: 40)")
    calibrate.add_argument("--seed", type=int, help="claims: as it was labelled (default: 0)")
    calibrate.add_argument("--labels", action="store_true", help="labels only, even where the truth is known")
    captioner = group("captioner", "train the captioner, and examine it")
    learn = add("train", "pairs, and the captioner trained on them", _lazily("captioner_command", "train"), captioner)
    learn.description = (
        "Gather (clip, short, dense) pairs and train the captioner on them. Pairs come from rendered footage with "
        "known truth (the default), from files, from captions that people wrote on the label page, or from a teacher "
        "that captions the clips which this root keeps; a run that was stopped goes on at its last snapshot."
    )
    source = learn.add_argument_group("where pairs come from (together they replace the rendered ones)")
    source.add_argument(
        "--pairs", action="append", metavar="FILE",
        help="Parquet, CSV or JSON lines with `video` or `clip_id`, `short` and `dense`; optional: start, end, fields, "
        "split, source, writer; repeatable",
    )  # fmt: skip
    source.add_argument("--labels", action="store_true", help="captions that people wrote: `dailies label --captions`")
    source.add_argument(
        "--teacher",
        metavar="BACKEND",
        help="let transformers_vlm, openai_api, ... caption the kept clips, and learn from it",
    )
    source.add_argument("--with-synthetic", action="store_true", help="learn from rendered pairs too")
    add("evaluate", "its claims on held-out pairs, counted", _lazily("run_commands", "captioner_evaluate"), captioner)
    merge = add("merge", "the LoRA adapter and its base as one model", _lazily("captioner_command", "merge"), captioner)
    merge.add_argument("--to", required=True, metavar="FOLDER", help="a new folder; servers such as vLLM load it")
    what = "the counterfactual test: how many planted wrong claims it finds, and its false alarms, with intervals"
    planted = add("verify-claims", what, _lazily("caption_commands", "verify_claims"), captioner)
    planted.add_argument("--pairs", type=int, help="held-out pairs at most (default: all)")
    caption = add("caption", "short and dense captions of what was kept; or make some again and compare", _caption)
    again = "make a sample of captions again and say which come out otherwise (exit code 1 if any does)"
    caption.add_argument("what", nargs="?", choices=("replay",), help=f"replay: {again}")
    caption.add_argument("--sample", type=int, default=20, help="replay: how many (default: 20)")
    caption.add_argument("--seed", type=int, default=0, help="replay: of the sample (default: 0)")
    manifest = group("manifest", "freeze and list manifests")
    add("freeze", "an immutable snapshot to train on", _lazily("run_commands", "manifest_freeze"), manifest)
    add("list", "all frozen manifests", _lazily("look_commands", "manifest_list"), manifest)
    export = add("export", "a manifest in a format that other trainers read", _lazily("export_command", "export"))
    export.add_argument("format", choices=("webdataset", "videofolder", "opensora"), help="what reads it")
    export.add_argument("--manifest", metavar="NAME", help="digest, or how it begins (default: the current one)")
    export.add_argument("--to", required=True, metavar="FOLDER", help="an empty folder, or one that it began earlier")
    export.add_argument("--text", choices=("dense", "short"), default="dense", help="which caption (default: dense)")
    export.add_argument("--shard-mb", type=float, default=500.0, help="webdataset: size of a tar (default: 500)")
    export.add_argument("--copy", action="store_true", help="copy clip files where they could be linked")
    train = add("train", "train the autoencoder, or the DiT on latents; or try the trainer's promises", _train)
    train.add_argument(
        "what",
        choices=("autoencoder", "dit", "verify", "replay"),
        help="verify: packed loss, permutation, crop, padding, fill; replay: a step that was skipped, again",
    )
    train.add_argument("capsule", nargs="?", help="replay: the folder that training named when it skipped the step")
    train.add_argument("--manifest", metavar="DIGEST", help="dit: the manifest that is expected; another is refused")
    train.add_argument("--where", metavar="SQL", help="dit: a condition over the manifest's columns")
    train.add_argument(
        "--dry-run", action="store_true", help="dit: what would be trained, what not and why, and the cost"
    )
    experiment = group("experiment", "small trainings that differ in one thing: which data, how much compute?")
    experiment_command.declare(add, experiment, _lazily)
    expand = add("expand", "a short prompt as a dense caption, and what was added", _lazily("expand_command", "expand"))
    expand.description = (
        "Write a short prompt out as a dense caption in the style of this root's captions, which is what its video "
        "model was trained on. Every fact of the prompt is kept, or the prompt is refused; what was added is said. "
        "Who writes: --set captioner.expand.writer=trained (the default), retrieval, transformers or openai_api."
    )
    expand.add_argument("prompt", help="what to show, in any words")
    expand.add_argument("--seed", type=int, default=0, help="another seed adds other things (default: 0)")
    sample = add("sample", "a video or picture from a prompt and what is given", _lazily("sample_command", "sample"))
    sample_command.options(sample)
    credentials = add("credentials", "what a generated file says of itself", _lazily("sample_command", "credentials"))
    credentials.add_argument("file", help="an mp4 or png that `sample` or the stage `samples` made")
    add("evaluate", "samples of fixed prompts, measured beside chance and control", _lazily("run_commands", "evaluate"))
    report = add("report", "one HTML page on everything", _lazily("run_commands", "report"))
    decode = "decode some sources once to nowhere first, to say how far the scan is from that"
    report.add_argument("--decode-floor", action="store_true", help=decode)
    sql = add("sql", "one SELECT over the tables, reading only", _lazily("look_commands", "sql"))
    sql.add_argument("query", metavar="SELECT")
    audit = add("audit", "one clip from source file to training steps", _lazily("look_commands", "audit"))
    audit.add_argument("clip_id", help="the id, or how it begins")
    explain = add("explain", "what training saw of a clip, or in a step", _lazily("look_commands", "explain"))
    explain.add_argument("what", choices=("clip", "step"))
    explain.add_argument("id", help="clip id or step number")
    diff = add("diff", "two manifests: clips that came, went or changed, and why", _lazily("history_commands", "diff"))
    diff.add_argument("older", help="digest, or how it begins")
    diff.add_argument("newer", nargs="?", default="current", help="digest, or how it begins (default: the current one)")
    forget = add("forget", "remove a video, and list what has seen it", _lazily("history_commands", "forget"))
    forget.add_argument("video", help="its path as `videos` has it, or its id")
    forget.add_argument("--yes", action="store_true", help="remove it; without this, only say what would go")
    up = add("up", "start Ray on loopback for this root", _lazily("serve_commands", "up"))
    up.add_argument("--ui", action="store_true", help="Dagster's pages too")
    ui = add("ui", "start Ray and Dagster's pages", _lazily("serve_commands", "ui"))
    for one in (up, ui):
        one.add_argument("--port", type=int, default=3000, help="of Dagster's pages (default: 3000, or a free one)")
    add("down", "end what was started for this root", _lazily("serve_commands", "down"))
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "yes")
    signal.signal(signal.SIGTERM, _terminated)
    args = parser().parse_args(argv)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # whatever a stage prints is progress
            question = from_arguments(args)
            answer: Answer = args.run(question, args)
    except DailiesError as e:
        print(f"dailies: {' '.join(str(e).split()) if e.exit_code == 2 else e}", file=sys.stderr)
        return e.exit_code
    except KeyboardInterrupt:
        print("dailies: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    try:
        if args.json:
            print(json.dumps(answer.json, sort_keys=True, default=str), flush=True)
        else:
            print(answer.text, flush=True)
    except BrokenPipeError:  # `dailies sql ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if answer.next and not args.json:
        print(f"next: {answer.next}", file=sys.stderr)
    return answer.exit_code


def _terminated(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
