"""The server of `dailies label`: questions out, answers in, on loopback alone.

Nobody but the person at this machine may answer.  Every request needs the token that was printed with the address,
once as `/?t=...` and then as a cookie (HttpOnly, SameSite=Strict); an answer needs it in a header too, which no
other page can set.  `Host` must be this server's own, against names that are made to point here; an `Origin` that is
not is refused.  Bodies are small and JSON; what is asked about comes from our own list, never from a request.
"""

import dataclasses
import hmac
import http.server
import json
import secrets
import threading
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from orchestration import label_page
from pipelines.policy.label_sample import Drawn
from pipelines.policy.rules import Rule
from schemas.labels import Label, Labelled, append, standing_labels
from schemas.store import Store

HOST = "127.0.0.1"


class Refused(Exception):
    """A request that is not answered, with the status that says why."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclasses.dataclass(frozen=True, slots=True)
class Shown:
    """What the page shows of a clip."""

    about: str
    jpegs: tuple[bytes, ...]


class Asking(Protocol):
    """What is asked on a page, and where its answers go."""

    max_body: int
    """Bytes of the longest answer."""

    def page(self, token: str, nonce: str) -> str: ...

    def next(self) -> dict[str, Any]: ...

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]: ...

    def frame(self, clip_id: str, index: str) -> bytes: ...


class Session:
    """The questions, and what was answered of them.  Threads take turns."""

    page = staticmethod(label_page.page)
    max_body = 4096

    def __init__(
        self, store: Store, questions: Sequence[Drawn], rules: Mapping[str, Rule], clips: Mapping[str, Shown]
    ) -> None:
        self.store, self.questions, self.rules, self.clips = store, list(questions), dict(rules), dict(clips)
        self._known = {(q.rule, q.clip_id): q for q in self.questions}
        self._answered = set(standing_labels(store)) & set(self._known)
        self._said: list[tuple[str, str]] = []
        self._lock = threading.Lock()

    def next(self) -> dict[str, Any]:
        """The first question without an answer, and how far we are."""
        with self._lock:
            return self._next()

    def _next(self) -> dict[str, Any]:
        item = next((q for q in self.questions if (q.rule, q.clip_id) not in self._answered), None)
        return {"item": self._item(item) if item else None, "done": len(self._answered), "all": len(self.questions)}

    def answer(self, rule: str, clip_id: str, label: str) -> dict[str, Any]:
        """Write an answer down.

        Raises:
            Refused: If that was not asked, or is no answer.
        """
        if label not in (Label.KEEP, Label.REJECT, Label.SKIP):
            raise Refused(HTTPStatus.BAD_REQUEST, "an answer is keep, reject or skip")
        with self._lock:
            question = self._known.get((rule, clip_id))
            if question is None:
                raise Refused(HTTPStatus.NOT_FOUND, "this was not asked")
            append(self.store, Labelled(rule=rule, clip_id=clip_id, label=label, score=question.score))
            self._answered.add((rule, clip_id))
            self._said.append((rule, clip_id))
            return self._next()

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """An answer, or one taken back.

        Raises:
            Refused: If it is neither.
        """
        if path == "/api/undo":
            return self.undo()
        if path != "/api/label":
            raise Refused(HTTPStatus.NOT_FOUND, "no such page")
        words = [body.get(k) for k in ("rule", "clip_id", "label")]
        if not all(isinstance(w, str) for w in words):
            raise Refused(HTTPStatus.BAD_REQUEST, "an answer has rule, clip_id and label")
        return self.answer(*map(str, words))

    def undo(self) -> dict[str, Any]:
        """Take the last answer of this session back; nothing happens if there is none."""
        with self._lock:
            if self._said:
                rule, clip_id = self._said.pop()
                append(self.store, Labelled(rule=rule, clip_id=clip_id, label=Label.UNDO))
                self._answered.discard((rule, clip_id))
            return self._next()

    def _item(self, question: Drawn) -> dict[str, Any]:
        rule, clip = self.rules[question.rule], self.clips.get(question.clip_id)
        bounds = [f"{w} {b:g}" for w, b in (("at least", rule.min), ("at most", rule.max)) if b is not None]
        return {
            "rule": rule.name,
            "reason": rule.reason,
            "column": rule.column,
            "bounds": ", ".join(bounds),
            "clip_id": question.clip_id,
            "score": question.score,
            "about": clip.about if clip else "",
            "frames": len(clip.jpegs) if clip else 0,
        }

    def frame(self, clip_id: str, index: str) -> bytes:
        clip = self.clips.get(clip_id)
        if clip is None or not index.isdecimal() or int(index) >= len(clip.jpegs):
            raise Refused(HTTPStatus.NOT_FOUND, "no such frame")
        return clip.jpegs[int(index)]


class Server(http.server.ThreadingHTTPServer):
    """Bound to loopback; port 0 takes a free one."""

    daemon_threads = True

    def __init__(self, session: Asking, port: int = 0) -> None:
        super().__init__((HOST, port), _Handler)
        self.session = session
        self.token = secrets.token_urlsafe(24)

    @property
    def origin(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}"

    @property
    def url(self) -> str:
        """The address with its token, to open once."""
        return f"{self.origin}/?t={self.token}"

    @property
    def cookie(self) -> str:
        """Cookies do not tell ports apart, so the name does."""
        return f"dailies_{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server  # type: ignore[assignment]
    timeout = 30
    server_version, sys_version = "dailies", ""

    def do_GET(self) -> None:
        self._reply(self._get)

    def do_POST(self) -> None:
        self._reply(self._post)

    def log_message(self, format: str, *args: Any) -> None:  # the token is in the first request's line
        """Nothing."""

    def _reply(self, make: Any) -> None:
        try:
            self._check_address()
            make()
        except Refused as e:
            self._send(e.status, "application/json", json.dumps({"error": str(e)}).encode())
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _check_address(self) -> None:
        own = urlsplit(self.server.origin).netloc
        if self.headers.get("Host") not in (own, own.replace(HOST, "localhost")):
            raise Refused(HTTPStatus.FORBIDDEN, "wrong Host")
        origin = self.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != self.headers.get("Host"):
            raise Refused(HTTPStatus.FORBIDDEN, "wrong Origin")

    def _get(self) -> None:
        asked = urlsplit(self.path)
        if asked.path == "/":
            self._page(parse_qs(asked.query).get("t", [""])[0])
            return
        self._check_cookie()
        parts = asked.path.strip("/").split("/")
        if asked.path == "/api/next":
            self._json(self.server.session.next())
        elif len(parts) == 3 and parts[0] == "frame" and parts[2].endswith(".jpg"):
            jpeg = self.server.session.frame(parts[1], parts[2].removesuffix(".jpg"))
            self._send(HTTPStatus.OK, "image/jpeg", jpeg, {"Cache-Control": "private, max-age=3600"})
        else:
            raise Refused(HTTPStatus.NOT_FOUND, "no such page")

    def _page(self, given: str) -> None:
        if given:
            if not hmac.compare_digest(given.encode(), self.server.token.encode()):
                raise Refused(HTTPStatus.FORBIDDEN, "wrong token")
            cookie = f"{self.server.cookie}={self.server.token}; HttpOnly; SameSite=Strict; Path=/"
            self._send(HTTPStatus.SEE_OTHER, "text/plain", b"", {"Location": "/", "Set-Cookie": cookie})
            return
        self._check_cookie()
        nonce = secrets.token_urlsafe(16)
        text = self.server.session.page(self.server.token, nonce).encode()
        headers = {"Content-Security-Policy": label_page.policy(nonce)}
        self._send(HTTPStatus.OK, "text/html; charset=utf-8", text, headers)

    def _post(self) -> None:
        self._check_cookie()
        if not hmac.compare_digest(self.headers.get("X-Dailies-Token", "").encode(), self.server.token.encode()):
            raise Refused(HTTPStatus.FORBIDDEN, "no token")
        self._json(self.server.session.post(self.path, self._body()))

    def _check_cookie(self) -> None:
        try:
            found = SimpleCookie(self.headers.get("Cookie", "")).get(self.server.cookie)
        except CookieError:
            found = None
        if found is None or not hmac.compare_digest(found.value.encode(), self.server.token.encode()):
            raise Refused(HTTPStatus.FORBIDDEN, "open the address that `dailies label` printed")

    def _body(self) -> dict[str, Any]:
        if self.headers.get("Content-Type", "").split(";")[0].strip() != "application/json":
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "answers are JSON")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > self.server.session.max_body:
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"an answer has at most {self.server.session.max_body} bytes"
            )
        try:
            found = json.loads(self.rfile.read(int(length)))
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise Refused(HTTPStatus.BAD_REQUEST, "an answer is a JSON object")
        return found

    def _json(self, value: Any) -> None:
        self._send(HTTPStatus.OK, "application/json", json.dumps(value).encode())

    def _send(self, status: HTTPStatus, kind: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        known = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        for name, value in {**known, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
