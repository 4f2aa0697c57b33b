"""Any OpenAI-compatible server (vLLM among them), over plain urllib: frames travel as JPEG data URLs.

One request per clip, a few at once; temperature 0 and a seed, so that a server that can repeat itself does.
`finish_reason` is passed on as the server gives it: a caption that was cut short is seen.
"""

import base64
import concurrent.futures
import io
import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from PIL import Image

from captioner.backends.base import LENGTH, STOP, ApiConfig, Clip, Decoding, Written
from captioner.prompt import Prompt

_AT_ONCE = 8


class OpenaiApi:
    """A chat endpoint that reads pictures."""

    def __init__(self, config: ApiConfig) -> None:
        self._config = config
        self.model = config.model or str(self._call("/models", None)["data"][0]["id"])

    def write(self, clips: Sequence[Clip], prompt: Prompt, decoding: Decoding) -> list[Written]:
        with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(lambda clip: self._write(clip, prompt, decoding), clips))

    def _write(self, clip: Clip, prompt: Prompt, decoding: Decoding) -> Written:
        times = ", ".join(f"{t:.2f}" for t in clip.times_s)
        pictures = [{"type": "image_url", "image_url": {"url": _data_url(f)}} for f in clip.frames]
        text = f"{prompt.text}\nThe pictures are frames of one clip in order, at {times} seconds."
        answer = self._call(
            "/chat/completions",
            {
                "model": self.model,
                "messages": [{"role": "user", "content": [*pictures, {"type": "text", "text": text}]}],
                "max_tokens": decoding.tokens(prompt.kind),
                "temperature": 0.0,
                "seed": 0,
                # a server has no `no_repeat_ngram`; vLLM and others know this penalty
                **({"frequency_penalty": 0.5} if decoding.no_repeat_ngram else {}),
            },
        )
        choice = answer["choices"][0]
        said = choice["message"].get("content") or ""
        count = int(answer.get("usage", {}).get("completion_tokens", len(said.split())))
        return Written(said, count, LENGTH if choice.get("finish_reason") == "length" else STOP)

    def _call(self, path: str, body: dict[str, Any] | None) -> Any:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self._config.key_env):
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._config.url.rstrip("/") + path, data=data, headers=headers)  # noqa: S310 - the config admits http(s) only
        try:
            with urllib.request.urlopen(request, timeout=self._config.timeout_s) as reply:  # noqa: S310
                return json.load(reply)
        except urllib.error.HTTPError as e:
            with e:
                detail = e.read(500).decode(errors="replace")
            raise ConnectionError(f"{self._config.url}{path} answered {e.code}: {detail}") from None


def _data_url(frame: Any) -> str:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
