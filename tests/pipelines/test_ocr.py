"""An OCR by name: a plug-in of ours, rapidocr where it is installed, and nobody by default."""

import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from pipelines.config import CurationConfig
from pipelines.execute import run_stage
from pipelines.ingest import VIDEOS_STAGE
from pipelines.ocr import OCR_STAGE, RAPIDOCR, OcrConfig, measure, reader
from pipelines.scan.stage import SCAN_STAGE
from pipelines.scorers.ocr import SCORE_OCR
from pipelines.shots.stage import SHOTS_STAGE
from schemas import batches
from schemas.errors import ConfigError
from schemas.store import Store
from tests.videos import make_video, shot


def top_half(frame: np.ndarray) -> list[Any]:
    """A plug-in that reads the same words in the upper half of every frame, and something unsure below."""
    h, w = frame.shape[:2]
    box = [(0, 0), (w - 1, 0), (w - 1, h // 2 - 1), (0, h // 2 - 1)]
    return [(box, "we go now", 0.9), ([(0, h // 2), (w, h // 2), (w, h), (0, h)], "maybe", 0.2)]


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Store:
    base = tmp_path_factory.mktemp("ocr")
    make_video(base / "f" / "a.mp4", shot(1, 30))
    store = Store(base / "root").create()
    batches.register(store, batches.Batch(name="one", folder=str(base / "f"), kind=batches.FOOTAGE))
    for stage in (VIDEOS_STAGE, SCAN_STAGE, SHOTS_STAGE):
        run_stage(stage, store, CurationConfig(), batch="one")
    return store


def test_nobody_reads_by_default(scanned: Store) -> None:
    result = run_stage(OCR_STAGE, scanned, CurationConfig(), batch="one")
    assert result.rows == {SCORE_OCR.name: 0}
    assert "ocr.by=rapidocr" in result.metrics["note"]


def test_a_plug_in_reads_and_its_unsure_lines_do_not_count(scanned: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "readers", sys.modules[__name__])
    run_stage(OCR_STAGE, scanned, CurationConfig(ocr=OcrConfig(by="readers:top_half")), batch="one")
    (row,) = scanned.read(SCORE_OCR, batch="one").to_pylist()
    assert row["area"] == pytest.approx(0.5, abs=0.02)
    assert (row["letters"], row["error"]) == (7, "")


def test_lines_that_overlap_count_once() -> None:
    box = [(0, 0), (9, 0), (9, 9), (0, 9)]
    assert measure([(box, "a1!", 1.0), (box, "b", 1.0)], 20, 20, 0.5) == (0.25, 3)


def test_a_reader_that_is_not_there_is_said_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidocr_onnxruntime", None)
    with pytest.raises(ConfigError, match="pip install --no-deps rapidocr-onnxruntime"):
        reader(RAPIDOCR)
    with pytest.raises(ValueError, match="module:function"):
        OcrConfig(by="tesseract")


@pytest.mark.filterwarnings("ignore")
def test_rapidocr_reads_a_subtitle() -> None:
    pytest.importorskip("rapidocr_onnxruntime", reason="the extra `ocr` is not installed")
    image = Image.new("RGB", (256, 144), (60, 90, 60))
    ImageDraw.Draw(image).text((30, 105), "we have to go", font=ImageFont.load_default(size=22), fill=(255, 255, 255))
    read = reader(RAPIDOCR)
    area, letters = measure(read(np.asarray(image)), 144, 256, 0.5)
    assert 0.03 < area < 0.3
    assert 8 <= letters <= 12
    assert measure(read(np.full((144, 256, 3), 90, np.uint8)), 144, 256, 0.5) == (0.0, 0)
