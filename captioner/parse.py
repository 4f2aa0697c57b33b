"""Model text to (status, reason, fields): the only place where untrusted text enters.

In order: empty, cut short (the backend ran out of budget), control tokens, loops, refusals, and then the
caption language.  A general model's free text is kept with no fields and status ok, unless fields are asked for.
A caption is never mended here: what does not hold is refused with a reason.

Loops: any run of four words that comes four times, or text that deflates to under a sixth (English prose
reaches about a half; facts/captioner.md 4 lists how often pretrained captioners loop).
"""

import dataclasses
import re
import zlib
from collections import Counter

from schemas.captions import CaptionStatus, Fields
from schemas.language import Unparsable, parse

RUN_WORDS, RUN_TIMES = 4, 4
ZLIB_RATIO, ZLIB_FROM_CHARACTERS = 6.0, 200  # short texts carry zlib's header
_CONTROL = re.compile(r"<\|?/?[a-z_]+\|?>|\[/?INST\]", re.IGNORECASE)
_REFUSALS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"^(i'm|i am|we're) (very )?(sorry|afraid|unable|not able)",
        r"^(sorry|unfortunately|apologies)\b",
        r"\bas an? (ai|artificial intelligence|language model|assistant)\b",
        r"\bi (can't|cannot|can not|won't|am unable to|'m unable to) "
        r"(describe|help|assist|view|see|watch|provide|comply)",
        r"\b(no|without) (video|image|images|frames?) (was|were|has been|have been)? ?(provided|attached|given)",
    )
)


@dataclasses.dataclass(frozen=True, slots=True)
class Parsed:
    """A text, judged."""

    status: CaptionStatus
    reason: str = ""
    fields: Fields | None = None


def read(text: str, finish_reason: str, *, require_fields: bool) -> Parsed:
    """Judge one caption."""
    said = text.strip()
    if not said:
        return Parsed(CaptionStatus.UNPARSABLE, "the model wrote nothing")
    if found := repetition(said):  # before truncated: a loop that fills the budget is a loop
        return Parsed(CaptionStatus.REPETITIVE, found)
    if finish_reason == "length":
        return Parsed(CaptionStatus.TRUNCATED, "the token budget ran out")
    if control := _CONTROL.search(said):
        return Parsed(CaptionStatus.UNPARSABLE, f"a control token in the text: `{control.group()}`")
    if any(p.search(said) for p in _REFUSALS):
        return Parsed(CaptionStatus.REFUSED, f"the model declined: `{said[:80]}`")
    try:
        return Parsed(CaptionStatus.OK, "", parse(said))
    except Unparsable as e:
        if require_fields:
            return Parsed(CaptionStatus.UNPARSABLE, str(e))
        return Parsed(CaptionStatus.OK)


def repetition(text: str) -> str:
    """Why a text counts as a loop; empty if it does not."""
    words = re.findall(r"\w+", text.lower())
    runs = Counter(tuple(words[i : i + RUN_WORDS]) for i in range(len(words) - RUN_WORDS + 1))
    if runs:
        run, times = max(runs.items(), key=lambda item: item[1])
        if times >= RUN_TIMES:
            return f"`{' '.join(run)}` comes {times} times"
    raw = text.encode()
    if len(raw) >= ZLIB_FROM_CHARACTERS and (ratio := len(raw) / len(zlib.compress(raw))) > ZLIB_RATIO:
        return f"deflates {ratio:.1f}-fold"
    return ""
