"""Commands about what runs: doctor, up, down, ui, demo."""

import argparse
import dataclasses

from orchestration import doctor as examination
from orchestration import services
from orchestration.ask import Answer, Ask, say
from schemas.store import Store


def doctor(question: Ask, args: argparse.Namespace) -> Answer:
    """Is everything here that a run needs?"""
    checks = examination.examine(question.root)
    ok = all(c.ok for c in checks)
    return Answer(
        {"ok": ok, "checks": [dataclasses.asdict(c) for c in checks]},
        examination.as_text(checks),
        question.command("demo") if ok else "",
        0 if ok else 1,
    )


def up(question: Ask, args: argparse.Namespace) -> Answer:
    """A Ray head on loopback, and Dagster's pages with --ui."""
    question.writable()
    head = services.up(question.root, say=say)
    answer = {"ray": head.dashboard, "gcs": head.gcs, "pid": head.process.pid, "token_path": head.token_path}
    text = f"Ray      {head.dashboard}\nlog      {head.log}\ntoken    {head.token_path}"
    if args.ui:
        running = services.ui(question.root, port=args.port, say=say)
        answer["dagster"] = running.url
        text += f"\nDagster  {running.url}"
    return Answer(answer, text, question.command("down"))


def ui(question: Ask, args: argparse.Namespace) -> Answer:
    """Ray and Dagster's pages over this root."""
    question.writable()
    head = services.up(question.root, say=say)
    running = services.ui(question.root, port=args.port, say=say)
    text = f"Dagster  {running.url}\nRay      {head.dashboard}\nlog      {running.log}"
    return Answer({"dagster": running.url, "ray": head.dashboard}, text, question.command("down"))


def down(question: Ask, args: argparse.Namespace) -> Answer:
    """End what `up`, `ui` or a killed demo started for this root."""
    ended = services.down(question.root)
    text = f"ended {', '.join(ended)}" if ended else f"nothing runs for {Store(question.root).root}"
    return Answer({"ended": ended}, text)


def demo(question: Ask, args: argparse.Namespace) -> Answer:
    """The whole graph, from footage to generated videos, through Dagster and Ray."""
    from orchestration.demo import run

    return run(question, footage=args.footage, through_dagster=not args.no_dagster)
