"""Commands about captions and their claims: `dailies caption replay`, `dailies captioner verify-claims`."""

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


def verify_claims(question: Ask, args: argparse.Namespace) -> Answer:
    """The counterfactual test on planted wrong claims and on true ones."""
    import torch

    from captioner.train.examine import trained
    from captioner.train.planted import measure

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _, loaded, pairs = trained(question.readable())
        found = measure(loaded, pairs[: args.pairs], question.config().captioner.verify)
    finally:
        torch.set_num_threads(before)
    lines = []
    for name, title in (
        ("planted", "planted wrong claims that are contradicted"),
        ("false_alarms", "true claims that are contradicted"),
        ("own_errors", "the captioner's own wrong claims that are contradicted"),
        ("own_right", "the captioner's own right claims that are contradicted"),
    ):
        lines.append(title)
        for group, r in found[name].items():
            lines.append(f"  {group:<18} {r['rate']:.3f} [{r['low']:.3f}, {r['high']:.3f}]  n {r['n']}")
    return Answer(found, "\n".join(lines), question.command("caption"))
