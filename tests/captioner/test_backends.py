"""What every backend must do, and how the two for other people's models are wired."""

import base64
import dataclasses
import io
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captioner.backends import BACKENDS, load
from captioner.backends.base import BACKEND_NAMES, LENGTH, STOP, ApiConfig, Clip, Decoding, VlmConfig, Written
from captioner.backends.openai_api import OpenaiApi
from captioner.backends.transformers_vlm import TransformersVlm
from captioner.config import CaptionerConfig
from captioner.prompt import KINDS, PROMPTS, RECORDS, prompt, prompt_digest
from captioner.recipes import tiny
from captioner.stages import CAPTIONER_MODEL
from pipelines.execute import run_stage
from schemas.captions import PAIRS
from schemas.errors import ConfigError, ModelError, WorldError
from schemas.store import Store
from tests.captioner.worlds import pairs

SHORT_BUDGET = Decoding(short_tokens=5, dense_tokens=7)


class Server(BaseHTTPRequestHandler):
    """A chat endpoint that says how many pictures it got, and keeps what it was sent."""

    sent: list[dict[str, Any]]
    answer: tuple[int, str, str]
    failures: list[int]
    """Codes to answer with first, one per request; 0 hangs up."""
    keys: list[str | None]

    def do_GET(self) -> None:
        self._reply(200, {"data": [{"id": "served-model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).sent.append(body)
        type(self).keys.append(self.headers.get("Authorization"))
        code, text, finish = type(self).answer
        if type(self).failures:
            code = type(self).failures.pop(0)
            if not code:
                self.close_connection = True
                self.connection.close()
                return
        pictures = sum(part["type"] == "image_url" for part in body["messages"][0]["content"])
        text = text.format(pictures=pictures)
        self._reply(
            code,
            {
                "choices": [{"message": {"content": text}, "finish_reason": finish}],
                "usage": {"completion_tokens": 11},
            },
        )

    def _reply(self, code: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    listening = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.server_address[1]}/v1"
    listening.shutdown()
    listening.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    Server.sent, Server.keys, Server.answer, Server.failures = [], [], (200, "{pictures} pictures.", "stop"), []


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    store = Store(tmp_path_factory.mktemp("root")).create()
    store.commit(PAIRS, PAIRS.from_rows(pairs()))
    return store.fetch(run_stage(CAPTIONER_MODEL, store, tiny()).metrics["checkpoint"])


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> str:
    from tests.captioner.tiny_vlm import save_tiny_vlm

    return save_tiny_vlm(tmp_path_factory.mktemp("vlm"))


@pytest.fixture
def loaded(request: pytest.FixtureRequest) -> Callable[[str], Any]:
    def get(name: str) -> Any:
        config = dataclasses.replace(
            CaptionerConfig(backend=name),
            vlm=VlmConfig(model=request.getfixturevalue("vlm") if name == "transformers_vlm" else "none", device="cpu"),
            api=ApiConfig(url=request.getfixturevalue("server") if name == "openai_api" else "http://none"),
        )
        return load(config.captioning(), request.getfixturevalue("checkpoint") if name == "recaptioner" else "")

    return get


def clips(count: int, height: int = 24, width: int = 32) -> list[Clip]:
    rng = np.random.default_rng(0)
    times = (0.0, 0.5, 1.0, 1.5)
    return [Clip(rng.integers(0, 255, (4, height, width, 3)).astype(np.uint8), times) for _ in range(count)]


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_writes_one_text_per_clip_the_same_twice(name: str, loaded: Callable[[str], Any]) -> None:
    backend = loaded(name)
    assert backend.model
    for kind in KINDS:
        first = backend.write(clips(3), prompt(kind), SHORT_BUDGET)
        assert first == backend.write(clips(3), prompt(kind), SHORT_BUDGET)
        assert len(first) == 3
        for written in first:
            assert isinstance(written.text, str)
            assert written.num_tokens >= 0
            assert written.finish_reason in (STOP, LENGTH)
            assert written.finish_reason == STOP or written.num_tokens > 0


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_takes_portrait_one_clip_and_every_retry(name: str, loaded: Callable[[str], Any]) -> None:
    backend = loaded(name)
    for changed in ({"num_beams": 4, "no_repeat_ngram": 4}, {"temperature": 0.7, "seed": 3}, {"constrained": True}):
        decoding = dataclasses.replace(SHORT_BUDGET, **changed)
        first = backend.write(clips(1, 32, 24), prompt("dense"), decoding)
        assert len(first) == 1
        assert first == backend.write(clips(1, 32, 24), prompt("dense"), decoding)


def test_the_list_and_the_names_agree() -> None:
    assert tuple(BACKENDS) == BACKEND_NAMES


def test_prompts_have_both_kinds_and_unknown_versions_are_refused() -> None:
    assert all(set(p) == set(KINDS) for p in PROMPTS.values())
    assert set(RECORDS) == set(PROMPTS)
    assert prompt_digest("2026-11.1") == "6ab8a6fb7a2a4a90a153", "a prompt is never edited"
    assert "on_screen_text" in prompt("dense", "2026-11.2", record=True).text
    assert "on_screen_text" not in prompt("dense", "2026-11.1", record=True).text
    with pytest.raises(ConfigError, match="unknown prompt version"):
        prompt("short", "2020")


def test_a_server_gets_every_frame_in_order_with_its_time(server: str) -> None:
    backend = OpenaiApi(ApiConfig(url=server))
    assert backend.model == "served-model"
    clip = clips(1)[0]
    assert backend.write([clip], prompt("dense"), Decoding())[0] == Written("4 pictures.", 11, STOP)
    body = Server.sent[0]
    assert (body["temperature"], body["max_tokens"], body["model"]) == (0.0, 256, "served-model")
    *pictures, text = body["messages"][0]["content"]
    assert "0.00, 0.50, 1.00, 1.50 seconds" in text["text"]
    for part, frame in zip(pictures, clip.frames):
        data = base64.b64decode(part["image_url"]["url"].removeprefix("data:image/jpeg;base64,"))
        sent = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
        assert np.abs(sent.mean(axis=(0, 1)) - frame.mean(axis=(0, 1))).max() < 8


def test_a_server_that_cuts_short_is_seen(server: str) -> None:
    Server.answer = (200, "A red", "length")
    assert OpenaiApi(ApiConfig(url=server)).write(clips(1), prompt("dense"), Decoding())[0].finish_reason == LENGTH


@pytest.mark.parametrize("failures", [[429, 500], [503], [0, 502]])
def test_a_server_that_is_busy_is_asked_again(server: str, failures: list[int]) -> None:
    Server.failures = list(failures)
    backend = OpenaiApi(ApiConfig(url=server, model="m", backoff_s=0.0))
    assert backend.write(clips(1), prompt("dense"), Decoding())[0] == Written("4 pictures.", 11, STOP)


def test_one_question_that_fails_costs_one_caption(server: str) -> None:
    Server.failures = [400]
    backend = OpenaiApi(ApiConfig(url=server, model="m", backoff_s=0.0))
    found = backend.write(clips(4), prompt("dense"), Decoding())
    assert sorted(w.text for w in found) == ["", *["4 pictures."] * 3]
    assert len(Server.sent) == 4  # a bad request is not sent again
    assert "answered 400" in next(w.error for w in found if w.error)


def test_a_server_that_stays_down_is_waited_for_once(server: str) -> None:
    Server.answer = (503, "overloaded", "stop")
    backend = OpenaiApi(ApiConfig(url=server, model="m", backoff_s=0.0, tries=3))
    for _ in range(2):
        assert "answered 503" in backend.write(clips(1), prompt("dense"), Decoding())[0].error
    assert len(Server.sent) == 3 + 1


def test_a_server_that_was_never_there_is_a_clear_error() -> None:
    with pytest.raises(WorldError, match=r"start it, or name another with --set captioner\.api\.url"):
        OpenaiApi(ApiConfig(url="http://127.0.0.1:9/v1", backoff_s=0.0, tries=2))


def test_a_constrained_question_carries_the_schema(server: str) -> None:
    held = dataclasses.replace(Decoding(), constrained=True, temperature=0.7, seed=5)
    OpenaiApi(ApiConfig(url=server, model="m")).write(clips(1), prompt("dense", record=True), held)
    body = Server.sent[0]
    assert body["response_format"]["json_schema"]["schema"]["properties"]["subjects"]["minItems"] == 1
    assert (body["temperature"], body["seed"]) == (0.7, 5)
    assert "one JSON object" in body["messages"][0]["content"][-1]["text"]


def test_a_key_comes_from_the_environment_only(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "not-a-secret")
    OpenaiApi(ApiConfig(url=server, model="m", key_env="MY_KEY")).write(clips(1), prompt("short"), Decoding())
    assert Server.keys == ["Bearer not-a-secret"]


def test_a_pretrained_model_gets_the_stages_frames_and_times(vlm: str) -> None:
    backend = TransformersVlm(VlmConfig(model=vlm, device="cpu"))
    few = backend.vlm.inputs([clips(1, 32, 32)[0]], prompt("dense"))
    long = Clip(np.repeat(clips(1, 32, 32)[0].frames, 2, axis=0), tuple(i * 0.5 for i in range(8)))
    many = backend.vlm.inputs([long], prompt("dense"))
    grid = [int(x["video_grid_thw"][0, 0]) for x in (few, many)]
    assert grid == [2, 4]  # two frames per temporal patch: none left out, none made up
    said = backend.vlm.processor.tokenizer.decode(many["input_ids"][0])
    assert prompt("dense").text[:30] in said
    assert "<0.2 seconds>" in said  # the first patch holds the frames at 0.0 and 0.5 s
    assert "<3.2 seconds>" in said


def test_a_pretrained_model_has_the_digest_of_its_weights(vlm: str) -> None:
    backend = TransformersVlm(VlmConfig(model=vlm, device="cpu"))
    assert len(backend.model) == 20
    with pytest.raises(ModelError, match="does not load"):
        TransformersVlm(VlmConfig(model=str(Path(vlm) / "nowhere"), device="cpu"))
