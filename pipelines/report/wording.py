"""How captions are worded: a watchdog over their distribution, because what a captioner always says a generator learns.

Of all captions that are ok: how they begin (and how many begin with talk of the video instead of what it shows), how
long they are, how much is said again and again (share of 4-grams of words that another caption has too often), how
many captions are the same.  A number beyond its bound is an alarm; bounds are ours, meant for free prose: captions in
the rendered world's language repeat themselves by design, and the section says what it saw either way.  Then what the
counterfactual test said of their claims, field by field.  Pure over texts.
Sources: DALL-E 3 section 3.1 (openings and lengths become the generator's), LTX-2's list of 56 prefixes to strip.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.report import page as html
from schemas.captions import CAPTION_CLAIMS, CAPTIONS, CaptionStatus

OPENING_WORDS = 3
MOST_BOILERPLATE = 0.02
"""Share of captions that may begin with talk of the video itself."""
MOST_ONE_OPENING = 0.25
"""Share of captions that may begin with the same three words."""
MOST_THE_SAME = 0.05
"""Share of captions that may be word for word another's."""
MOST_REPEATED = 0.5
"""Share of 4-grams that may be among those that every hundredth caption has."""
_BOILERPLATE = re.compile(
    r"^(in )?(this|the|a) (short |brief )?(video|clip|footage|scene|image|shot|frames?)\b.{0,20}"
    r"\b(shows?|depicts?|features?|captures?|begins?|opens?|is of|we see|displays?|presents?)|^(the video|this clip)\b",
    re.IGNORECASE,
)


def measure(texts: Sequence[str]) -> dict[str, Any]:
    """The watchdog's numbers; empty of no texts."""
    if not texts:
        return {}
    words = [re.findall(r"[\w']+", t.lower()) for t in texts]
    openings = Counter(" ".join(w[:OPENING_WORDS]) for w in words)
    lengths = sorted(len(w) for w in words)
    grams = [{tuple(w[i : i + 4]) for i in range(len(w) - 3)} for w in words]
    spread = Counter(g for some in grams for g in some)
    often = max(2, len(texts) // 100 + 1)
    total = sum(len(some) for some in grams)
    repeated = sum(spread[g] > often for some in grams for g in some)
    return {
        "captions": len(texts),
        "boilerplate": sum(bool(_BOILERPLATE.search(t.strip())) for t in texts) / len(texts),
        "top_opening": openings.most_common(1)[0][1] / len(texts),
        "openings": openings.most_common(5),
        "the_same": 1 - len(set(texts)) / len(texts),
        "repeated_4grams": repeated / total if total else 0.0,
        "words_p10": lengths[len(lengths) // 10],
        "words_median": lengths[len(lengths) // 2],
        "words_p90": lengths[len(lengths) * 9 // 10],
        "vocabulary": len({w for some in words for w in some}),
    }


def alarms(found: Mapping[str, Any]) -> list[str]:
    """What a person should look at."""
    if not found:
        return []
    bounds = (
        ("boilerplate", MOST_BOILERPLATE, "begin with talk of the video instead of what it shows"),
        ("top_opening", MOST_ONE_OPENING, f"begin with `{found['openings'][0][0]}`"),
        ("the_same", MOST_THE_SAME, "are word for word another clip's"),
        ("repeated_4grams", MOST_REPEATED, "of their 4-grams come in many captions"),
    )
    return [f"{found[name]:.0%} {what} (bound {most:.0%})" for name, most, what in bounds if found[name] > most]


def section(tables: Any) -> tuple[str, int, int]:
    """The report's part."""
    rows = [r for r in tables.rows(CAPTIONS, "short", "dense", "status") if r["status"] == CaptionStatus.OK]
    text = ""
    for kind in ("short", "dense"):
        found = measure([r[kind] for r in rows])
        if not found:
            continue
        text += "".join(html.note(f"{kind} captions: {alarm}") for alarm in alarms(found))
        shown = [(k.replace("_", " "), v) for k, v in found.items() if k != "openings"]
        text += f"<h3>{kind}</h3>" + html.table(("measure", "value"), shown)
        text += html.table(("opening", "captions"), found["openings"])
    return text + _claims(tables), 0, len(rows)


def _claims(tables: Any) -> str:
    by: dict[str, Counter[str]] = defaultdict(Counter)
    for row in tables.rows(CAPTION_CLAIMS, "claims"):
        for claim in row["claims"]:
            by[claim["field"]][claim["verdict"]] += 1
    words = ("supported", "contradicted", "unverifiable")
    body = [[field, *(counts[w] for w in words)] for field, counts in sorted(by.items())]
    return "<h3>claims</h3>" + html.table(("field", *words), body) if body else ""
