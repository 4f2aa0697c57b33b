"""The report: one HTML page of what went in, what was kept and why, what the models wrote and made.

Reads whatever exists; a section without tables is left out.  Clips are shown as three of their proxy frames,
generated videos as first, middle and last frame.  Everything is inside the page: `<root>/report/report.html`.
The same tables give the same page, byte for byte.  Cost: a few seconds; of the proxy frames only the row
groups of the clips that are shown are read.
"""

import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow.parquet as pq

from pipelines import report_page as html
from pipelines.execute import Context, Output, Stage
from schemas import batches
from schemas.captions import CAPTION_SCORES, CAPTIONS
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
from schemas.table import Table
from schemas.verdicts import SELECTIONS, VERDICTS
from schemas.videos import FRAMES, SCANS, VIDEOS

PAGE = "report/report.html"
_CHECKPOINTS = (CLIP_CHECKPOINT, CAPTIONER_CHECKPOINT, AUTOENCODER_CHECKPOINT, DIT_CHECKPOINT)
_READS = (
    VIDEOS, SCANS, SHOTS, CLIPS, SELECTIONS, VERDICTS, DUPLICATES, CLIP_FILES, CAPTIONS, CAPTION_SCORES, MANIFEST,
    LATENTS, LEDGER, SAMPLES, EVALUATION, FRAMES, *_CHECKPOINTS,
)  # fmt: skip
_KEPT, _PER_REASON, _SAMPLES, _SHEETS = 24, 6, 24, 12
_SYNTHETIC_ONLY = (
    "The models behind {what} were trained on the synthetic world alone. On real footage their words and scores mean "
    "little: name real models (README.md, `Real models`) before you rely on them."
)


def run(context: Context) -> Output:
    """Write the page, and one row per section."""
    tables = _Tables(context)
    sections = [(name, *make(tables)) for name, make in _SECTIONS]
    lead = _lead(tables)
    text = html.page("dailies: what one run made", [(name, body) for name, body, _, _ in sections], lead).encode()
    digest = hashlib.sha256(text).hexdigest()[:ID_DIGITS]
    context.store.write_bytes(text, *PAGE.split("/"))
    rows = [
        ReportRow(section=name, position=i, pictures=pictures, rows=count, page=PAGE, page_digest=digest)
        for i, (name, body, pictures, count) in enumerate(sections)
        if body
    ]
    return Output({"report": REPORT.from_rows(rows)}, {"page": PAGE, "page_bytes": len(text), "sections": len(rows)})


class _Tables:
    """Tables as rows, each read once, empty where it was never made."""

    def __init__(self, context: Context) -> None:
        self.context, self.store = context, context.store
        self._read: dict[tuple[str, tuple[str, ...]], list[dict[str, Any]]] = {}

    def rows(self, table: Table, *columns: str) -> list[dict[str, Any]]:
        key = (table.name, columns)
        if key not in self._read:
            found = self.context.read_optional(table, list(columns) or None)
            self._read[key] = found.to_pylist() if found is not None else []
        return self._read[key]

    def frames(self, clips: Sequence[Mapping[str, Any]]) -> dict[str, list[bytes]]:
        """First, middle and last proxy frame of some clips, by clip id."""
        found: dict[str, list[bytes]] = {}
        videos = sorted({c["video_id"] for c in clips})
        pictures: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
        for batch in self.store.batches(FRAMES) if videos else []:
            path = self.store.table_path(FRAMES, batch)
            read = pq.read_table(
                path,
                columns=["video_id", "frame_index", "jpeg"],
                filters=[("video_id", "in", videos)],
                filesystem=self.store.fs,
                partitioning=None,
            )
            for video, index, jpeg in zip(*(read[c].to_pylist() for c in ("video_id", "frame_index", "jpeg"))):
                pictures[video].append((index, jpeg))
        for clip in clips:
            inside = [j for i, j in sorted(pictures[clip["video_id"]]) if clip["start_frame"] <= i < clip["end_frame"]]
            found[clip["clip_id"]] = (
                [inside[i] for i in sorted({0, len(inside) // 2, len(inside) - 1})] if inside else []
            )
        return found


_Section = tuple[str, int, int]


def _lead(tables: _Tables) -> str:
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


def _funnel(tables: _Tables) -> _Section:
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


def _sources(tables: _Tables) -> _Section:
    rows = tables.rows(VIDEOS, "path", "status", "reason", "width", "height", "fps", "duration_s", "duplicate_of")
    bad = [r for r in rows if r["status"] != "ok" or r["duplicate_of"]]
    by = Counter(r["status"] for r in rows)
    text = "<p>" + html.escape(", ".join(f"{k} {v}" for k, v in sorted(by.items()))) + "</p>" if rows else ""
    text += html.table(
        ("file", "status", "why"),
        ([r["path"], r["status"], r["reason"] or f"same packets as {r['duplicate_of']}"] for r in bad[:40]),
    )
    return text, 0, len(rows)


def _rules(tables: _Tables) -> _Section:
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


def _clip_rows(tables: _Tables) -> dict[str, dict[str, Any]]:
    names = ("clip_id", "video_id", "start_frame", "end_frame", "start_s", "end_s", "width", "height")
    return {r["clip_id"]: r for r in tables.rows(CLIPS, *names)}


def _kept(tables: _Tables) -> _Section:
    kept = sorted(r["clip_id"] for r in tables.rows(SELECTIONS, "clip_id", "verdict") if r["verdict"] == "keep")
    clips = _clip_rows(tables)
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


def _rejected(tables: _Tables) -> _Section:
    clips = _clip_rows(tables)
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
    def make(tables: _Tables) -> _Section:
        rows = [r for r in tables.rows(EVALUATION) if r["group"] in groups]
        text = ""
        for group in groups:
            found = html.measures([r for r in rows if r["group"] == group])
            text += f"<h3>{html.escape(group)}</h3>{found}" if found else ""
        return text, 0, len(rows)

    return make


def _loss(tables: _Tables) -> _Section:
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


def _samples(tables: _Tables) -> _Section:
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


def _sheets(tables: _Tables) -> _Section:
    store = tables.store
    paths = sorted(p for p in store.fs.glob(store.at("blobs", "pictures", "**", "*.jpg")) if "/report/" not in p)
    text = ""
    for path in paths[:_SHEETS]:
        relative = path[len(store.path) :].lstrip("/")
        name = relative.removeprefix("blobs/pictures/").removesuffix(".jpg")
        text += f"<h3>{html.escape(name)}</h3>{html.image(store.read_bytes(relative), 'sheet', name)}"
    return text, min(len(paths), _SHEETS), 0


def _models(tables: _Tables) -> _Section:
    rows = [r for t in _CHECKPOINTS for r in tables.rows(t)]
    body = [[r["kind"], r["digest"], r["knows"], r["steps"], r["trained_on"], r["metrics"][:300]] for r in rows]
    return html.table(("model", "weights", "knows", "steps", "trained on", "measured"), body), 0, len(rows)


_SECTIONS = (
    ("From footage to training", _funnel),
    ("Generated videos", _samples),
    ("What the text controls", _measured("generated", "control")),
    ("Loss", _loss),
    ("Kept clips and their captions", _kept),
    ("Rejected clips, by rule", _rejected),
    ("Rules", _rules),
    ("Boundaries, policy and captions against the truth", _measured("boundaries", "policy", "captions", "training")),
    ("Models", _models),
    ("Sources", _sources),
    ("Contact sheets", _sheets),
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
    version=1,
    reads=(),
    writes=(REPORT,),
    run=run,
    settings=lambda config: None,
    optional=_READS,
    doc="One HTML page on everything that was made.",
)
STAGES = (STAGE,)
