"""`dailies sample`: one video from a prompt, with the root's current models."""

import argparse
import re

from orchestration.ask import Answer, Ask
from schemas.errors import UsageError

_DEFAULT_SIZE = "64x64"


def sample(question: Ask, args: argparse.Namespace) -> Answer:
    """Make one video and say where it is."""
    width, height = size(args.size or _DEFAULT_SIZE)
    if args.seconds is not None and not args.seconds > 0:
        raise UsageError(f"--seconds takes a length above 0, got {args.seconds}")
    if not args.prompt.strip():
        raise UsageError("--prompt is empty")
    store = question.readable()
    config = question.config().trainer.sampling
    from trainer.sample_stage import sample_one

    path = sample_one(
        store, config, prompt=args.prompt, width=width, height=height, seconds=args.seconds, seed=args.seed
    )
    found = {"path": store.at(path), "prompt": args.prompt, "width": width, "height": height, "seed": args.seed}
    return Answer(found, str(found["path"]), question.command("evaluate"))


def credentials(question: Ask, args: argparse.Namespace) -> Answer:
    """What a file says of itself, and whether it is as it was signed; exit code 1 if it is not."""
    from trainer.credentials import read

    found = read(args.file)
    made = found["generation"] or {}
    lines = [f"state        {found['state']}{': ' + ', '.join(found['problems']) if found['problems'] else ''}"]
    lines += [f"signer       {found['signer']}", *(f"{k:<12} {v}" for k, v in made.items())]
    return Answer({"path": args.file, **found}, "\n".join(lines), "", 0 if found["state"] != "Invalid" else 1)


def size(text: str) -> tuple[int, int]:
    """`WIDTHxHEIGHT` in pixels.

    Raises:
        UsageError: If it does not read so.
    """
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text.strip())
    if not match or not int(match[1]) or not int(match[2]):
        raise UsageError(f"--size takes WIDTHxHEIGHT in pixels, such as 96x64, got `{text}`")
    return int(match[1]), int(match[2])
