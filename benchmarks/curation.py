"""What curation costs, beside the floor and beside what others do.

    python -m benchmarks.curation scan      scan beside `ffmpeg -f null` on the same files; decode passes per source
    python -m benchmarks.curation chain     whole curation at 27 % keep beside a decode-per-stage, encode-first chain,
                                            and beside PySceneDetect's own command with splitting
    python -m benchmarks.curation memory    peak memory against the length of a film, driver and worker
    python -m benchmarks.curation rerun     curation again with nothing changed

CPU seconds are user and system, of this process and its children, imports left out on our side (a command's
start is in the others').  Runs alternate and the ratio is the median.  Everything decodes with one thread.
Films are made once in the work folder, out of real footage.  Results go to benchmarks/results/ with --keep.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import chain, footage, memory
from benchmarks.machine import Stopwatch, call, cpu_s, decode_once, ffmpeg, keep, machine, say, timed
from schemas.errors import DailiesError, UsageError

KEEP_SHARE = 0.27
_CLASSICAL = ("videos", "scan", "shots", "signal_scores", "fingerprints", "duplicates", "verdicts", "clip_files")
_BEFORE_POLICY = 6


def scan_cost(words: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Scan beside plain decoding, on 1080p and on all real files that decode."""
    from pipelines.scan.scan import ScanConfig, scan
    from pipelines.scan.stage import SCAN_STAGE
    from pipelines.video.probe import ProbeConfig, probe
    from pipelines.video.source import list_files, videos_and_sidecars

    hd = footage.full_hd(words.footage, work, words.seconds)
    groups = {"full_hd": [hd], "mixed": []}
    for listed in videos_and_sidecars(list_files(words.footage))[0]:
        if listed.path not in footage.LEFT_OUT:
            groups["mixed"].append(Path(words.footage, listed.path))
    start = statistics.median(timed(lambda: call([ffmpeg(), "-version"]))[0] for _ in range(5))
    found: dict[str, Any] = {"left_out": footage.LEFT_OUT, "ffmpeg_start_cpu_s": round(start, 3)}
    warm = probe(str(hd.parent), hd.name, 0, ProbeConfig())
    scan(warm, ScanConfig())
    measured, watch = _Measured(work / f"scan_pairs_v{SCAN_STAGE.version}.json"), Stopwatch()
    for name, paths in groups.items():
        rows: list[dict[str, Any]] = []
        for path in paths if words.group in ("both", name) else ():
            video = probe(str(path.parent), path.name, 0, ProbeConfig())
            if video.is_image or video.status not in ("ok", "damaged"):
                continue
            row = measured.of(f"{name}/{path.name}")
            while len(row["pairs"]) < words.runs:
                if watch() > words.within_s:
                    raise UsageError(f"{words.within_s:g} s are over; the same command goes on where this one ended")
                floor = decode_once(str(path))
                cost, tables = timed(partial(scan, video, ScanConfig()))
                (ended,) = tables["scans"].to_pylist()
                row |= {"file": path.name, "size": f"{video.coded_width}x{video.coded_height}",
                        "frames": ended["num_frames"], "decode_passes": ended["decode_passes"]}  # fmt: skip
                row["pairs"].append((floor, cost))
                measured.keep()
            rows.append({**row, "pairs": row["pairs"][: words.runs]})
            say(f"{path.name[:40]:40s} {row['size']:>10s} ratio {_ratio(rows[-1]['pairs']):.2f}")
        if rows:
            found[name] = _summary(rows, start)
    return found


class _Measured:
    """What was measured, kept in the work folder so that a long run may be cut in pieces; delete it to begin anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def of(self, name: str) -> dict[str, Any]:
        return self._rows.setdefault(name, {"pairs": []})  # type: ignore[no-any-return]

    def once(self, name: str, measure: Callable[[], Any]) -> Any:
        """What was measured under that name, now or in an earlier piece."""
        if name not in self._rows:
            self._rows[name] = measure()
            self.keep()
        return self._rows[name]

    def keep(self) -> None:
        hidden = self._path.with_suffix(".part")
        hidden.write_text(json.dumps(self._rows))
        os.replace(hidden, self._path)


def _ratio(pairs: Iterable[tuple[float, float]]) -> float:
    return statistics.median(cost / max(floor, 1e-3) for floor, cost in pairs)


def _summary(rows: list[dict[str, Any]], start_s: float) -> dict[str, Any]:
    runs = list(zip(*(r["pairs"] for r in rows)))
    whole = [(sum(p[0] for p in run), sum(p[1] for p in run)) for run in runs]
    classes: dict[str, list[Any]] = {}
    for row in rows:
        width, height = map(int, row["size"].split("x"))
        area = width * height
        classes.setdefault("1080p and above" if area >= 1.5e6 else "720p" if area >= 8e5 else
                           "360p to 540p" if area >= 2e5 else "smaller", []).append(row)  # fmt: skip
    return {
        "files": len(rows),
        "frames": sum(r["frames"] for r in rows),
        "decode_passes_per_source": max(r["decode_passes"] for r in rows),
        "ffmpeg_cpu_s": [round(w[0], 2) for w in whole],
        "scan_cpu_s": [round(w[1], 2) for w in whole],
        "ratio": round(_ratio(whole), 3),
        "ratio_less_ffmpeg_start": round(_ratio((w[0] - start_s * len(rows), w[1]) for w in whole), 3),
        "median_ratio_of_files": round(statistics.median(_ratio(r["pairs"]) for r in rows), 3),
        "ratio_by_size": {
            name: round(_ratio([(sum(p[0] for p in run), sum(p[1] for p in run))
                                for run in zip(*(r["pairs"] for r in some))]), 3)
            for name, some in sorted(classes.items())
        },
        "by_file": {r["file"]: round(_ratio(r["pairs"]), 2) for r in rows} if len(rows) < 100 else {},
    }  # fmt: skip


def _stages(store: Any, folder: Path, names: Iterable[str], config: Any) -> dict[str, float]:
    """Bring stages up to date in this process; CPU seconds of each."""
    from pipelines.execute import executor, run_stage
    from pipelines.stages import STAGES
    from schemas import batches

    batches.register(store, batches.Batch(name="b", folder=str(folder), kind=batches.FOOTAGE))
    known, spent, here = {s.name: s for s in STAGES}, {}, executor("inline")
    batch_of = {s.name: "b" if s.partitioned else None for s in STAGES}
    for name in names:
        bring = partial(run_stage, known[name], store, config, batch=batch_of[name], executor=here)
        spent[name], result = timed(bring)
        spent[name] = round(spent[name], 2)
        say(f"ours: {name}: {spent[name]:.2f} CPU s, {'computed' if result.computed else 'reused'}")
    return spent


def whole_chain(words: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Whole curation beside the chain and beside PySceneDetect's command; what was measured before a cut is kept."""
    import cv2

    cv2.setNumThreads(1)
    folder = footage.for_chain(words.footage, work, words.seconds)
    paths = sorted(p for p in folder.iterdir() if p.is_file())
    noted = _Measured(work / f"chain_{words.seconds}s.json")
    floor = noted.once("floor", lambda: sum(decode_once(str(p)) for p in paths))
    ours = noted.once("ours", partial(_ours, folder, work))
    ours_s = round(sum(ours["by_stage"].values()), 2)
    by_file = [noted.once(f"chain/{p.name}", partial(chain.run, p, work)) for p in paths]
    theirs = {k: round(sum(f[k] for f in by_file), 2) for k in by_file[0]}
    theirs_s = round(sum(v for k, v in theirs.items() if k != "clips"), 2)
    splitting = round(sum(noted.once(f"split/{p.name}", partial(chain.scenedetect_cli, p, work)) for p in paths), 2)
    return {
        "files": [p.name for p in paths],
        "decode_floor_cpu_s": round(floor, 2),
        "kept_share_of_pixels": ours["kept"],
        "ours_cpu_s": ours_s,
        "ours_by_stage": ours["by_stage"],
        "ours_again": {"cpu_s": ours["again_cpu_s"], "wall_s": ours["again_s"]},
        "chain_cpu_s": theirs_s,
        "chain_by_step": theirs,
        "chain_over_ours": round(theirs_s / ours_s, 2),
        "scenedetect_split_cpu_s": splitting,
        "scenedetect_split_over_ours": round(splitting / ours_s, 2),
    }


def _ours(folder: Path, work: Path) -> dict[str, Any]:
    """Our stages from the folder to clip files, keeping that share."""
    from pipelines.recipes import footage as recipe
    from schemas.store import Store

    with tempfile.TemporaryDirectory(dir=work) as root:
        store = Store(root).create()
        head = _stages(store, folder, _CLASSICAL[:_BEFORE_POLICY], recipe())
        config, kept = _keeping(store, recipe(), KEEP_SHARE)
        rest = _stages(store, folder, _CLASSICAL[_BEFORE_POLICY:], config)
        watch = Stopwatch()
        again = _stages(store, folder, _CLASSICAL, config)
        return {"by_stage": head | rest, "kept": kept, "again_s": watch(), "again_cpu_s": round(sum(again.values()), 2)}


def _keeping(store: Any, config: Any, share: float) -> tuple[Any, float]:
    """A policy of one rule, on motion, that keeps about that share of the pixels: the mark names the share.

    Pixels (frames times area), not seconds: a second of 1080p costs six times one of 480p on both sides.
    """
    from pipelines.policy.rules import PolicyConfig, Rule
    from pipelines.scorers import SCORERS
    from schemas.clips import CLIPS

    table = next(s for s in SCORERS if s.name == "motion").table
    column = next(n for n in table.schema.names if n not in ("clip_id", "error", "made_by"))
    score = {r["clip_id"]: float(r[column] or 0.0) for r in store.read(table, batch="b").to_pylist()}
    size = {c["clip_id"]: (c["end_frame"] - c["start_frame"]) * c["width"] * c["height"]
            for c in store.read(CLIPS, batch="b").to_pylist()}  # fmt: skip
    total, kept, best = sum(size.values()), 0, (1.0, 0.0, 0.0)
    for clip in sorted(size, key=lambda c: -score[c]):
        kept += size[clip]
        best = min(best, (abs(kept / total - share), score[clip], kept / total))
    rule = Rule(name="benchmark", column=f"{table.name}.{column}", reason="moves too little", min=best[1])
    return dataclasses.replace(config, policy=PolicyConfig(rules=(rule,))), round(best[2], 3)


def peak_memory(words: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Peak memory against the length of a film (`benchmarks/memory.py`)."""
    return memory.measure(words, work, _Measured(work / "memory.json").once)


def rerun(words: argparse.Namespace, work: Path) -> dict[str, Any]:
    """The same curation twice; the second must compute nothing."""
    from pipelines.recipes import footage as recipe
    from schemas.store import Store

    folder = footage.for_chain(words.footage, work, words.seconds)
    with tempfile.TemporaryDirectory(dir=work) as root:
        store = Store(root).create()
        first = _stages(store, folder, _CLASSICAL, recipe())
        watch, start = Stopwatch(), cpu_s()
        again = _stages(store, folder, _CLASSICAL, recipe())
        return {"first_cpu_s": round(sum(first.values()), 2), "again_cpu_s": round(cpu_s() - start, 3),
                "again_wall_s": watch(), "again_by_stage": again}  # fmt: skip


_KINDS = {"scan": scan_cost, "chain": whole_chain, "memory": peak_memory, "rerun": rerun}


def main() -> int:
    ask = argparse.ArgumentParser(
        prog="python -m benchmarks.curation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ask.add_argument("what", choices=list(_KINDS))
    ask.add_argument("--footage", default="../shared/footage", help="real footage (default: %(default)s)")
    ask.add_argument("--work", default="runs/benchmarks", help="where films are made (default: %(default)s)")
    ask.add_argument("--seconds", type=int, default=60, help="length of the 1080p film, s (default: %(default)s)")
    ask.add_argument("--runs", type=int, default=3, help="scan: alternating runs (default: %(default)s)")
    ask.add_argument("--group", choices=("full_hd", "mixed", "both"), default="both", help="scan: which films")
    ask.add_argument("--within-s", type=float, default=3600.0, help="scan: stop then; run it again to go on")
    ask.add_argument("--minutes", type=float, nargs="+", default=[10, 30, 60, 120], help="memory: lengths of the films")
    ask.add_argument("--keep", action="store_true", help="write benchmarks/results/curation-<what>.json")
    ask.add_argument("--json", action="store_true", help="one JSON object on standard output")
    words = ask.parse_args()
    work = Path(words.work).absolute()
    work.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(work).free < 2 * 2**30:
        ask.error(f"{work} has less than 2 GiB of room; name another folder with --work")
    run = _KINDS[words.what]
    told = {"scan": f" --seconds {words.seconds} --runs {words.runs}", "memory": ""}
    command = f"python -m benchmarks.curation {words.what}" + told.get(words.what, f" --seconds {words.seconds}")
    started = machine()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            found = run(words, work)
    except DailiesError as e:
        say(f"benchmarks.curation: {e}")
        return e.exit_code
    if words.keep:
        suffix = f"-{words.group}" if words.what == "scan" and words.group != "both" else ""
        command += f" --group {words.group}" if suffix else ""
        found = keep(f"curation-{words.what}{suffix}", found, command, started)
    shown = found if words.json else {k: v for k, v in found.items() if k != "by_file"}
    print(json.dumps(shown, indent=None if words.json else 1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
