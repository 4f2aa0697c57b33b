"""Text for the DiT: a small encoder trained with it, or a pretrained one by name.

By default a byte-level BPE is trained on the manifest's own captions (any text encodes; no download) and a
small transformer is trained jointly with the DiT.  With `pretrained`, a transformers text encoder (T5, umT5,
CLIP text, Qwen ...) is loaded by name or path and kept frozen.  No caption (for guidance) is the lone end token.

Texts are packed like videos: no padding between them.  Cost: tokenizer training under 1 s for thousands of
captions.  Sources: Sennrich et al. arXiv:1508.07909 (BPE); T5, arXiv:1910.10683.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn

from schemas.errors import ModelError
from trainer.model.attention import Segments, segments
from trainer.model.block import Attention, Mlp
from trainer.model.config import TextConfig

END = "<end>"


def train_tokenizer(texts: Iterable[str], config: TextConfig) -> Tokenizer:
    """A byte-level BPE of the texts; the same texts in the same order give the same tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, text: str, max_tokens: int) -> list[int]:
    """Token ids of a text, cut to fit, with the end token; the empty text is the end token alone."""
    ids = tokenizer.encode(text).ids if text else []
    return [*ids[: max_tokens - 1], int(tokenizer.token_to_id(END) or 0)]


class TextLayer(nn.Module):
    """Self-attention and MLP, normed before."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(config.width)
        self.attention = Attention(config.width, config.heads)
        self.norm_mlp = nn.LayerNorm(config.width)
        self.mlp = Mlp(config.width, 2)

    def forward(self, x: torch.Tensor, where: Segments) -> torch.Tensor:
        h = self.norm_attention(x)
        x = x + self.attention(h, h, where)
        return x + self.mlp(self.norm_mlp(x))


class TextEncoder(nn.Module):
    """Our own: embedding, positions, a few transformer layers; trained with the DiT."""

    def __init__(self, config: TextConfig, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.config, self.tokenizer, self.width = config, tokenizer, config.width
        self.embedding = nn.Embedding(tokenizer.get_vocab_size(), config.width)
        self.position = nn.Embedding(config.max_tokens, config.width)
        nn.init.normal_(self.embedding.weight, std=0.5)
        nn.init.normal_(self.position.weight, std=0.1)
        self.layers = nn.ModuleList(TextLayer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, texts: Sequence[str]) -> tuple[torch.Tensor, list[int]]:
        """Texts to packed features (tokens, width) and their lengths."""
        device = self.embedding.weight.device
        ids = [encode(self.tokenizer, text, self.config.max_tokens) for text in texts]
        lengths = [len(i) for i in ids]
        flat = torch.tensor([t for i in ids for t in i], device=device)
        place = torch.tensor([p for n in lengths for p in range(n)], device=device)
        x = self.embedding(flat) + self.position(place)
        where = segments(lengths, lengths, device)
        for layer in self.layers:
            x = layer(x, where)
        return self.norm(x), lengths

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        return [len(encode(self.tokenizer, text, self.config.max_tokens)) for text in texts]

    def save(self, folder: Path) -> None:
        """Write what the weights need beside them."""
        self.tokenizer.save(str(folder / "tokenizer.json"))


class PretrainedText(nn.Module):
    """A frozen transformers encoder; its weights are not part of our checkpoint, its name is."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        from transformers import AutoConfig, AutoModel, AutoTokenizer, T5EncoderModel, UMT5EncoderModel

        name = config.pretrained or ""
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(name)
            kind = AutoConfig.from_pretrained(name)
            loaders: dict[str, Any] = {
                "t5": T5EncoderModel,
                "umt5": UMT5EncoderModel,
            }  # AutoModel would load their decoder too
            model: Any = loaders.get(kind.model_type, AutoModel).from_pretrained(name)
        except (OSError, ValueError) as e:
            raise ModelError(f"text encoder `{name}` does not load: {e}") from e
        model = getattr(model, "text_model", model).eval().requires_grad_(False)
        self.config, self.width = config, int(getattr(kind, "d_model", 0) or kind.hidden_size)
        self._frozen = [model]  # in a list, so that it is no submodule: neither trained nor saved
        self._known: dict[str, torch.Tensor] = {}

    def forward(self, texts: Sequence[str]) -> tuple[torch.Tensor, list[int]]:
        """As `TextEncoder`; a text is encoded once and remembered."""
        for text in dict.fromkeys(t for t in texts if t not in self._known):
            batch = self._tokenizer(
                text or self._tokenizer.eos_token or " ",
                return_tensors="pt",
                truncation=True,
                max_length=self.config.max_tokens,
            )
            with torch.no_grad():
                hidden = self._frozen[0](**batch).last_hidden_state[0]
            self._known[text] = hidden.float()
        return torch.cat([self._known[t] for t in texts]), [len(self._known[t]) for t in texts]

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, as far as they are known yet; 0 for the others."""
        return [len(self._known[t]) if t in self._known else 0 for t in texts]

    def save(self, folder: Path) -> None:
        """Nothing: the config names the encoder."""


def text_encoder(config: TextConfig, tokenizer: Tokenizer | None) -> TextEncoder | PretrainedText:
    """The encoder that the config asks for."""
    if config.pretrained:
        return PretrainedText(config)
    if tokenizer is None:
        raise ModelError("our own text encoder needs its tokenizer.json")
    return TextEncoder(config, tokenizer)
