"""What CLIP says of a clip: how much it is like a few concepts, and whether its end is like its beginning.

Not in `SCORERS`: it reads embeddings of a model, and the stage `embeddings` writes it.  The columns are
fixed; their prompts are config.  A cosine of a small or unsuited CLIP means little: see `knows` in its
checkpoint's row.
"""

from schemas.scores import score_table

_CONCEPT = "Cosine of the clip and the concept's prompt."

CONCEPTS = ("watermark", "text", "slideshow", "screen_recording")

SCORE_CLIP = score_table(
    "clip",
    {
        **dict.fromkeys(CONCEPTS, (_CONCEPT, "", "[-1, 1]")),
        "first_to_last": ("Cosine of the first and the last frame's embedding.", "", "[-1, 1]"),
    },
)
