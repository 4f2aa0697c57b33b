"""Contact sheets fit their limit."""

import io

import numpy as np
import pytest
from PIL import Image

from pipelines.contact_sheet import MAX_BYTES, contact_sheet


def noise(seed: int, width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize("count", [0, 1, 7, 100])
def test_a_sheet_of_the_worst_pictures_fits(count: int) -> None:
    sheet = contact_sheet([(noise(i, 256, 144), f"clip {i}") for i in range(count)])
    assert len(sheet) <= MAX_BYTES
    with Image.open(io.BytesIO(sheet)) as image:
        assert image.format == "JPEG"


def test_odd_shapes_and_labels_are_drawn() -> None:
    sheet = contact_sheet([(noise(1, 10, 300), "\u00e9\u4e2d" * 40), (noise(2, 400, 8), "")])
    assert len(sheet) > 1000
