"""What an OCR reads in a clip: how much of the picture its lines cover, and how many letters.

Not in `SCORERS`: it needs a reader that a default install does not have, and the stage `ocr_scores` writes it where
config names one.  `score_text` asks a cheaper question of every clip: where there are rows of strokes.
"""

from schemas.scores import score_table

SCORE_OCR = score_table(
    "ocr",
    {
        "area": ("Share of the picture inside lines that were read, mean over frames.", "", "[0, 1]"),
        "letters": ("Letters and digits that were read, mean over frames.", "letter", "[0, inf)"),
    },
)
