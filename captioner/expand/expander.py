"""A short prompt becomes a dense caption in the captioner's style, and keeps every fact that it had.

A writer drafts; each draft is judged as a caption (no loop, no control token, not cut short) and held against the
prompt (`facts.compare`).  The first draft that keeps everything is taken; if none does, the one that lost least is
mended (`repair.py`) and judged again; what still loses a fact is refused with the fact's name.  So what comes out
either keeps the prompt or says that it cannot.  What was added is listed, never hidden.  Sampling instead of greedy
search: a prompt leaves things open, and the captions' own frequencies are what the video model was trained on.
"""

import dataclasses
from collections.abc import Sequence

from captioner.expand.config import ExpandConfig
from captioner.expand.facts import Facts, Lexicon, Verdict, compare, read_facts
from captioner.expand.prompts import Source
from captioner.expand.repair import repaired
from captioner.expand.writers import Llm, Retrieval, Served, Writer
from captioner.parse import read as read_caption
from schemas.captions import CaptionStatus
from schemas.errors import UsageError
from schemas.ids import digest
from schemas.language import NUM_VARIANTS


class NotKept(UsageError):
    """No expansion keeps what the prompt asks for."""


@dataclasses.dataclass(frozen=True, slots=True)
class Expansion:
    """A prompt and what became of it."""

    given: str
    expanded: str
    added: tuple[str, ...]
    """What it says beyond the prompt, as `field: value`."""
    repaired: tuple[str, ...]
    """Facts that the draft had lost and that were put back; empty if it kept all."""
    drafts: int
    """Texts that were judged."""
    writer: str
    """Who wrote it: a checkpoint's digest, `retrieval`, or a model's name."""
    seed: int


@dataclasses.dataclass(frozen=True, slots=True)
class Expander:
    """A writer and the words that the captions use."""

    writer: Writer
    lexicon: Lexicon
    candidates: int
    strict: bool = False
    """Whether a draft must be of the caption language, as all captions of the manifest are."""

    def expand(self, prompt: str, seed: int = 0) -> Expansion:
        """Expand one prompt; the same prompt and seed give the same text.

        Raises:
            UsageError: If the prompt is empty.
            NotKept: If no text keeps its facts; names what was lost.
        """
        given = " ".join(prompt.split())
        if not given:
            raise UsageError("the prompt is empty: there is nothing to expand")
        asked = read_facts(given, self.lexicon)
        drawn = int(digest("expand", given, seed)[:12], 16)
        best: tuple[Verdict, str] | None = None
        judged = 0
        for text in self.writer.write(given, self.candidates, drawn):
            judged_as = read_caption(text, "stop", require_fields=self.strict, language="")
            if judged_as.status is not CaptionStatus.OK:
                continue
            judged += 1
            verdict = self._judge(asked, text)
            if not verdict.lost:
                return Expansion(given, text, verdict.added, (), judged, self.writer.name, seed)
            if best is None or len(verdict.lost) < len(best[0].lost):
                best = (verdict, text)
        return self._mended(given, asked, best, judged, drawn, seed)

    def _judge(self, asked: Facts, text: str) -> Verdict:
        return compare(asked, read_facts(text, self.lexicon), text)

    def _mended(
        self, given: str, asked: Facts, best: tuple[Verdict, str] | None, judged: int, drawn: int, seed: int
    ) -> Expansion:
        lost, draft = (best[0].lost, best[1]) if best else (("all of it: no usable text was drafted",), "")
        try:
            text = repaired(given, asked, draft, drawn % NUM_VARIANTS)
        except ValueError as e:
            raise NotKept(
                f"`{given}` cannot be expanded without losing {'; '.join(lost)} ({e}): use it as it is"
            ) from e
        verdict = self._judge(asked, text)
        if verdict.lost:
            raise NotKept(f"`{given}` cannot be expanded without losing {'; '.join(verdict.lost)}: use it as it is")
        return Expansion(given, text, verdict.added, lost, judged, self.writer.name, seed)


def expander_of(config: ExpandConfig, sources: Sequence[Source], lexicon: Lexicon) -> Expander:
    """An expander that needs no training: retrieval, an LLM, or a server."""
    writer: Writer
    if config.writer == "retrieval":
        writer = Retrieval(sources, lexicon)
    elif config.writer == "transformers":
        writer = Llm(config, sources)
    else:
        writer = Served(config, sources)
    return Expander(writer, lexicon, config.candidates, speaks_the_language(sources))


def speaks_the_language(sources: Sequence[Source]) -> bool:
    """Whether every caption is of the caption language; then every expansion is to be, too."""
    return all(s.variant is not None for s in sources)
