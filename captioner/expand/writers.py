"""Who writes expansions: the small trained model, a caption of the manifest rewritten, an LLM, or a server.

A writer returns texts and promises nothing of them; `expander.py` judges.  All are seeded: the same prompt and seed
give the same texts (a server as far as it keeps its own word).  LLMs are shown captions of the manifest, so that they
write in its style; weights come as safetensors only.  Neither LLM path was measured at full size here.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from captioner.backends.openai_api import OpenaiApi, Unanswered
from captioner.expand.config import ExpandConfig
from captioner.expand.facts import Lexicon, compare, read_facts
from captioner.expand.prompts import Source
from captioner.expand.repair import merged
from captioner.parse import read as read_caption
from schemas.captions import CaptionStatus, Fields
from schemas.errors import ModelError, WorldError
from schemas.language import check, render_dense, variant_of

_ASK = (
    "Rewrite the user's short video prompt as one dense caption in exactly the style of the examples: the same kinds "
    "of sentences, the same length, the same order. Keep every fact of the prompt: do not change or drop any subject, "
    "number, colour, size, motion, direction, camera motion or place, and add no subjects. Fill in what is not said "
    "as the examples do. Answer with the caption alone."
)


class Writer(Protocol):
    """Drafts expansions."""

    @property
    def name(self) -> str:
        """Digest or name of the model."""

    def write(self, prompt: str, count: int, seed: int) -> list[str]:
        """Up to so many texts."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """The small text model."""

    net: Any
    tokenizer: Any
    config: ExpandConfig
    name: str

    def write(self, prompt: str, count: int, seed: int) -> list[str]:
        from captioner.expand.lm import write

        return write(
            self.net,
            self.tokenizer,
            prompt,
            count=count,
            temperature=self.config.temperature,
            max_tokens=self.config.max_tokens,
            seed=seed,
        )


@dataclasses.dataclass(frozen=True)
class Retrieval:
    """Captions of the manifest that agree with a prompt best, with its facts written over theirs."""

    sources: Sequence[Source]
    lexicon: Lexicon
    name: str = "retrieval"

    def write(self, prompt: str, count: int, seed: int) -> list[str]:
        asked = read_facts(prompt, self.lexicon)
        rng = np.random.Generator(np.random.Philox(key=[seed, 0]))
        known = [s for s in self.sources if s.record is not None]
        lost = [len(compare(asked, read_facts(s.dense, self.lexicon), s.dense).lost) for s in known]
        order = sorted(rng.permutation(len(known)), key=lambda i: lost[i])[:count]
        return [text for i in order if (text := self._rewritten(asked.record, known[i]))]

    def _rewritten(self, asked: Fields, source: Source) -> str:
        assert source.record is not None
        variant = variant_of(source.dense, source.record) or 0
        try:
            return render_dense(check(merged(asked, source.record)), variant)
        except ValueError:
            return ""


def _examples(sources: Sequence[Source], count: int, seed: int) -> list[Source]:
    rng = np.random.Generator(np.random.Philox(key=[seed, 1]))
    return [sources[int(i)] for i in rng.choice(len(sources), size=min(count, len(sources)), replace=False)]


def messages(prompt: str, examples: Sequence[Source]) -> list[dict[str, str]]:
    """The talk that an LLM is given."""
    talk = [{"role": "system", "content": _ASK}]
    for source in examples:
        talk += [{"role": "user", "content": source.short}, {"role": "assistant", "content": source.dense}]
    return [*talk, {"role": "user", "content": prompt}]


class Llm:
    """A causal LLM of transformers, by hub name or local folder."""

    def __init__(self, config: ExpandConfig, sources: Sequence[Source]) -> None:
        """
        Raises:
            ModelError: If it does not load; says why.
        """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._config, self._sources = config, sources
        device = ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(config.model, revision=config.revision)
            net: Any = AutoModelForCausalLM.from_pretrained(
                config.model, revision=config.revision, dtype=config.dtype, use_safetensors=True
            )
        except (OSError, ImportError, ValueError) as e:
            raise ModelError(f"expander model `{config.model}` does not load: {e}") from e
        self._net: Any = net.to(device).eval()
        commit = getattr(net.config, "_commit_hash", None)
        self.name = config.model if Path(config.model).is_dir() else f"{config.model}@{commit or config.revision}"

    def write(self, prompt: str, count: int, seed: int) -> list[str]:
        import torch

        talk = messages(prompt, _examples(self._sources, self._config.examples, seed))
        if self._tokenizer.chat_template:
            text = self._tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
        else:
            text = "\n".join(f"{m['role']}: {m['content']}" for m in talk) + "\nassistant:"
        inputs = self._tokenizer(text, return_tensors="pt", add_special_tokens=not self._tokenizer.chat_template)
        inputs = {k: v.to(self._net.device) for k, v in inputs.items() if k in ("input_ids", "attention_mask")}
        given = inputs["input_ids"].shape[1]
        devices = [self._net.device] if self._net.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.inference_mode():
            torch.manual_seed(seed)
            rows = self._net.generate(
                **inputs,
                max_new_tokens=self._config.max_tokens,
                do_sample=True,
                temperature=self._config.temperature,
                num_return_sequences=count,
                pad_token_id=self._tokenizer.pad_token_id or self._tokenizer.eos_token_id,
            )
        return [str(self._tokenizer.decode(row[given:], skip_special_tokens=True)).strip() for row in rows]


class Served:
    """An LLM behind an OpenAI-compatible server; asked again as for captions when it is busy."""

    def __init__(self, config: ExpandConfig, sources: Sequence[Source]) -> None:
        self._server, self._config, self._sources = OpenaiApi(config.api), config, sources
        self.name = f"{self._server.model} at {config.api.url}"

    def write(self, prompt: str, count: int, seed: int) -> list[str]:
        """
        Raises:
            WorldError: If the server gives no answer.
        """
        talk = messages(prompt, _examples(self._sources, self._config.examples, seed))
        texts = []
        for number in range(count):
            body = {
                "model": self._server.model,
                "messages": talk,
                "max_tokens": self._config.max_tokens,
                "temperature": self._config.temperature,
                "seed": (seed + number) % (1 << 31),
            }
            try:
                choice = self._server.call("/chat/completions", body)["choices"][0]
                said = str(choice["message"].get("content") or "").strip()
            except (Unanswered, KeyError, IndexError, TypeError, AttributeError) as e:
                raise WorldError(f"the expander's server gives no answer: {e}") from None
            if read_caption(said, str(choice.get("finish_reason")), require_fields=False).status is CaptionStatus.OK:
                texts.append(said)
        return texts
