"""What CLIP says of a clip: likeness to concepts and to its own text, beauty, safety, and whether it hangs together.

Not in `SCORERS`: these read a model's embeddings, and the stage `embeddings` writes them.  The columns are
fixed; prompts, heads and plug-ins are config.  A cosine of a small or unsuited CLIP means little: see `knows`
in its checkpoint's row.  A table without rows counts as not made: no head, no plug-in, no text.
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
SCORE_AESTHETIC = score_table(
    "aesthetic",
    {
        "mean": (
            "Mean of what the head gives the frames, on its own scale (LAION's: 1 to 10).",
            "",
            "(-inf, inf)",
        ),
        "least": ("The same of the frame that it likes least.", "", "(-inf, inf)"),
    },
)
SCORE_SIDECAR = score_table(
    "sidecar",
    {"best": ("Cosine of the clip and the sentence of its source's own text that fits it best.", "", "[-1, 1]")},
)
SCORE_UNSAFE = score_table(
    "unsafe",
    {
        "score": (
            "Cosine to the unsafe concept, largest over frames; or what the plug-in gives.",
            "",
            "[-1, 1]",
        )
    },
)

CLIP_TABLES = frozenset({SCORE_CLIP.name, SCORE_AESTHETIC.name, SCORE_SIDECAR.name})
"""What means nothing where CLIP does not know the footage (`score_unsafe` has no rows there, or a plug-in's)."""
CLIP_OUTPUTS = (SCORE_CLIP, SCORE_AESTHETIC, SCORE_SIDECAR, SCORE_UNSAFE)
"""All that the stage writes beside the embeddings; each costs a product or two beyond the picture pass."""
SPARSE = frozenset({SCORE_SIDECAR.name})
"""Tables with rows for those clips alone to which they apply: a rule over them passes the others by."""
