"""Video-language models of real classes (Qwen3-VL, SmolVLM), random weights: built from configs, no hub, tiny."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}"
    "{% if c.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ c.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SPECIAL = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")


def _tokenizer(special: Sequence[str], end: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        ["a"],
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=["<|endoftext|>", *special],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<|endoftext|>",
        eos_token=end,
        additional_special_tokens=list(special),
    )


def _loud(net: Any) -> None:
    """Larger embeddings: with those of a fresh model no adapter can move a word's probability far from 1 / words."""
    import torch

    with torch.no_grad():
        for weight in {net.get_input_embeddings().weight, net.get_output_embeddings().weight}:
            weight.mul_(20)


def save_tiny_vlm(folder: Path) -> str:
    """Write model, processor and chat template as a local checkpoint folder."""
    import torch
    from transformers import (
        Qwen2VLImageProcessor,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    tokenizer = _tokenizer(_SPECIAL, end="<|im_end|>")
    ids = {t: tokenizer.convert_tokens_to_ids(t) for t in ("<|endoftext|>", *_SPECIAL)}
    torch.manual_seed(0)
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "rope_parameters": {"rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 10000.0},
            "pad_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "patch_size": 8,
            "out_hidden_size": 32,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    net = Qwen3VLForConditionalGeneration(config)
    _loud(net)
    net.save_pretrained(folder)
    sizes: dict[str, Any] = {"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2}
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(**sizes, size={"shortest_edge": 256, "longest_edge": 65536}),
        video_processor=Qwen3VLVideoProcessor(**sizes, size={"shortest_edge": 256, "longest_edge": 65536}),
        tokenizer=tokenizer,
        chat_template=_TEMPLATE,
    )
    processor.save_pretrained(folder)
    return str(folder)


def save_tiny_smolvlm(folder: Path) -> str:
    """The same of SmolVLM's class: an Idefics-like tower, a Llama, one picture per frame with its time in words."""
    import torch
    from transformers import (
        SmolVLMConfig,
        SmolVLMForConditionalGeneration,
        SmolVLMImageProcessor,
        SmolVLMProcessor,
        SmolVLMVideoProcessor,
    )

    words = ("<image>", "<fake_token_around_image>", "<global-img>", "<video>", "<end_of_utterance>", "<|im_start|>")
    tokenizer = _tokenizer(words, end="<end_of_utterance>")
    torch.manual_seed(0)
    config = SmolVLMConfig(
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.convert_tokens_to_ids("<|im_start|>"),
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    net = SmolVLMForConditionalGeneration(config)
    _loud(net)
    net.generation_config.eos_token_id = tokenizer.eos_token_id
    net.generation_config.pad_token_id = tokenizer.pad_token_id
    net.save_pretrained(folder)
    sides: dict[str, Any] = {"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 32}}
    processor = SmolVLMProcessor(
        image_processor=SmolVLMImageProcessor(**sides, do_image_splitting=False),
        video_processor=SmolVLMVideoProcessor(
            **sides, video_sampling={"max_frames": 64, "fps": 1, "video_size": {"longest_edge": 32}}
        ),
        tokenizer=tokenizer,
        image_seq_len=4,
    )
    processor.save_pretrained(folder)
    return str(folder)
