"""The captioner that is trained here: a tower with named slots, field heads, and a small causal LM behind the slots.

    frames -> tower -> slots: one per subject, one per other closed field, a few free ones, one for the whole clip
                        |-> linear heads name the value of every closed field
    [slots, <short>|<dense>, caption...] -> Llama, trained as a prefix LM through `inputs_embeds`

The LM reads slots, which read unpooled tokens; it copies from vectors that the heads have already taught what
to mean, and its prefix stays short.  In trials pooled queries without such heads stayed at chance
(facts/captioner.md 6.4).

Loss as CoCa's with heads: 2 caption + 1 contrastive (clip against the text's end token) + 0.5 fields.
Refs: CoCa arXiv:2205.01917, ClipCap arXiv:2111.09734, DALL-E 3 (captioner).  Cost: see recipes.py.

Letters: B clips, S slots, D width, L text tokens.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from captioner.train.config import ModelConfig
from captioner.train.data import SUBJECTS, subject_of
from captioner.train.tokenizer import END_ID, PAD_ID
from captioner.train.tower import Tower


class Captioner(nn.Module):
    """Tower, field heads and LM; `loss` trains it, `write` captions."""

    def __init__(self, config: ModelConfig, slots: Mapping[str, Sequence[str]], vocabulary: int) -> None:
        """
        Args:
            slots: Values of each field that a head tells apart (see `data.slot_values`); a last slot is the clip's.
            vocabulary: Size of the tokenizer's vocabulary.
        """
        super().__init__()
        from transformers import LlamaConfig, LlamaForCausalLM

        self.config, self.slots = config, {name: tuple(values) for name, values in slots.items()}
        others = [name for name in slots if subject_of(name) is None]
        self.places = [others.index(n) + SUBJECTS if subject_of(n) is None else subject_of(n) for n in slots]
        self.tower = Tower(config, SUBJECTS + len(others) + config.free_slots + 1, SUBJECTS)
        self.heads = nn.ModuleList(nn.Linear(config.width, len(values)) for values in slots.values())
        self.to_lm = nn.LayerNorm(config.width)
        self.lm: Any = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=vocabulary,
                hidden_size=config.width,
                intermediate_size=config.width * 8 // 3 // 8 * 8,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                max_position_embeddings=4096,
                tie_word_embeddings=True,
                pad_token_id=PAD_ID,
                bos_token_id=None,
                eos_token_id=END_ID,
            )
        )
        self.video_out, self.text_out = (nn.Linear(config.width, config.width, bias=False) for _ in range(2))
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # CLIP's initial temperature

    def see(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Slots (B, S, D), the last of them the whole clip, and the same as the LM's prefix."""
        slots = self.tower(frames)
        return slots, self.to_lm(slots)

    def field_logits(self, slots: Tensor) -> list[Tensor]:
        return [head(slots[:, place]) for place, head in zip(self.places, self.heads)]

    def loss(self, frames: Tensor, text: Tensor, fields: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a batch of one shape.

        Args:
            frames: uint8 (B, T, H, W, 3).
            text: Ids (B, L): kind token, caption, end token, padding.
            fields: Class of each field (B, fields); -1 where the value is not in the head's list.
        """
        slots, prefix = self.see(frames)
        words = self.lm.get_input_embeddings()(text)
        hidden = self.lm.model(inputs_embeds=torch.cat([prefix, words[:, :-1]], dim=1), use_cache=False)
        logits = self.lm.lm_head(hidden.last_hidden_state[:, prefix.shape[1] :])
        target = text[:, 1:]
        caption = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=PAD_ID)
        contrastive = self._contrastive(slots[:, -1], text, words)
        terms = [
            F.cross_entropy(out, fields[:, i], ignore_index=-1)
            for i, out in enumerate(self.field_logits(slots))
            if bool((fields[:, i] >= 0).any())
        ]
        field = torch.stack(terms).sum() if terms else caption.new_zeros(())
        total = 2.0 * caption + 1.0 * contrastive + 0.5 * field
        return total, {"caption": caption, "contrastive": contrastive, "fields": field}

    def _contrastive(self, clip: Tensor, text: Tensor, words: Tensor) -> Tensor:
        """Symmetric InfoNCE of the clip's slot and the LM's state at the end token, read without the clip."""
        states = self.lm.model(inputs_embeds=words, use_cache=False).last_hidden_state
        at_end = (text == END_ID).int().argmax(dim=1)
        said = F.normalize(self.text_out(states[torch.arange(len(text)), at_end]), dim=-1)
        seen = F.normalize(self.video_out(clip), dim=-1)
        logits = seen @ said.T * self.log_scale.clamp(max=math.log(100.0)).exp()
        same = torch.arange(len(text))
        return (F.cross_entropy(logits, same) + F.cross_entropy(logits.T, same)) / 2

    @torch.no_grad()
    def write(
        self,
        frames: Tensor,
        kind_id: int,
        *,
        max_tokens: int,
        num_beams: int = 1,
        no_repeat_ngram: int = 0,
        do_sample: bool = False,
        **how: Any,
    ) -> list[list[int]]:
        """Ids that the LM writes for each clip of one shape; greedy (or beams, or drawn), with its KV cache."""
        prefix = self.see(frames)[1]
        kind = self.lm.get_input_embeddings()(torch.full((len(prefix), 1), kind_id))
        embeds = torch.cat([prefix, kind], dim=1)
        written = self.lm.generate(
            inputs_embeds=embeds,
            attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long),
            max_new_tokens=max_tokens,
            do_sample=do_sample,
            num_beams=num_beams,
            **how,
            logits_processor=_no_repeats(no_repeat_ngram),
            pad_token_id=PAD_ID,
            eos_token_id=END_ID,
        )
        return [[int(i) for i in row] for row in written]


def _no_repeats(run: int) -> Any:
    """No run of so many *written* tokens twice; `generate`'s own setting warns that it cannot see the prefix."""
    from transformers import LogitsProcessorList, NoRepeatNGramLogitsProcessor

    return LogitsProcessorList([NoRepeatNGramLogitsProcessor(run)] if run else [])


def describe(model: Captioner) -> dict[str, Any]:
    """What a checkpoint must hold beside the weights to build the model again."""
    return {
        "model": dataclasses.asdict(model.config),
        "slots": {name: list(values) for name, values in model.slots.items()},
        "vocabulary": model.lm.config.vocab_size,
    }


def rebuild(description: Mapping[str, Any]) -> Captioner:
    """The model that `describe` describes, with fresh weights."""
    sizes: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in description["model"].items()}
    return Captioner(ModelConfig(**sizes), description["slots"], description["vocabulary"])
