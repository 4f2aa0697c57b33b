"""The captioner's backends: one file and one line each."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from schemas.settings import pick

if TYPE_CHECKING:
    from captioner.backends.base import Backend


def _recaptioner(settings: Any, checkpoint: str) -> "Backend":
    from captioner.backends.recaptioner import Recaptioner

    return Recaptioner(checkpoint)


def _transformers_vlm(settings: Any, checkpoint: str) -> "Backend":
    from captioner.backends.transformers_vlm import TransformersVlm

    vlm = dataclasses.replace(settings.vlm, adapter=checkpoint) if checkpoint else settings.vlm
    return TransformersVlm(vlm)


def _openai_api(settings: Any, checkpoint: str) -> "Backend":
    from captioner.backends.openai_api import OpenaiApi

    return OpenaiApi(settings.api)


def _fake(settings: Any, checkpoint: str) -> "Backend":
    from captioner.backends.fake import Fake

    return Fake()


BACKENDS: dict[str, Callable[[Any, str], "Backend"]] = {
    "recaptioner": _recaptioner,
    "transformers_vlm": _transformers_vlm,
    "openai_api": _openai_api,
    "fake": _fake,
}
SEE_MORE = ("transformers_vlm", "openai_api")
"""Backends that take any number of frames, known before any is loaded."""


def load(settings: Any, checkpoint: str = "") -> "Backend":
    """Load the backend that the settings name.

    Args:
        settings: A `captioner.config.Captioning`.
        checkpoint: Local folder of the recaptioner's checkpoint or of a trained adapter; others need none.
    """
    loader: Callable[[Any, str], Backend] = pick("captioner backend", settings.backend, BACKENDS)
    return loader(settings, checkpoint)
