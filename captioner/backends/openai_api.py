"""Any OpenAI-compatible server (vLLM among them), over plain urllib: frames travel as JPEG data URLs.

One request per clip, a few at once; temperature 0 and a seed, so that a server that can repeat itself does.
`finish_reason` is passed on as the server gives it: a caption that was cut short is seen.

A server that is away, overloaded (429) or broken (5xx) is asked again after a pause that doubles, or that it
names itself (`Retry-After`).  A question that stays without an answer is that clip's error, and the other clips
keep theirs; as long as the last one failed so, the next are sent once only, so that a dead server costs one wait
and not one per clip.
"""

import base64
import concurrent.futures
import http.client
import io
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from PIL import Image

from captioner.backends.base import LENGTH, STOP, ApiConfig, Backend, Clip, Decoding, Written
from captioner.prompt import Prompt
from captioner.record import SCHEMA
from schemas.errors import WorldError

_AT_ONCE = 8
_AGAIN = frozenset((408, 425, 429, 500, 502, 503, 504))
_LONGEST_PAUSE_S = 30.0


class Unanswered(Exception):
    """A question without a usable answer; `passing` if another time it may have one."""

    def __init__(self, why: str, passing: bool, pause_s: float | None = None) -> None:
        super().__init__(why)
        self.passing, self.pause_s = passing, pause_s


class OpenaiApi(Backend):
    """A chat endpoint that reads pictures."""

    constrains = True
    sees_more = True

    def __init__(self, config: ApiConfig) -> None:
        self._config, self._down = config, False
        self.engine = f"openai api at {config.url}"
        try:
            self.model = config.model or str(self.call("/models", None)["data"][0]["id"])
        except (Unanswered, KeyError, IndexError, TypeError) as e:
            raise WorldError(
                f"the captioner's server {config.url} does not say which model it has ({e}): start it, or name "
                "another with --set captioner.api.url=URL and the model with --set captioner.api.model=NAME"
            ) from None

    def write(self, clips: Sequence[Clip], prompt: Prompt, decoding: Decoding) -> list[Written]:
        with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(lambda clip: self._written(clip, prompt, decoding), clips))

    def _written(self, clip: Clip, prompt: Prompt, decoding: Decoding) -> Written:
        try:
            return self._write(clip, prompt, decoding)
        except Unanswered as e:
            return Written("", 0, "", error=str(e))

    def _write(self, clip: Clip, prompt: Prompt, decoding: Decoding) -> Written:
        times = ", ".join(f"{t:.2f}" for t in clip.times_s)
        pictures = [{"type": "image_url", "image_url": {"url": _data_url(f)}} for f in clip.frames]
        text = f"{prompt.text}\nThe pictures are frames of one clip in order, at {times} seconds."
        record = {"name": "caption", "schema": SCHEMA, "strict": True}
        answer = self.call(
            "/chat/completions",
            {
                "model": self.model,
                "messages": [{"role": "user", "content": [*pictures, {"type": "text", "text": text}]}],
                "max_tokens": decoding.tokens(prompt.kind),
                "temperature": decoding.temperature,
                "seed": decoding.seed,
                # a server has no `no_repeat_ngram`; vLLM and others know this penalty
                **({"frequency_penalty": 0.5} if decoding.no_repeat_ngram else {}),
                **({"response_format": {"type": "json_schema", "json_schema": record}} if decoding.constrained else {}),
            },
        )
        try:
            choice = answer["choices"][0]
            said = choice["message"].get("content") or ""
            count = int((answer.get("usage") or {}).get("completion_tokens", len(said.split())))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            why = f"{self._config.url} answered without a text: {str(answer)[:200]}"
            raise Unanswered(why, passing=False) from None
        return Written(said, count, LENGTH if choice.get("finish_reason") == "length" else STOP)

    def call(self, path: str, body: dict[str, Any] | None) -> Any:
        """The answer, asked for as often as the config allows.

        Raises:
            Unanswered: If there is none.
        """
        tries = 1 if self._down else self._config.tries
        pause_s = self._config.backoff_s
        for number in range(1, tries + 1):
            try:
                answer = self._send(path, body)
            except Unanswered as e:
                if not e.passing:
                    raise
                if number == tries:
                    self._down = True
                    raise Unanswered(f"{e} ({number} tries)", passing=True) from None
                time.sleep(min(_LONGEST_PAUSE_S, pause_s if e.pause_s is None else e.pause_s))
                pause_s *= 2
            else:
                self._down = False
                return answer
        raise AssertionError("a loop of at least one try ends in it")

    def _send(self, path: str, body: dict[str, Any] | None) -> Any:
        url = self._config.url.rstrip("/") + path
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self._config.key_env):
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, headers=headers)  # noqa: S310 - the config admits http(s) only
        try:
            with urllib.request.urlopen(request, timeout=self._config.timeout_s) as reply:  # noqa: S310
                return json.load(reply)
        except urllib.error.HTTPError as e:
            with e:
                detail = e.read(500).decode(errors="replace")
                pause = e.headers.get("Retry-After", "")
            pause_s = float(pause) if pause.isdecimal() else None
            raise Unanswered(f"{url} answered {e.code}: {detail}", e.code in _AGAIN, pause_s) from None
        except (OSError, http.client.HTTPException) as e:  # away, timed out, or hung up in the middle
            why = getattr(e, "reason", None) or e
            raise Unanswered(f"{url} is away: {why or type(e).__name__}", passing=True) from None
        except ValueError:
            raise Unanswered(f"{url} answered with something that is no JSON", passing=True) from None


def _data_url(frame: Any) -> str:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
