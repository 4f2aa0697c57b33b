"""`dailies expand`: a short prompt as a dense caption in the style of this root's captions, and what was added."""

import argparse
import dataclasses
from typing import TYPE_CHECKING

from orchestration.ask import Answer, Ask
from schemas.errors import UsageError

if TYPE_CHECKING:
    from captioner.expand.expander import Expansion


def expand(question: Ask, args: argparse.Namespace) -> Answer:
    """Expand one prompt."""
    if not args.prompt.strip():
        raise UsageError("the prompt is empty: there is nothing to expand")
    found = expanded(question, args.prompt, args.seed)
    hint = question.command(f"sample --prompt {args.prompt!r} --expand --seed {args.seed}")
    return Answer(dataclasses.asdict(found), as_text(found), hint)


def expanded(question: Ask, prompt: str, seed: int) -> "Expansion":
    """The expansion by this root's expander.

    Raises:
        UsageError: If no expansion keeps the prompt's facts.
        MissingTable: If there is no expander yet.
    """
    from captioner.expand.stage import open_expander

    return open_expander(question.readable(), question.config().captioner.expand).expand(prompt, seed)


def as_text(found: "Expansion") -> str:
    """For people: both texts, what was added, and what had to be put back."""
    lines = [f"given     {found.given}", f"expanded  {found.expanded}"]
    lines.append(f"added     {'; '.join(found.added) or 'nothing'}")
    if found.repaired:
        lines.append(f"put back  {'; '.join(found.repaired)} (no draft had kept it)")
    return "\n".join(lines)
