"""Contact sheets: many small pictures with a label each as one JPEG of at most 120 kB.

A person judges a threshold by looking at what it keeps and drops; Dagster and the report show the sheet as
it is.  Quality is lowered first, then the sheet is shrunk, until it fits.  Pure; about 20 ms.
"""

import io
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

MAX_BYTES = 120_000
_CELL, _LABEL, _GAP = (160, 96), 14, 4


def evenly(some: Sequence[Any], limit: int = 36) -> list[Any]:
    """Up to `limit` of them, evenly taken from all: those that a sheet shows."""
    step = max(1.0, len(some) / limit)
    return [some[int(i * step)] for i in range(min(limit, len(some)))]


def contact_sheet(
    pictures: Sequence[tuple[bytes, str]], columns: int = 6, limit: int = 36, max_bytes: int = MAX_BYTES
) -> bytes:
    """Lay out up to `limit` pictures, evenly taken from all; an empty list gives a sheet that says so.

    Args:
        pictures: (JPEG, label) pairs in reading order.
    """
    shown = evenly(pictures, limit)
    columns = max(1, min(columns, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    width, height = _CELL[0] + _GAP, _CELL[1] + _LABEL + _GAP
    sheet = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), (24, 24, 24))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=10)
    if not shown:
        draw.text((8, 8), "nothing to show", fill=(220, 220, 220), font=font)
    for index, (jpeg, label) in enumerate(shown):
        x, y = _GAP + index % columns * width, _GAP + index // columns * height
        with Image.open(io.BytesIO(jpeg)) as picture:
            small = picture.convert("RGB")
        small.thumbnail(_CELL)
        sheet.paste(small, (x + (_CELL[0] - small.width) // 2, y + (_CELL[1] - small.height) // 2))
        draw.text((x, y + _CELL[1]), label.encode("ascii", "replace").decode()[:30], fill=(220, 220, 220), font=font)
    return _fit(sheet, max_bytes)


def _fit(sheet: Image.Image, max_bytes: int) -> bytes:
    while True:
        for quality in (85, 70, 55, 40):
            buffer = io.BytesIO()
            sheet.save(buffer, "JPEG", quality=quality)
            if buffer.tell() <= max_bytes or min(sheet.size) < 16:
                return buffer.getvalue()
        sheet = sheet.resize((max(1, sheet.width * 4 // 5), max(1, sheet.height * 4 // 5)))
