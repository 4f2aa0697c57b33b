"""Text for the DiT: any text encodes, texts do not see each other, and pretrained encoders load by name."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from schemas.errors import ModelError
from trainer.model.config import ModelConfig, TextConfig
from trainer.model.dit import DiT, Pack
from trainer.model.text import PretrainedText, TextEncoder, encode, train_tokenizer

CONFIG = TextConfig(vocabulary=300, width=24, heads=2, max_tokens=16)
TEXTS = ["A small red circle moves left.", "A blue star.", ""]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS * 3, CONFIG)


def test_any_text_encodes_within_the_limit_and_ends(tokenizer: Tokenizer) -> None:
    for text in [*TEXTS, "\u00e9t\u00e9 \U0001f600", "x" * 500]:
        ids = encode(tokenizer, text, 16)
        assert 1 <= len(ids) <= 16
        assert ids[-1] == tokenizer.token_to_id("<end>")
    assert encode(tokenizer, "", 16) == [tokenizer.token_to_id("<end>")]


def test_the_same_texts_give_the_same_tokenizer(tokenizer: Tokenizer) -> None:
    assert train_tokenizer(TEXTS * 3, CONFIG).to_str() == tokenizer.to_str()


def test_a_text_has_the_features_it_has_alone(tokenizer: Tokenizer) -> None:
    torch.manual_seed(0)
    net = TextEncoder(CONFIG, tokenizer)
    packed, lengths = net(TEXTS)
    alone = torch.cat([net([t])[0] for t in TEXTS])
    assert lengths[-1] == 1
    assert torch.allclose(packed, alone, atol=1e-6)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T5 encoder of a few thousand random weights, saved as transformers saves one."""
    folder = tmp_path_factory.mktemp("t5")
    words = ["<pad>", "</s>", "<unk>", "a", "red", "circle", "."]
    plain = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = T5Config(vocab_size=8, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    T5EncoderModel(config).save_pretrained(folder)
    return folder


def test_a_pretrained_encoder_loads_by_path_and_is_frozen(pretrained: Path) -> None:
    config = TextConfig(pretrained=str(pretrained), max_tokens=16)
    net = PretrainedText(config)
    features, lengths = net(["a red circle .", ""])
    assert features.shape == (sum(lengths), 16)
    assert lengths[0] == 4
    assert not list(net.parameters())
    dit = DiT(ModelConfig(size="nano", text=config), 4, None)
    pack = Pack(torch.randn(4, 4), torch.zeros(4, 3), torch.zeros(4, dtype=torch.bool), (4,), torch.ones(1), ("a",))
    assert dit(pack).shape == (4, 4)


def test_a_missing_encoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing` does not load"):
        PretrainedText(TextConfig(pretrained=str(tmp_path / "nothing")))
    with pytest.raises(ModelError, match="needs its tokenizer"):
        DiT(ModelConfig(size="nano"), 4, None)
