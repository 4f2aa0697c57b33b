"""Model text to (status, reason, fields): the only place where untrusted text enters.

In order: nothing written, a loop, cut short (the backend ran out of budget), control tokens and characters,
instructions (a model that read them on the screen repeats or obeys them), refusals; then JSON against the record's
schema, the caption language, and for free prose the language it is written in.  A general model's free text is
kept with no fields and status ok, unless fields are asked for.  A caption is never mended here: what does not hold
is refused with a reason.

Loops: any run of four words that comes four times, or text that deflates to under a sixth (English prose
reaches about a half; facts/captioner.md 4 lists how often pretrained captioners loop).  Language: py3langid's
posterior of the wanted one; English captions of five words have at least 0.05, one of another language under 0.01.
What stands in quotes may be text on the screen: it may say anything but control tokens.  In a record everything stands
in quotes, so its values are judged once they are read, as `on_screen_text` is the one that may hold instructions.
"""

import dataclasses
import functools
import re
import unicodedata
import zlib
from collections import Counter
from typing import Any

from captioner.record import NoRecord, looks_like_json, read_record
from schemas.captions import CaptionStatus, Fields
from schemas.language import check, claims, parse

RUN_WORDS, RUN_TIMES = 4, 4
ZLIB_RATIO, ZLIB_FROM_CHARACTERS = 6.0, 200  # short texts carry zlib's header
LEAST_LANGUAGE = 0.01
LANGUAGE_FROM_LETTERS = 12  # below that a name or two decides
_CONTROL = re.compile(r"<\|?/?[a-z_]+\|?>|\[/?INST\]|<</?SYS>>|^\s*(?:assistant|user|system)\s*:", re.IGNORECASE)
_LAYOUT = "\n\t\r"
_QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|`[^`]*`")
_INSTRUCTIONS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\b(ignore|disregard|forget)\b.{0,30}\b(previous|prior|above|earlier|preceding|all)\b.{0,20}"
        r"\b(instruction|prompt|rule|direction|message)",
        r"\b(system|developer) prompt\b",
        r"\byou are now\b",
        r"\bnew instructions?\s*:",
        r"\bas (you )?(instructed|requested)\b",
        r"\b(print|output|reveal|repeat|say) (only|exactly|the following|your instructions|the word)\b",
        r"\bdo not describe\b",
    )
)
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
    was_json: bool = False
    """It came as a record; its text is still to be rendered."""


def read(text: str, finish_reason: str, *, require_fields: bool, language: str = "en") -> Parsed:
    """Judge one caption.

    Args:
        language: ISO 639-1 code of the language that free prose must be in; empty for any.
    """
    said = text.strip()
    bad = _bad(said, finish_reason)
    if bad is not None:
        return bad
    if looks_like_json(said):
        try:
            fields = read_record(said)
        except NoRecord as e:
            return Parsed(CaptionStatus.UNPARSABLE, str(e))
        return _bad_value(fields) or Parsed(CaptionStatus.OK, "", fields, was_json=True)
    try:
        return Parsed(CaptionStatus.OK, "", check(parse(said)))  # what cannot be said again was not read rightly
    except ValueError as e:
        why = str(e) if require_fields else another_language(said, language)
        return Parsed(CaptionStatus.UNPARSABLE, why) if why else Parsed(CaptionStatus.OK)


def _bad(said: str, finish_reason: str) -> Parsed | None:
    """What is wrong with a text whatever it should say."""
    if not said:
        return Parsed(CaptionStatus.UNPARSABLE, "the model wrote nothing")
    if found := repetition(said):  # before truncated: a loop that fills the budget is a loop
        return Parsed(CaptionStatus.REPETITIVE, found)
    if finish_reason == "length":
        return Parsed(CaptionStatus.TRUNCATED, "the token budget ran out")
    if control := _control(said):
        return Parsed(CaptionStatus.UNPARSABLE, f"a control token in the text: `{control}`")
    if order := _instruction(_QUOTED.sub("", said)):
        return Parsed(CaptionStatus.UNPARSABLE, f"instructions in the text: `{order}`")
    if any(p.search(said) for p in _REFUSALS):
        return Parsed(CaptionStatus.REFUSED, f"the model declined: `{said[:80]}`")
    if not any(c.isalnum() for c in said):
        return Parsed(CaptionStatus.UNPARSABLE, f"no words in the text: `{said[:40]}`")
    return None


def _bad_value(fields: Fields) -> Parsed | None:
    """What is wrong with a value of a record, which its JSON may have hidden behind quotes and escapes."""
    for field, value in claims(fields):
        if control := _control(value):
            return Parsed(CaptionStatus.UNPARSABLE, f"{field}: a control token in the text: `{control}`")
        if field != "on_screen_text" and (order := _instruction(value)):
            return Parsed(CaptionStatus.UNPARSABLE, f"{field}: instructions in the text: `{order}`")
    return None


def _instruction(text: str) -> str:
    """The first instruction in a text; empty if there is none."""
    return next((m.group()[:80] for p in _INSTRUCTIONS if (m := p.search(text))), "")


def _control(text: str) -> str:
    """The first control token, or the name of the first control character; empty if there is none."""
    if token := _CONTROL.search(text):
        return token.group().strip()
    for c in text:  # Cc control, Cf invisible or turning the text around, Cs and Co no text at all
        kind = unicodedata.category(c)
        if c == "\ufffd" or (c not in _LAYOUT and kind in ("Cc", "Cf", "Cs", "Co")):
            return f"U+{ord(c):04X}"
    return ""


def repetition(text: str) -> str:
    """Why a text counts as a loop; empty if it does not."""
    words = re.findall(r"\w+", text.lower())
    runs = Counter(tuple(words[i : i + RUN_WORDS]) for i in range(len(words) - RUN_WORDS + 1))
    if runs:
        run, times = max(runs.items(), key=lambda item: item[1])
        if times >= RUN_TIMES:
            return f"`{' '.join(run)}` comes {times} times"
    raw = text.encode(errors="replace")
    if len(raw) >= ZLIB_FROM_CHARACTERS and (ratio := len(raw) / len(zlib.compress(raw))) > ZLIB_RATIO:
        return f"deflates {ratio:.1f}-fold"
    return ""


def another_language(text: str, language: str) -> str:
    """Why a text counts as written in another language; empty if it does not, or is too short to tell."""
    if not language:
        return ""
    letters = [c for c in text if c.isalpha()]
    wide = sum(ord(c) >= 0x3000 for c in letters)  # a word of Chinese or Japanese is a letter or two
    if len(letters) + 2 * wide < LANGUAGE_FROM_LETTERS:
        return ""
    ranked = _identifier().rank(text)
    known = {str(code): float(p) for code, p in ranked}
    if language in known and known[language] >= LEAST_LANGUAGE:
        return ""
    return f"written in `{ranked[0][0]}`, not `{language}`"


@functools.cache
def _identifier() -> Any:
    """Loaded at the first prose (two seconds); a captioner of our own writes none."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
