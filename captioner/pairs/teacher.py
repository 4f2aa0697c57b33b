"""A teacher's captions as pairs: any backend captions the clips that were kept, and what is ok is learnt from.

The captioning stage itself runs, with its frames, retries, statuses and provenance, under another name and into a
table of its own, so that what a teacher wrote never passes for the corpus' captions.  `teacher_captions` is not in
`STAGES`: nothing waits for it, and the command that wants it runs it.  Cost: that of the backend.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

from captioner.config import CaptionerConfig, Captioning
from captioner.stages import CAPTIONS_STAGE
from pipelines.execute import Context, Output, Stage
from schemas.captions import CAPTIONS, CaptionStatus, Listed, fields_of
from schemas.errors import UsageError
from schemas.language import Unparsable, parse
from schemas.settings import pick
from schemas.table import Table

TEACHER_CAPTIONS = Table("teacher_captions", CAPTIONS.row, CAPTIONS.key, doc="What a teacher wrote of the kept clips.")


def teacher_stage(backend: str) -> Stage:
    """The captioning stage, written by that backend into `teacher_captions`.

    Raises:
        ConfigError: If there is no such backend.
    """
    from captioner.backends import BACKENDS

    pick("captioner backend", backend, BACKENDS)

    def settings(config: CaptionerConfig) -> Captioning:
        return dataclasses.replace(config, backend=backend).captioning()

    return dataclasses.replace(
        CAPTIONS_STAGE,
        name=TEACHER_CAPTIONS.name,
        writes=(TEACHER_CAPTIONS,),
        run=_caption,
        settings=settings,
        doc="Captions of kept clips by a teacher, to learn from.",
    )


def _caption(context: Context) -> Output:
    output = CAPTIONS_STAGE.run(context)
    return dataclasses.replace(output, tables={TEACHER_CAPTIONS.name: output.tables[CAPTIONS.name]})


def listed(captions: Iterable[dict[str, Any]]) -> list[Listed]:
    """Rows of `teacher_captions` as rows of a pair list; what is not ok is left out with its status.

    Raises:
        UsageError: If there are no captions at all.
    """
    rows = []
    for number, caption in enumerate(sorted(captions, key=lambda c: str(c["clip_id"])), 1):
        source = f"teacher:{caption['backend']}"
        if caption["status"] != CaptionStatus.OK:
            why = f"the caption of clip {caption['clip_id']} is {caption['status']}: {caption['reason']}"
            rows.append(Listed(file=source, row=number, column_name="dense", reason=why))
            continue
        rows.append(
            Listed(
                file=source,
                row=number,
                clip_id=caption["clip_id"],
                short=caption["short"],
                dense=caption["dense"],
                fields=fields_of(caption["fields"]) if caption["fields"] else _parsed(caption["dense"]),
                source=source,
                writer=f"{caption['model']}, prompt {caption['prompt_version']}, made by {caption['made_by']}",
            )
        )
    if not rows:
        raise UsageError("the teacher had no clip to caption: no clip was kept")
    return rows


def _parsed(dense: str) -> Any:
    try:
        return parse(dense)
    except Unparsable:
        return None
