"""Adding a score as CONTRIBUTING.md says: one new file and one line, and the rest appears by itself.

A copy of the packages gets both, and another process asks it: do its contract tests run and pass, is there an
asset, does the stage fill its table, do manifest, scoreboard and report show it, does what-if judge by it?
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.dagster

REPOSITORY = Path(__file__).parents[2]
PARTS = ("schemas", "pipelines", "captioner", "trainer", "orchestration", "tests")
LIST = "pipelines/scorers/__init__.py"

NEW_FILE = '''"""Warmth: how much redder than blue the clip is."""

import numpy as np

from pipelines.scorers.base import Scorer, View


def warmth(view: View) -> dict[str, float | None]:
    """Mean red less mean blue."""
    if not len(view.frames):
        return {"red": None}
    return {"red": float(np.mean(view.frames[..., 0].astype(float) - view.frames[..., 2]) / 255)}


SCORER = Scorer("warmth", {"red": ("Mean red less mean blue.", "", "[-1, 1]")}, warmth)
'''

POLICY = '[[rule]]\nname = "cold"\ncolumn = "score_warmth.red"\nmin = 0.0\nreason = "too cold"\n'

ASK = """
import contextlib, io, json, os, sys
from pathlib import Path

import numpy as np
import pytest


class Count:
    passed = failed = 0

    def pytest_runtest_logreport(self, report):
        self.passed += report.when == "call" and report.passed
        self.failed += report.failed


root, folder = Path(sys.argv[1]), Path(sys.argv[2])
found, count = {}, Count()
with contextlib.redirect_stdout(io.StringIO()):
    pytest.main(["-q", "-p", "no:cacheprovider", "tests/pipelines/scorers", "-k", "warmth"], plugins=[count])
found["contract"] = [count.passed, count.failed]

from orchestration import cli, definitions, rooms
from orchestration.resources import Compute, Lake

graph = definitions.build(rooms.all_stages(), Lake(root="nowhere"), Compute()).resolve_asset_graph()
found["asset"] = "score_warmth" in {k.to_user_string() for k in graph.get_all_asset_keys()}

from tests.videos import make_video, textured

pictures = [textured(1, shift=2 * i) for i in range(60)]
red, blue = np.array([1.0, 0.6, 0.2]), np.array([0.2, 0.6, 1.0])
make_video(folder / "a.mp4", [(p * red).astype(np.uint8) for p in pictures])
make_video(folder / "b.mp4", [(p * blue).astype(np.uint8) for p in pictures[::-1]])
from pipelines.config import CurationConfig
from pipelines.execute import run_stage
from pipelines.policy.scoreboard import COLUMNS, SCOREBOARD
from schemas import batches
from schemas.store import Store

store = Store(root).create()
batches.register(store, batches.Batch(name="one", folder=str(folder), kind=batches.FOOTAGE))
for name in ("videos", "scan", "shots", "signal_scores", "fingerprints", "duplicates", "verdicts", "report"):
    stage = rooms.named(name).stage
    run_stage(stage, store, CurationConfig(), batch="one" if stage.partitioned else None)
board = store.read(SCOREBOARD, batch="one")
found["table"] = sorted(round(v, 2) for v in board[COLUMNS["score_warmth.red"]].to_pylist())
found["report"] = b"warmth" in store.read_bytes("report", "report.html")
out = io.StringIO()
with contextlib.redirect_stdout(out):
    code = cli.main(["whatif", "--root", str(root), "--policy", sys.argv[3], "--json"])
found["whatif"] = [code, json.loads(out.getvalue())]
from pipelines.manifest.stage import MANIFEST_STAGE

found["manifest"] = "score_warmth" in {t.name for t in MANIFEST_STAGE.reads}
print(json.dumps(found))
"""


def test_one_file_and_one_line_make_a_score(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    skip = shutil.ignore_patterns("__pycache__", "*.pyc")
    for part in PARTS:
        shutil.copytree(REPOSITORY / part, copy / part, ignore=skip)
    shutil.copy(REPOSITORY / "pyproject.toml", copy)
    (copy / "pipelines/scorers/warmth.py").write_text(NEW_FILE)
    lines = (copy / LIST).read_text().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if line == '    "saturation",\n')
    (copy / LIST).write_text("".join([*lines[:at], '    "warmth",\n', *lines[at:]]))
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    words = [sys.executable, "-c", ASK, str(tmp_path / "root"), str(tmp_path / "footage"), str(policy)]
    done = subprocess.run(
        words,
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    passed, failed = found["contract"]
    assert passed >= 5
    assert failed == 0
    assert found["asset"]
    assert found["manifest"]
    assert found["report"]
    cold, warm = found["table"]
    assert cold < 0 < warm
    code, answer = found["whatif"]
    assert code == 0
    steps = [(step["rule"], step["clips"]) for step in answer["funnel"]]
    assert steps == [("all clips", 2), ("cold", 1), ("no score", 1)]
