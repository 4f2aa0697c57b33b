"""The captioner's vocabulary: byte-level BPE learned in this process from the captions it will write.

Bytes, so that any text can be said; learned here, so that nothing is downloaded and a tiny model does not
carry 50,000 rows of embedding.  Three control tokens say which caption is wanted and where it ends.  A caption
that *contains* the text of a control token is encoded as plain bytes: control ids are added by number,
never through text (a video's on-screen text may be anything).  Cost: under a second for 5,000 captions.
"""

from collections.abc import Iterable, Sequence
from typing import Any

PAD, SHORT, DENSE, END = "<pad>", "<short>", "<dense>", "<end>"
CONTROL = (PAD, SHORT, DENSE, END)
PAD_ID, SHORT_ID, DENSE_ID, END_ID = range(len(CONTROL))
KIND_ID = {"short": SHORT_ID, "dense": DENSE_ID}


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> Any:
    """A `PreTrainedTokenizerFast` over these texts; the same texts give the same vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(CONTROL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(sorted(set(texts)), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token=PAD, eos_token=END)


def load_tokenizer(folder: str) -> Any:
    """The tokenizer that was saved with a checkpoint."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(folder)


def encode(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text without control tokens, whatever the text says."""
    pieces = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)
    model = tokenizer.backend_tokenizer.model
    return [token.id for piece, _ in pieces for token in model.tokenize(piece)]


def spell(tokenizer: Any, values: Iterable[str]) -> dict[str, list[int]]:
    """Ids of each value as it stands within a sentence, after a space."""
    return {value: encode(tokenizer, f" {value}") if value else [] for value in values}


def decode(tokenizer: Any, ids: Sequence[int]) -> tuple[str, bool]:
    """Written text up to the end token, and whether the end token was reached.

    Any other control token in it stays visible, so that the parser can refuse it.
    """
    ids = list(ids)
    ended = END_ID in ids
    said = ids[: ids.index(END_ID)] if ended else [i for i in ids if i != PAD_ID]
    return tokenizer.decode(said, skip_special_tokens=False, clean_up_tokenization_spaces=False), ended
