"""Bodies that are too large, on the ASGI application that uvicorn serves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from migrations_app.web.bodies import LARGEST, LARGEST_OF_API

PIECE = 4096  # bytes


@pytest.fixture
def application(monkeypatch):
    monkeypatch.setenv(
        "DATABASE_POOL", "off"
    )  # what the module sets by itself would stay with the tests after this one
    from controlplane.asgi import application

    return application


class Client:
    """Sends a body as a server hands it on: in pieces, each when it is asked for."""

    def __init__(self, path: str, size: int, *, says: int | None = None, **headers: str) -> None:
        """Without `says` it does not tell the length, as a client that sends chunks."""
        sent = {"host": "testserver", "content-type": "application/json", **headers}
        sent |= {} if says is None else {"content-length": str(says)}
        self.scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
            "client": ("127.0.0.1", 1), "server": ("testserver", 80),
        }  # fmt: skip
        self.taken = 0  # bytes
        self.status, self.answer = 0, b""
        self._left: Iterator[int] = iter(range(size, 0, -PIECE))

    async def receive(self):
        left = next(self._left, 0)
        if not left:
            await asyncio.get_running_loop().create_future()  # it waits for the answer
        piece = b" " * min(left, PIECE)
        self.taken += len(piece)
        return {"type": "http.request", "body": piece, "more_body": left > PIECE}

    async def send(self, message):
        self.status = message.get("status", self.status)
        self.answer += message.get("body", b"")

    def ask(self, application):
        asyncio.run(asyncio.wait_for(application(self.scope, self.receive, self.send), 20))
        return self


ROLLBACK, FORM = ("/api/rollback", LARGEST_OF_API), ("/sign-in/", LARGEST)


@pytest.mark.parametrize(("path", "largest"), [ROLLBACK, FORM])
def test_of_a_body_that_says_it_is_too_large_nothing_is_taken(application, path, largest):
    for said in (largest + 1, 10**30):
        client = Client(path, largest + 1, says=said).ask(application)
        assert (client.status, client.taken) == (413, 0)


@pytest.mark.parametrize(("path", "largest"), [ROLLBACK, FORM])
@pytest.mark.parametrize("says", [None, 5])
def test_of_a_body_that_does_not_no_more_is_taken_than_may_be(application, path, largest, says):
    client = Client(path, 4 * largest, says=says).ask(application)
    assert client.status == 413
    assert largest < client.taken <= largest + PIECE


def test_the_answer_is_a_page_or_a_problem(application):
    page = Client("/sign-in/", 0, says=LARGEST + 1).ask(application)
    assert b"<html" in page.answer
    assert b"A file may have 5 MB. Nothing was done" in page.answer
    notice = Client("/sign-in/", 0, says=LARGEST + 1, **{"hx-request": "true"}).ask(application)
    assert b"<html" not in notice.answer
    told = json.loads(Client("/api/rollback", 0, says=LARGEST + 1).ask(application).answer)
    assert (told["type"], told["detail"]) == ("urn:switchyard:too-large", "A body may have 16 kB. Nothing was done.")


@pytest.mark.parametrize("says", [None, LARGEST_OF_API])
def test_a_body_that_is_as_large_as_may_be_is_handed_on_whole(application, says):
    client = Client("/api/rollback", LARGEST_OF_API, says=says).ask(application)
    assert (client.status, client.taken) == (401, LARGEST_OF_API)  # no token was sent: that is the API's own answer
