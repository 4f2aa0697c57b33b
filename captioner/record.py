"""A caption that comes as JSON: validated before it is anything else.

A backend that can hold a model to a schema is given `SCHEMA`; whatever JSON a model writes is read by `read_record`,
which knows the same rules, because a schema that a server promises to keep is still text from outside.  Words
follow the caption language (`schemas.language.check`), so that a record can be rendered in any wording.  Text on the
screen is free, but for what would end its quotes.
"""

import json
import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from schemas.captions import Fields, Subject
from schemas.language import check

_WORDS = r"^([a-z0-9][a-z0-9'-]*( [a-z0-9][a-z0-9'-]*)*)?$"
_WORD = r"^([a-z0-9][a-z0-9'-]*)?$"
_FENCE = re.compile(r"^```(?:json)?\s*\n(.*?)\n?```$", re.DOTALL)
Words = Annotated[str, Field(pattern=_WORDS, max_length=80)]
Word = Annotated[str, Field(pattern=_WORD, max_length=40)]


def _one_line(value: Any) -> Any:
    """Text on the screen on one line, in quotes that do not end those it will stand in."""
    return re.sub(r"[\"“”`]", "'", " ".join(value.split())) if isinstance(value, str) else value


OnScreen = Annotated[str, BeforeValidator(_one_line), Field(max_length=200)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class SubjectRecord(_Strict):
    """One thing that is seen; an empty text means: not said."""

    shape: Annotated[str, Field(pattern=_WORDS, min_length=1, max_length=80)]
    color: Word = ""
    size: Annotated[str, Field(pattern="^(small|large)?$")] = ""
    motion: Words = ""


class CaptionRecord(_Strict):
    """A caption's fields as JSON."""

    subjects: Annotated[list[SubjectRecord], Field(min_length=1, max_length=9)]
    relation: Words = ""
    events: Annotated[list[Words], Field(max_length=8)] = []
    camera: Words = ""
    background: Words = ""
    lighting: Words = ""
    style: Words = ""
    on_screen_text: OnScreen = ""

    def fields(self) -> Fields:
        """The same as a record of the caption language.

        Raises:
            ValueError: If the language cannot carry a value; says which.
        """
        subjects = [Subject(**s.model_dump()) for s in self.subjects]
        rest = self.model_dump(exclude={"subjects"})
        return check(Fields(subjects=subjects, **rest))


SCHEMA: dict[str, Any] = CaptionRecord.model_json_schema()


class NoRecord(ValueError):
    """A text is not a caption record; says what is wrong with it."""


def looks_like_json(text: str) -> bool:
    """Whether a text means to be JSON: it begins as an object, a list or a code fence does."""
    return text.startswith(("{", "[", "```"))


def read_record(text: str) -> Fields:
    """Read a caption record.

    Raises:
        NoRecord: If it is no JSON or breaks a rule; names the first.
    """
    fenced = _FENCE.match(text)
    try:
        return CaptionRecord.model_validate(json.loads(fenced.group(1) if fenced else text)).fields()
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the record"
        raise NoRecord(f"{where}: {first['msg']}") from None
    except (ValueError, RecursionError) as e:
        raise NoRecord(f"invalid JSON: {e}") from None
