"""The captioner that is trained here: a tower, heads that name closed fields, and a small causal LM that is told them.

    frames -> tower -> one feature per closed field, a few free slots
                        |-> heads name the value of every closed field; subjects share theirs
    [told values, free slots, <short>|<dense>, caption...] -> Llama, trained as a prefix LM through `inputs_embeds`

What the LM is told of a closed field is an embedding of its value: in training the true one where the pair says it,
in use what the heads make of the clip, weighted by their belief.  So the LM learns to say what it is told, from
the first step and whatever the heads are still unsure of, the heads learn to see, and every claim of a caption
can be traced to a head.  What no head is sure of can be withheld from it, and is then not said (`unsaid.py`).
Before, the LM read the heads' features: 22 % of its captions had a wrong claim after 800 steps, and two events in
order were never learned (docs/log.md).  What has no closed field is in the free slots.

Loss as CoCa's with heads: 2 caption + 1 contrastive (clip against the text's end token) + 0.5 fields + 1 places.
Captions are the cheap part to learn, so the LM sees only the first clips of a batch, the contrastive loss fewer still.
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
from captioner.train.data import SUBJECTS, family, subject_of
from captioner.train.glimpse import CELL, place_loss
from captioner.train.tokenizer import END_ID, PAD_ID
from captioner.train.tower import Seen, Tower
from captioner.train.unsaid import deciding, groups_of

_CONTRASTED = 8  # clips of a batch in the contrastive loss: its text-only pass costs as much as the caption's


class Captioner(nn.Module):
    """Tower, field heads and LM; `loss` trains it, `write` captions."""

    sure: Tensor

    def __init__(
        self,
        config: ModelConfig,
        slots: Mapping[str, Sequence[str]],
        vocabulary: int,
        spelled: Mapping[str, Sequence[int]],
    ) -> None:
        """
        Args:
            slots: Values of each field that a head tells apart (see `data.slot_values`).
            vocabulary: Size of the tokenizer's vocabulary.
            spelled: Ids of the tokens that spell each value in a caption (see `tokenizer.spell`).
        """
        super().__init__()
        from transformers import LlamaConfig, LlamaForCausalLM

        self.config, self.slots = config, {name: tuple(values) for name, values in slots.items()}
        width = config.width
        self.tower = Tower(config, SUBJECTS)
        self.spelled = {value: tuple(ids) for value, ids in spelled.items()}
        families = {family(name): values for name, values in slots.items()}
        sizes = {name: len(values) for name, values in families.items()}
        for name, values in families.items():
            self.register_buffer(f"spelling_{name}", _spelling(values, self.spelled, vocabulary), persistent=False)
        self.heads = nn.ModuleDict(
            {f: nn.Sequential(nn.LayerNorm(width), nn.Linear(width, n)) for f, n in sizes.items()}
        )
        self.told = nn.ModuleDict({f: nn.Linear(n, width, bias=False) for f, n in sizes.items()})
        self.order = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.ReLU(), nn.Linear(2 * width, 2 * width))
        self.names = nn.Parameter(torch.randn(len(slots), width))
        self.register_buffer("sure", torch.tensor(config.sure))  # among the weights: another bound, other captions
        self.clip = nn.Linear(2 * width, width)
        self.to_lm = nn.LayerNorm(width)
        self.lm: Any = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=vocabulary,
                hidden_size=width,
                intermediate_size=width * 8 // 3 // 8 * 8,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                max_position_embeddings=4096,
                tie_word_embeddings=True,
                initializer_range=width**-0.5,  # the default, 0.02, is that of a width of thousands
                pad_token_id=PAD_ID,
                bos_token_id=None,
                eos_token_id=END_ID,
            )
        )
        self.video_out, self.text_out = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # CLIP's initial temperature

    def see(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Slots (B, S, D), one per closed field and then the free ones, and the LM's prefix (B, S, D)."""
        slots = self._slots(self.tower(frames))
        return slots, self._prefix(slots)

    def _slots(self, seen: Seen) -> Tensor:
        first = torch.cat([seen.begins[:, 0], seen.ends[:, 0]], dim=1)
        events = self.order(first).chunk(2, dim=1)
        features = []
        for name in self.slots:
            field, subject = family(name), subject_of(name)
            if field == "event":
                features.append(events[int(name.partition(".")[2])])
            elif subject is None:
                features.append(seen.together if field in ("count", "relation") else seen.scene)
            elif field == "motion":
                features.append((seen.ends if name.startswith("ends") else seen.begins)[:, subject])
            else:
                features.append(seen.looks[:, subject])
        return torch.cat([torch.stack(features, dim=1), seen.free], dim=1) if features else seen.free

    def field_logits(self, slots: Tensor) -> list[Tensor]:
        return [self.heads[family(name)](slots[:, i]) for i, name in enumerate(self.slots)]

    def unsure(self, slots: Tensor) -> Tensor:
        """Which fields no head is sure of (B, closed fields), those of one claim together."""
        best = torch.stack([out.softmax(dim=-1).amax(dim=-1) for out in self.field_logits(slots)], dim=1)
        withheld = torch.zeros_like(best, dtype=torch.bool)
        names = tuple(self.slots)
        for group in groups_of(names).values():
            withheld[:, group] = (best[:, deciding(names, group)].amin(dim=1) < self.sure)[:, None]
        return withheld

    def _prefix(self, slots: Tensor, fields: Tensor | None = None, withheld: Tensor | None = None) -> Tensor:
        """What the LM reads.

        Args:
            fields: True classes, -1 where the heads' own belief is told instead; None tells belief alone.
            withheld: Which fields (B, S) are not told.
        """
        told, names = [], [family(name) for name in self.slots]
        for i, logits in enumerate(self.field_logits(slots)):
            belief = logits.softmax(dim=-1).detach()
            if fields is not None:
                known = fields[:, i, None] >= 0
                belief = torch.where(known, F.one_hot(fields[:, i].clamp(min=0), belief.shape[-1]).to(belief), belief)
            if withheld is not None:
                belief = belief * ~withheld[:, i, None]
            told.append(self._told(names[i], belief) + self.names[i])
        free = slots[:, len(self.slots) :]
        return self.to_lm(torch.cat([torch.stack(told, dim=1), free], dim=1) if told else free)

    def _told(self, name: str, belief: Tensor) -> Tensor:
        """A field's value for the LM: the embeddings of its words, so that saying it is copying, and one of its own."""
        words = getattr(self, f"spelling_{name}") @ self.lm.get_input_embeddings().weight
        spelled = F.layer_norm(words, words.shape[-1:])
        return self.told[name](belief) + belief @ spelled

    def loss(
        self, frames: Tensor, text: Tensor, fields: Tensor, places: Tensor, withheld: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a batch of one shape.

        Args:
            frames: uint8 (B, T, H, W, 3).
            text: Ids (M, L) of the first M clips: kind token, caption, end token, padding.
            fields: Class of each field (B, fields); -1 where the value is not in the head's list.
            places: (x, y) of each subject at each moment as shares of the picture (B, K, t, 2); -1 where unknown.
            withheld: Fields of those M clips (M, S) that the caption leaves out.
        """
        seen = self.tower(frames)
        slots = self._slots(seen)
        spoken = len(text)
        known = fields[:spoken] if self.training else None  # held out, as in use
        prefix = self._prefix(slots[:spoken], known, withheld)
        words = self.lm.get_input_embeddings()(text)
        hidden = self.lm.model(inputs_embeds=torch.cat([prefix, words[:, :-1]], dim=1), use_cache=False)
        logits = self.lm.lm_head(hidden.last_hidden_state[:, prefix.shape[1] :])
        caption = F.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten(), ignore_index=PAD_ID)
        whole = self.clip(torch.cat([seen.scene, seen.looks[:, 0]], dim=1))[: min(spoken, _CONTRASTED)]
        contrastive = self._contrastive(whole, text[: len(whole)], words[: len(whole)])
        terms = [
            F.cross_entropy(out, fields[:, i], ignore_index=-1)
            for i, out in enumerate(self.field_logits(slots))
            if bool((fields[:, i] >= 0).any())
        ]
        field = torch.stack(terms).sum() if terms else caption.new_zeros(())
        where = place_loss(seen.log_where, places, frames.shape[2] // CELL, frames.shape[3] // CELL)
        total = 2.0 * caption + 1.0 * contrastive + 0.5 * field + 1.0 * where
        return total, {"caption": caption, "contrastive": contrastive, "fields": field, "places": where}

    def _contrastive(self, clip: Tensor, text: Tensor, words: Tensor) -> Tensor:
        """Symmetric InfoNCE of the clip and the LM's state at the end token, read without the clip."""
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
        slots = self.see(frames)[0]
        prefix = self._prefix(slots, withheld=self.unsure(slots) if self.slots and self.sure > 0 else None)
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


def _spelling(values: Sequence[str], spelled: Mapping[str, Sequence[int]], vocabulary: int) -> Tensor:
    """How often each token spells each value, rows that sum to 1 or, where nothing is said, to 0."""
    counts = torch.zeros(len(values), vocabulary)
    for row, value in enumerate(values):
        for token in spelled.get(value, ()):
            counts[row, token] += 1 / len(spelled[value])
    return counts


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
        "spelled": {value: list(ids) for value, ids in model.spelled.items()},
    }


def rebuild(description: Mapping[str, Any]) -> Captioner:
    """The model that `describe` describes, with fresh weights."""
    sizes: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in description["model"].items()}
    return Captioner(ModelConfig(**sizes), description["slots"], description["vocabulary"], description["spelled"])
