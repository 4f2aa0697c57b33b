"""Any video-language model of transformers (Qwen3-VL, SmolVLM2, LLaVA-OneVision, ...), by hub name or local path.

Frames and their times go through the model's own processor and chat template.  The stage has already chosen
the frames, so the processor must not choose again (`do_sample_frames=False`), and it is told the true times
(`video_metadata`), since processors otherwise assume 24 frames/s (facts/captioner.md 2.5).  Weights come as
safetensors only.  Not measured at full size here: that wants a GPU and a hub.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from captioner.backends.base import LENGTH, STOP, Backend, Clip, Decoding, VlmConfig, Written
from captioner.backends.draws import drawn, torch_engine
from captioner.prompt import Prompt
from schemas.errors import ModelError
from schemas.ids import ID_DIGITS


@dataclasses.dataclass(frozen=True)
class Vlm:
    """A model with its processor, and how both are spoken to: the same in training and in captioning."""

    net: Any
    processor: Any
    device: str
    model: str
    """Name of the weights: digest, or hub name and commit; with an adapter `<base>+<digest of the adapter>`."""

    def inputs(self, clips: Sequence[Clip], prompt: Prompt, answers: Sequence[str] | None = None) -> Any:
        """What the model is given: the chat template's text and the processor's pixels.

        Args:
            answers: With them the text goes on with each answer and the end of the turn, as it should be written.
        """
        talk = [
            [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": prompt.text}]}] for _ in clips
        ]
        texts = [self.processor.apply_chat_template(t, tokenize=False, add_generation_prompt=True) for t in talk]
        if answers is not None:
            texts = [text + answer + self.end for text, answer in zip(texts, answers)]
        self.processor.tokenizer.padding_side = "left"  # a decoder continues from the right
        inputs = self.processor(
            text=texts,
            videos=[[np.asarray(c.frames)] for c in clips],
            video_metadata=[[_metadata(c)] for c in clips],
            do_sample_frames=False,
            padding=True,
            return_tensors="pt",
        )
        return inputs.to(self.device)

    @property
    def end(self) -> str:
        """The token that ends an answer."""
        return str(self.processor.tokenizer.eos_token)


def open_vlm(config: VlmConfig) -> Vlm:
    """Load model, processor and adapter, in evaluation mode.

    Raises:
        ModelError: If one of them does not load; says why.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        processor = AutoProcessor.from_pretrained(config.model, revision=config.revision)
        net: Any = AutoModelForImageTextToText.from_pretrained(
            config.model, revision=config.revision, dtype=config.dtype, use_safetensors=True
        )
        if config.adapter:
            net.load_adapter(config.adapter)  # needs peft
    except (OSError, ImportError, ValueError) as e:
        raise ModelError(f"captioner model `{config.model}` does not load: {e}") from e
    model = weights_name(config, getattr(net.config, "_commit_hash", None))
    return Vlm(net.to(device).eval(), processor, device, model)


class TransformersVlm(Backend):
    """A pretrained model behind `AutoProcessor` and `AutoModelForImageTextToText`."""

    sees_more = True

    def __init__(self, config: VlmConfig) -> None:
        self.vlm = open_vlm(config)
        self.model = self.vlm.model
        self.adapter = self.model.partition("+")[2]
        self.engine = torch_engine(self.vlm.device, self.vlm.net.dtype)

    def write(self, clips: Sequence[Clip], prompt: Prompt, decoding: Decoding) -> list[Written]:
        if decoding.temperature:  # drawn one by one, so that a clip's text does not depend on its company
            return [text for clip in clips for text in self._write([clip], prompt, decoding)]
        return self._write(clips, prompt, decoding)

    def _write(self, clips: Sequence[Clip], prompt: Prompt, decoding: Decoding) -> list[Written]:
        inputs = self.vlm.inputs(clips, prompt)
        given = inputs["input_ids"].shape[1]
        budget = decoding.tokens(prompt.kind)
        ends = self.vlm.net.generation_config.eos_token_id
        ends = {*(ends if isinstance(ends, list) else [ends]), self.vlm.processor.tokenizer.eos_token_id}
        with torch.inference_mode(), drawn(decoding) as how:
            ids = self.vlm.net.generate(
                **inputs,
                max_new_tokens=budget,
                num_beams=decoding.num_beams,
                no_repeat_ngram_size=decoding.no_repeat_ngram,
                **({"do_sample": False} | how),
            )
        return [self._written([int(i) for i in row[given:]], ends) for row in ids]

    def _written(self, ids: list[int], ends: set[int]) -> Written:
        at = next((n for n, i in enumerate(ids) if i in ends), None)
        said = ids if at is None else ids[:at]
        text = self.vlm.processor.tokenizer.decode(said, skip_special_tokens=True).strip()
        return Written(text, len(said), LENGTH if at is None else STOP)


def _metadata(clip: Clip) -> dict[str, Any]:
    """Times as the processors read them: a frame rate and the place of each frame on it."""
    count = len(clip.frames)
    length_s = clip.times_s[-1] - clip.times_s[0]
    fps = (count - 1) / length_s if length_s > 0 else 1.0
    return {
        "total_num_frames": count,
        "fps": fps,
        "duration": count / fps,
        "frames_indices": list(range(count)),
        "height": clip.frames.shape[1],
        "width": clip.frames.shape[2],
    }


def weights_name(config: VlmConfig, commit: str | None) -> str:
    """Digest of a local folder's weights; name and commit of a hub model; `+` and the digest of an adapter."""
    adapter = ""
    if config.adapter:
        local = Path(config.adapter).is_dir()
        adapter = f"+{adapter_digest(config.adapter) if local else config.adapter}"
    files = sorted(Path(config.model).glob("*.safetensors"))
    if not files:
        return f"{config.model}@{commit or config.revision}{adapter}"
    sha = hashlib.sha256()
    for file in files:
        with file.open("rb") as f:
            while block := f.read(1 << 22):
                sha.update(block)
    return sha.hexdigest()[:ID_DIGITS] + adapter


def adapter_digest(folder: str | Path) -> str:
    """Digest of an adapter's weights.

    Raises:
        ModelError: If the folder holds no safetensors adapter.
    """
    try:
        return hashlib.sha256((Path(folder) / "adapter_model.safetensors").read_bytes()).hexdigest()[:ID_DIGITS]
    except OSError as e:
        raise ModelError(f"{folder} holds no adapter_model.safetensors: {e}") from e
