"""The label page over real HTTP: who may ask, who may answer, and what is left on disk."""

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestration import cli
from orchestration.caption_session import CaptionSession
from orchestration.label_server import HOST, Server, Session, Shown
from pipelines.policy.label_sample import judged, sample
from schemas import batches
from schemas.labels import WRITTEN, Design, lines, read_lines, standing_labels
from schemas.store import Store
from tests.orchestration import films
from tests.pipelines import boards


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "root").create()
    batches.register(store, batches.Batch(name="a", folder=str(tmp_path), kind=batches.FOOTAGE))
    boards.commit(store, "a", *boards.random_clips(5, 40))
    return store


def session(store: Store, per_stratum: int = 2) -> Session:
    questions = sample(store, Design(per_stratum=per_stratum))
    clips = {q.clip_id: Shown("160x90, 2.0 s", (films.jpeg(1), films.jpeg(2))) for q in questions}
    return Session(store, questions, {f.rule.name: f.rule for f in judged(store)}, clips)


@pytest.fixture
def server(store: Store) -> Iterator[Server]:
    made = Server(session(store))
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def send(
    server: Server, method: str, path: str, body: Any = None, *, cookie: bool = True, **headers: str | None
) -> tuple[int, dict[str, str], bytes]:
    """One request; headers are given as `X_Dailies_Token`, and None leaves a usual one out."""
    usual: dict[str, str | None] = {"Host": server.origin.removeprefix("http://")}
    if cookie:
        usual["Cookie"] = f"{server.cookie}={server.token}"
    if method == "POST":
        usual |= {"X-Dailies-Token": server.token, "Content-Type": "application/json", "Origin": server.origin}
    usual |= {k.replace("_", "-"): v for k, v in headers.items()}
    connection = http.client.HTTPConnection(HOST, server.server_address[1], timeout=10)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        if method == "POST":
            connection.putheader("Content-Length", str(len(data)))
        for name, value in usual.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(data)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def test_people_write_captions_that_are_pairs_and_may_take_them_back(store: Store) -> None:
    shown = {c: Shown("160x90, 2.0 s", (films.jpeg(1),)) for c in ("a", "b", "c")}
    made = CaptionSession(store, list(shown), {"b": ("Draft.", "A draft.")}, shown, "Ann")
    first = made.next()["item"]["clip_id"]
    server = Server(made)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        assert b"textarea" in send(server, "GET", "/")[2]
        assert send(server, "GET", f"/frame/{first}/0.jpg")[0] == 200
        body = {"clip_id": first, "short": "A  dog\nruns.", "dense": "A brown dog runs over grass."}
        for bad, says in (
            ({"short": " "}, 400),
            ({"dense": 3}, 400),
            ({"clip_id": "z"}, 404),
            ({"dense": "x" * 5000}, 400),
        ):
            assert send(server, "POST", "/api/caption", {**body, **bad})[0] == says
        assert send(server, "POST", "/api/caption", body, X_Dailies_Token="wrong")[0] == 403
        assert not store.exists(*WRITTEN)
        after = json.loads(send(server, "POST", "/api/caption", body)[2])
        assert (after["done"], after["all"]) == (1, 3)
        second = after["item"]["clip_id"]
        json.loads(send(server, "POST", "/api/pass", {"clip_id": second})[2])
        assert json.loads(send(server, "POST", "/api/undo", {})[2])["done"] == 0
        send(server, "POST", "/api/caption", body)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    wanted = {"clip_id": first, "short": "A dog runs.", "dense": "A brown dog runs over grass.", "writer": "Ann"}
    assert list(read_lines(store, WRITTEN))[-1] == wanted
    assert CaptionSession(store, list(shown), {}, shown, "Ann").next()["done"] == 1


def test_the_printed_address_opens_the_page_and_nothing_else_does(server: Server) -> None:
    status, headers, _ = send(server, "GET", server.url.removeprefix(server.origin), cookie=False)
    assert (status, headers["Location"]) == (303, "/")
    for word in ("HttpOnly", "SameSite=Strict", server.token):
        assert word in headers["Set-Cookie"]
    status, headers, body = send(server, "GET", "/")
    assert status == 200
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "'unsafe" not in headers["Content-Security-Policy"]
    assert b"http://" not in body
    assert b"https://" not in body
    for path in ("/", "/api/next", "/?t=wrong"):
        assert send(server, "GET", path, cookie=False)[0] == 403


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "", None, "localhost.evil.example"])
def test_another_host_is_refused(server: Server, host: str | None) -> None:
    assert send(server, "GET", "/api/next", Host=host)[0] == 403


def test_localhost_is_this_host_too(server: Server) -> None:
    assert send(server, "GET", "/api/next", Host=f"localhost:{server.server_address[1]}")[0] == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"X_Dailies_Token": None}, 403),
        ({"X_Dailies_Token": "guess"}, 403),
        ({"Cookie": None}, 403),
        ({"Cookie": "dailies_1=x"}, 403),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_a_forged_answer_is_refused_and_leaves_nothing(
    store: Store, server: Server, headers: dict[str, str | None], status: int
) -> None:
    item = server.session.next()["item"]
    body = {"rule": item["rule"], "clip_id": item["clip_id"], "label": "reject"}
    assert send(server, "POST", "/api/label", body, **headers)[0] == status
    assert list(lines(store)) == []


def test_wrong_answers_are_refused(store: Store, server: Server) -> None:
    item = server.session.next()["item"]
    good = {"rule": item["rule"], "clip_id": item["clip_id"], "label": "keep"}
    for body, status in (
        ({**good, "label": "undo"}, 400),
        ({**good, "label": 7}, 400),
        ({**good, "clip_id": "../../etc/passwd"}, 404),
        ({**good, "rule": "nothing"}, 404),
        (["keep"], 400),
        (b"{", 400),
        (b'"' + b"x" * 5000 + b'"', 413),
    ):
        assert send(server, "POST", "/api/label", body)[0] == status
    assert send(server, "POST", "/api/nothing", good)[0] == 404
    assert send(server, "PUT", "/api/label")[0] == 501
    assert list(lines(store)) == []


def test_frames_are_those_that_are_asked_about(server: Server) -> None:
    clip = server.session.next()["item"]["clip_id"]
    status, headers, body = send(server, "GET", f"/frame/{clip}/1.jpg")
    assert (status, headers["Content-Type"], body) == (200, "image/jpeg", films.jpeg(2))
    for path in (f"/frame/{clip}/2.jpg", f"/frame/{clip}/-1.jpg", "/frame/other/0.jpg", "/frame/../0.jpg", "/x"):
        assert send(server, "GET", path)[0] == 404


def test_answers_are_kept_taken_back_and_taken_up_again(store: Store, server: Server) -> None:
    first = json.loads(send(server, "GET", "/api/next")[2])
    seen = []
    state = first
    for label in ("reject", "keep", "skip"):
        item = state["item"]
        seen.append((item["rule"], item["clip_id"], label))
        body = {"rule": item["rule"], "clip_id": item["clip_id"], "label": label}
        state = json.loads(send(server, "POST", "/api/label", body)[2])
    assert state["done"] == 3
    assert standing_labels(store) == {(r, c): w for r, c, w in seen}
    state = json.loads(send(server, "POST", "/api/undo", {})[2])
    assert state["done"] == 2
    assert state["item"]["clip_id"] == seen[-1][1], "what was taken back is asked again"
    assert set(standing_labels(store)) == {(r, c) for r, c, _ in seen[:2]}
    assert len(list(lines(store))) == 4, "nothing is rewritten"
    assert session(store).next() == state, "another session goes on where this one was"
    for _ in range(3):
        send(server, "POST", "/api/undo", {})
    assert json.loads(send(server, "GET", "/api/next")[2]) == first


def test_the_commands(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    def dailies(*words: str) -> tuple[int, str, str]:
        return (cli.main([*words, "--root", store.root]), *capsys.readouterr())

    code, _, err = dailies("calibrate")
    assert (code, err.count("\n")) == (2, 1)
    assert "dailies label" in err
    assert "did you mean `blur`" in dailies("label", "--rule", "blru", "--check")[2]
    code, out, err = dailies("label", "--check", "--per-stratum", "4", "--json")
    found = json.loads(out)
    assert code == 0
    assert "label at http://127.0.0.1:" in err
    answering = session(store, 4)
    for question in answering.questions:
        if question.rule == "dark":
            answering.answer(question.rule, question.clip_id, "reject" if question.score < 0.4 else "keep")
    code, out, _ = dailies("calibrate", "--json")
    (row,) = json.loads(out)["rules"]
    assert (row["rule"], row["source"]) == ("dark", "labels")
    assert row["precision"]["value"] == 1.0
    assert row["precision"]["low"] < 1.0
    assert 0 < row["recall"]["value"] < 1, "clips between 0.3 and 0.4 are missed"
    assert json.loads(dailies("label", "--check", "--json")[1])["answered"] == row["answers"] < found["questions"]
    assert "precision" in dailies("calibrate")[1]


def test_rendered_footage_needs_no_labels(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["calibrate", "--root", str(house), "--recipe", "tiny", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == 0
    rules = {r["rule"]: r for r in found["rules"]}
    assert {"blur", "dark", "text", "near_duplicate"} <= set(rules)
    assert {r["source"] for r in found["rules"]} == {"truth"}
    assert "too_short" in found["left_out"]
