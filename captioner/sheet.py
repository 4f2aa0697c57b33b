"""A contact sheet of captions: a frame of each clip with what was said of it, as one JPEG that a UI can show."""

import io
import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

LIMIT_BYTES = 120_000
_CELL_WIDTH, _CELL_HEIGHT, _TEXT_HEIGHT, _COLUMNS = 240, 150, 66, 4


def contact_sheet(cells: Sequence[tuple[bytes, str]]) -> bytes | None:
    """Draw up to eight (JPEG, text) cells; None if there is nothing to draw."""
    if not cells:
        return None
    columns = min(_COLUMNS, len(cells))
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (columns * _CELL_WIDTH, rows * (_CELL_HEIGHT + _TEXT_HEIGHT)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for n, (jpeg, text) in enumerate(cells):
        left, top = n % columns * _CELL_WIDTH, n // columns * (_CELL_HEIGHT + _TEXT_HEIGHT)
        picture = Image.open(io.BytesIO(jpeg)).convert("RGB")
        picture.thumbnail((_CELL_WIDTH - 8, _CELL_HEIGHT - 8))
        sheet.paste(picture, (left + (_CELL_WIDTH - picture.width) // 2, top + (_CELL_HEIGHT - picture.height) // 2))
        lines = textwrap.wrap(text, 34)[:4]
        pen.multiline_text((left + 6, top + _CELL_HEIGHT), "\n".join(lines), fill="black", font=font, spacing=1)
    for quality in (85, 70, 50, 30):
        buffer = io.BytesIO()
        sheet.save(buffer, "JPEG", quality=quality)
        if buffer.tell() <= LIMIT_BYTES:
            break
    return buffer.getvalue()
