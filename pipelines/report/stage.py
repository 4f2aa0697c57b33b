"""The report: one HTML page of what went in, what was kept and why, what the models wrote and made.

Reads whatever exists; a section without tables is left out.  Clips are shown as three of their proxy frames,
generated videos as first, middle and last frame.  Everything is inside the page: `<root>/report/report.html`.
The same tables give the same page, byte for byte, but for the section on cost, which the page's digest leaves out.
The parts are in `report_policy.py` (funnel, thresholds, scores), `report_cost.py` and here.  Cost: a few seconds;
of the proxy frames only the row groups of the videos that are shown are read.
"""

import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from pipelines.execute import Context, Output, Stage
from pipelines.policy.scoreboard import SCOREBOARD
from pipelines.report import combinations, wording
from pipelines.report import cost as report_cost
from pipelines.report import page as html
from pipelines.report import policy as report_policy
from pipelines.report.cost import COST
from pipelines.report.tables import Section, Tables
from schemas import batches
from schemas.captions import CAPTION_CLAIMS, CAPTION_SCORES, CAPTIONS
from schemas.checkpoints import AUTOENCODER_CHECKPOINT, CAPTIONER_CHECKPOINT, CLIP_CHECKPOINT, DIT_CHECKPOINT
from schemas.clips import CLIP_FILES, CLIPS
from schemas.ids import ID_DIGITS
from schemas.latents import LATENTS
from schemas.ledger import LEDGER
from schemas.manifest import MANIFEST
from schemas.report import REPORT, ReportRow
from schemas.samples import EVALUATION, SAMPLES
from schemas.scores import DUPLICATES
from schemas.shots import SHOTS
from schemas.verdicts import SELECTIONS, VERDICTS
from schemas.videos import FRAMES, SCANS, VIDEOS

PAGE = "report/report.html"
_CHECKPOINTS = (CLIP_CHECKPOINT, CAPTIONER_CHECKPOINT, AUTOENCODER_CHECKPOINT, DIT_CHECKPOINT)
_READS = (
    VIDEOS, SCANS, SHOTS, CLIPS, SELECTIONS, VERDICTS, SCOREBOARD, DUPLICATES, CLIP_FILES, CAPTIONS, CAPTION_SCORES,
    CAPTION_CLAIMS, MANIFEST, LATENTS, LEDGER, SAMPLES, EVALUATION, FRAMES, *_CHECKPOINTS,
)  # fmt: skip
_KEPT, _PER_REASON, _SAMPLES, _SHEETS = 24, 6, 24, 12
_SYNTHETIC_ONLY = (
    "The models behind {what} were trained on the synthetic world alone. On real footage their words and scores mean "
    "little: name real models (README.md, `Real models`) before you rely on them."
)


def run(context: Context) -> Output:
    """Write the page, and one row per section."""
    tables = Tables(context)
    sections = [s for name, make in _SECTIONS for s in _made(name, make(tables)) if s.text]
    title, lead = "dailies: what one run made", _lead(tables)
    same = html.page(title, [(s.name, s.text) for s in sections if s.name != COST], lead)
    lead += html.contents([s.name for s in sections])
    text = html.page(title, [(s.name, s.text) for s in sections], lead).encode()
    digest = hashlib.sha256(same.encode()).hexdigest()[:ID_DIGITS]
    context.store.write_bytes(text, *PAGE.split("/"))
    rows = [
        ReportRow(section=s.name, position=i, pictures=s.pictures, rows=s.rows, page=PAGE, page_digest=digest)
        for i, s in enumerate(sections)
    ]
    return Output({"report": REPORT.from_rows(rows)}, {"page": PAGE, "page_bytes": len(text), "sections": len(rows)})


_Section = tuple[str, int, int]


def _made(name: str, made: "_Section | list[Section]") -> list[Section]:
    """A part that makes one section gives its text; one that makes several gives them named."""
    return made if isinstance(made, list) else [Section(name, *made)]


def _lead(tables: Tables) -> str:
    store = tables.store
    known = [batches.get(store, name) for name in batches.names(store)]
    what = ", ".join(f"{b.name} ({b.kind})" for b in known) or "none"
    lead = f"<p>Batches: {html.escape(what)}.</p>"
    synthetic = sorted({r["kind"] for t in _CHECKPOINTS for r in tables.rows(t) if r["knows"] == batches.SYNTHETIC})
    if synthetic and any(b.kind == batches.FOOTAGE for b in known):
        lead += html.note(_SYNTHETIC_ONLY.format(what=", ".join(synthetic)))
    elif synthetic:
        lead += html.note(
            "Everything here is the synthetic world that this project renders; its models "
            f"({', '.join(synthetic)}) know nothing else."
        )
    return lead


def _funnel(tables: Tables) -> _Section:
    chosen = Counter(r["verdict"] for r in tables.rows(SELECTIONS, "verdict"))
    steps = [
        ("source files", len(tables.rows(VIDEOS, "path"))),
        ("decoded", sum(r["status"] in ("ok", "damaged") for r in tables.rows(SCANS, "status"))),
        ("shots", len(tables.rows(SHOTS, "shot_id"))),
        ("clips", len(tables.rows(CLIPS, "clip_id"))),
        ("kept by the policy", chosen["keep"]),
        ("cut to files", sum(r["status"] == "ok" for r in tables.rows(CLIP_FILES, "status"))),
        ("captioned", sum(r["status"] == "ok" for r in tables.rows(CAPTIONS, "status"))),
        ("in the manifest", len(tables.rows(MANIFEST, "clip_id"))),
        ("encoded to latents", sum(r["status"] == "ok" for r in tables.rows(LATENTS, "status"))),
        ("seen in training", len({r["clip_id"] for r in tables.rows(LEDGER, "clip_id")})),
    ]
    steps = [(name, count) for name, count in steps if count]
    return html.funnel(steps), 0, sum(count for _, count in steps)


def _sources(tables: Tables) -> _Section:
    rows = tables.rows(VIDEOS, "path", "status", "reason", "width", "height", "fps", "duration_s", "duplicate_of")
    bad = [r for r in rows if r["status"] != "ok" or r["duplicate_of"]]
    by = Counter(r["status"] for r in rows)
    text = "<p>" + html.escape(", ".join(f"{k} {v}" for k, v in sorted(by.items()))) + "</p>" if rows else ""
    text += html.table(
        ("file", "status", "why"),
        ([r["path"], r["status"], r["reason"] or f"same packets as {r['duplicate_of']}"] for r in bad[:40]),
    )
    return text, 0, len(rows)


def _rules(tables: Tables) -> _Section:
    rows = tables.rows(VERDICTS, "rule", "score_column", "minimum", "maximum", "verdict")
    by: dict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    for r in rows:
        by[r["rule"], r["score_column"], r["minimum"], r["maximum"]][r["verdict"]] += 1
    body = [
        [*key, counts["keep"], counts["reject"], counts["error"], counts["skipped"]]
        for key, counts in sorted(by.items(), key=lambda kv: (-kv[1]["reject"], str(kv[0])))
    ]
    columns = ("rule", "score", "at least", "at most", "keep", "reject", "error", "skipped")
    return html.table(columns, body), 0, len(rows)


def _kept(tables: Tables) -> _Section:
    kept = sorted(r["clip_id"] for r in tables.rows(SELECTIONS, "clip_id", "verdict") if r["verdict"] == "keep")
    clips = tables.clips()
    chosen = [clips[c] for c in _spread(kept, _KEPT) if c in clips]
    written = {r["clip_id"]: r for r in tables.rows(CAPTIONS, "clip_id", "dense", "status", "reason")}
    pictures = tables.frames(chosen)
    items = []
    for clip in chosen:
        caption = written.get(clip["clip_id"])
        text = _span(clip)
        if caption is not None:
            text += f": {caption['dense'] or caption['status'] + ' ' + caption['reason']}"
        items.append((pictures[clip["clip_id"]], text))
    return html.strips(items), sum(len(p) for p, _ in items), len(kept)


def _rejected(tables: Tables) -> _Section:
    clips = tables.clips()
    by_reason: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for r in tables.rows(VERDICTS, "clip_id", "rule", "score", "minimum", "maximum", "verdict", "reason"):
        if r["verdict"] == "reject" and r["clip_id"] in clips:
            by_reason[r["rule"]].append(r)
    shown = {
        rule: _spread(sorted(rows, key=lambda r: r["clip_id"]), _PER_REASON) for rule, rows in sorted(by_reason.items())
    }
    pictures = tables.frames([clips[r["clip_id"]] for rows in shown.values() for r in rows])
    text, count = "", 0
    for rule, rows in shown.items():
        items = [(pictures[r["clip_id"]], f"{_span(clips[r['clip_id']])}: {r['reason']}") for r in rows]
        count += sum(len(p) for p, _ in items)
        text += f"<h3>{html.escape(rule)} <span class='soft'>{len(by_reason[rule])}</span></h3>{html.strips(items)}"
    return text, count, sum(map(len, by_reason.values()))


def _measured(*groups: str) -> Any:
    def make(tables: Tables) -> _Section:
        rows = [r for r in tables.rows(EVALUATION) if r["group"] in groups]
        text = ""
        for group in groups:
            found = html.measures([r for r in rows if r["group"] == group])
            text += f"<h3>{html.escape(group)}</h3>{found}" if found else ""
        return text, 0, len(rows)

    return make


def _loss(tables: Tables) -> _Section:
    rows = tables.rows(LEDGER, "step", "loss")
    by: dict[int, list[float]] = defaultdict(list)
    for r in rows:
        by[r["step"]].append(r["loss"])
    means = [(step, sum(v) / len(v)) for step, v in sorted(by.items())]
    width = max(len(means) // 100, 1)
    smooth = [
        (float(means[i][0]), sum(m for _, m in means[i : i + width]) / len(means[i : i + width]))
        for i in range(0, len(means), width)
    ]
    return html.curve(smooth, f"loss of the video transformer over {len(means)} steps"), 0, len(rows)


def _samples(tables: Tables) -> _Section:
    rows = sorted(tables.rows(SAMPLES), key=lambda r: r["prompt_id"])
    made = _spread([r for r in rows if r["status"] == "ok"], _SAMPLES)
    items: list[tuple[list[bytes], str]] = []
    for r in made:
        try:
            pictures = _ends(tables.store.fetch(r["path"]))
        except (OSError, ValueError) as e:
            items.append(([], f"{r['prompt']}: {e}"))
            continue
        items.append((pictures, f"{r['width']}x{r['height']}, {r['num_frames']} frames: {r['prompt']}"))
    failed = [[r["prompt"], r["reason"]] for r in rows if r["status"] != "ok"]
    text = html.strips(items) + html.table(("prompt", "why it failed"), failed[:20])
    return text, sum(len(p) for p, _ in items), len(rows)


def _sheets(tables: Tables) -> _Section:
    store = tables.store
    paths = sorted(p for p in store.fs.glob(store.at("blobs", "pictures", "**", "*.jpg")) if "/report/" not in p)
    text = ""
    for path in paths[:_SHEETS]:
        relative = path[len(store.path) :].lstrip("/")
        name = relative.removeprefix("blobs/pictures/").removesuffix(".jpg")
        text += f"<h3>{html.escape(name)}</h3>{html.image(store.read_bytes(relative), 'sheet', name)}"
    return text, min(len(paths), _SHEETS), 0


def _models(tables: Tables) -> _Section:
    rows = [r for t in _CHECKPOINTS for r in tables.rows(t)]
    body = [[r["kind"], r["digest"], r["knows"], r["steps"], r["trained_on"], r["metrics"][:300]] for r in rows]
    return html.table(("model", "weights", "knows", "steps", "trained on", "measured"), body), 0, len(rows)


_SECTIONS = (
    ("From footage to training", _funnel),
    ("Generated videos", _samples),
    ("What the text controls", _measured("generated", "control")),
    ("Prompts whose combination no training clip shows, and the others", combinations.section),
    ("Loss", _loss),
    ("Where clips fall", report_policy.fall),
    ("At each threshold", report_policy.thresholds),
    ("Kept clips and their captions", _kept),
    ("How captions are worded, and what was found of their claims", wording.section),
    ("Rejected clips, by rule", _rejected),
    ("Rules", _rules),
    ("Scores", report_policy.scores),
    ("Boundaries, policy and captions against the truth", _measured("boundaries", "policy", "captions", "training")),
    ("Models", _models),
    ("Sources", _sources),
    ("Contact sheets", _sheets),
    (COST, report_cost.cost),
)


def _ends(path: str) -> list[bytes]:
    """First, middle and last frame of a file as JPEGs."""
    from PIL import Image

    from pipelines.video.read import read_frames

    frames, _ = read_frames(path)
    jpegs = []
    for index in sorted({0, len(frames) // 2, len(frames) - 1}):
        buffer = io.BytesIO()
        Image.fromarray(frames[index]).save(buffer, "JPEG", quality=88)
        jpegs.append(buffer.getvalue())
    return jpegs


def _spread(items: Iterable[Any], most: int) -> list[Any]:
    """At most so many, evenly over all."""
    known = list(items)
    step = max(1.0, len(known) / most)
    return [known[int(i * step)] for i in range(min(most, len(known)))]


def _span(clip: Mapping[str, Any]) -> str:
    return f"{clip['clip_id'][:8]}, {clip['width']}x{clip['height']}, {clip['end_s'] - clip['start_s']:.1f} s"


STAGE = Stage(
    name="report",
    version=5,  # combinations that no training clip shows
    reads=(),
    writes=(REPORT,),
    run=run,
    settings=lambda config: None,
    optional=_READS,
    outside=lambda store, batch: report_cost.floor(store),
    doc="One HTML page on everything that was made.",
)
STAGES = (STAGE,)
