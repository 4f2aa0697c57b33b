"""Commands about captions that are there: `dailies caption replay`."""

import argparse

from orchestration.ask import Answer, Ask, in_every_batch
from schemas.captions import CAPTIONS
from schemas.errors import UsageError


def replay(question: Ask, args: argparse.Namespace) -> Answer:
    """Make a sample of captions again and compare."""
    from captioner.replay import replay as make_again

    if args.sample < 1:
        raise UsageError(f"--sample is at least 1, got {args.sample}")
    store, names = question.readable(), in_every_batch(question, CAPTIONS)
    found = make_again(store, question.config().captioner, names, sample=args.sample, seed=args.seed)
    lines = [f"{found['equal']} of {found['compared']} captions came out the same"]
    for d in found["differ"]:
        lines.append(f"{d['clip_id']} [{d['batch']}] {', '.join(d['what'])}\n  was: {d['before']}\n  now: {d['after']}")
    then = "caption" if found["stale"] else "captioner evaluate"
    return Answer(found, "\n".join(lines), question.command(then), exit_code=1 if found["differ"] else 0)
