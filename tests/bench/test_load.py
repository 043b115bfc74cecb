"""The load clients count every request, and hide none."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from bench.hammer import hammer
from bench.load import Connection, Lost, Tally, encode, pace, whole_answer
from controlplane.embedded.children import free_port

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = encode("GET", "/x")


@asynccontextmanager
async def server(*chunks: bytes, close: bool = False):
    """Answers every request with these bytes, 5 ms apart, then hangs up if it is to `close`."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                for chunk in chunks:
                    writer.write(chunk)
                    await asyncio.sleep(0.005)
                if close:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    port = free_port()
    running = await asyncio.start_server(handle, "127.0.0.1", port)
    try:
        yield port
    finally:
        running.close()


async def lost_by(*chunks: bytes, close: bool = False, within: float = 2.0) -> str:
    async with server(*chunks, close=close) as port:
        connection = await Connection.to(port)
        try:
            with pytest.raises(Lost) as caught:
                await connection.request(GET, within=within)
        finally:
            connection.close()
        return str(caught.value)


def test_a_request_is_encoded_with_its_length():
    payload = encode("POST", "/x", body=b"abc", headers=[("host", "a:1")])
    assert payload == b"POST /x HTTP/1.1\r\nhost: a:1\r\ncontent-length: 3\r\n\r\nabc"


@pytest.mark.parametrize("size", [10, 25, len(OK) - 1])
def test_a_part_of_an_answer_is_not_an_answer(size):
    assert whole_answer(OK[:size]) == 0
    assert whole_answer(OK + b"more") == len(OK)


def test_an_answer_in_pieces_is_put_together():
    async def run():
        async with server(OK[:20], OK[20:-1], OK[-1:]) as port:
            connection = await Connection.to(port)
            answer = await connection.request(GET)
            connection.close()
            return answer

    answer = asyncio.run(run())
    assert (answer.status, answer.body, answer.header("content-length")) == (200, b"ok", "2")
    assert answer.received - answer.sent >= 0.01


def test_a_cut_off_answer_is_lost():
    assert asyncio.run(lost_by(OK[:-1], close=True)) == "cut off"


def test_a_connection_that_is_closed_before_an_answer_is_a_lost_request():
    assert asyncio.run(lost_by(close=True)) == "reset"


def test_an_answer_that_does_not_come_is_lost():
    assert asyncio.run(lost_by(within=0.05)) == "no answer"


def test_nobody_listening_is_a_lost_request():
    async def run():
        with pytest.raises(Lost, match="refused"):
            await Connection.to(free_port())

    asyncio.run(run())


def test_a_steady_pace_counts_what_nobody_takes_and_what_fails():
    async def run(port: int) -> Tally:
        tally, stop = Tally(), asyncio.Event()
        task = asyncio.create_task(pace(port, [GET], every=0.01, stop=stop, tally=tally))
        await asyncio.sleep(0.2)
        stop.set()
        await task
        return tally

    async def failing() -> Tally:
        async with server(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n") as port:
            return await run(port)

    refused = asyncio.run(run(free_port()))
    assert set(refused.lost) == {"refused"}
    assert 2 <= refused.lost["refused"] <= 21
    failed = asyncio.run(failing())
    assert set(failed.lost) == {"503"}
    assert failed.answered == 0


def test_hammer_counts_answers_and_their_times(upstream_port):
    tally = asyncio.run(hammer(upstream_port, [GET], connections=4, seconds=0.2))
    assert not tally.lost
    assert tally.answered == len(tally.latencies) > 20
    assert 0 < min(tally.latencies) <= max(tally.latencies) < 0.5


def test_hammer_counts_cut_off_answers_and_goes_on():
    async def run() -> Tally:
        async with server(OK[:-1], close=True) as port:
            return await hammer(port, [GET], connections=2, seconds=0.3)

    tally = asyncio.run(run())
    assert tally.answered == 0
    assert tally.lost["cut off"] > 4
