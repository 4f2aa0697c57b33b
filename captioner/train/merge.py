"""An adapter and its base as one model on disk, for servers that load whole models (vLLM) and for further training.

Merging adds each adapter's product to the weight it stands beside, so the merged model answers as base and adapter did
up to rounding.  Written as safetensors with the processor and chat template.  Memory: that of the base.
"""

import dataclasses
from pathlib import Path

from captioner.backends.base import VlmConfig
from captioner.backends.transformers_vlm import open_vlm


def export_merged(vlm: VlmConfig, to: str) -> str:
    """Write base and adapter as one model with its processor, as servers (vLLM) load it; returns the base's name.

    Args:
        vlm: The model, with its adapter's folder.
        to: A folder that does not exist yet; it appears whole or not at all.
    """
    import peft

    base = open_vlm(dataclasses.replace(vlm, adapter=""))
    merged = peft.PeftModel.from_pretrained(base.net, vlm.adapter).merge_and_unload()
    staged = Path(f"{to.rstrip('/')}.staged")
    merged.save_pretrained(str(staged), safe_serialization=True)
    base.processor.save_pretrained(str(staged))
    staged.rename(to)
    return base.model
