"""The parts of the benchmarks do what the figures rest on."""

from __future__ import annotations

import asyncio
import json
import math
import sys

import pytest

from bench import figures
from bench.dashboard import field_of
from bench.flip import Watch
from bench.gateway_python import Gateway
from bench.load import Answer, Connection, encode
from bench.processes import (
    NotMeasured,
    process,
    python_gateway_environment,
    shipped_plan,
    targets,
    upstreams,
    wait_for_port,
)
from controlplane.embedded.children import free_port


def test_percentiles_are_values_that_were_measured():
    values = [float(number) for number in range(1, 101)]
    assert [figures.percentile(values, share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert math.isnan(figures.percentile([], 0.5))
    assert figures.spread([]) == {"p50": None, "p99": None, "max": None}


def test_a_ratio_to_nothing_is_no_number():
    assert figures.ratio(1.0, 0.0) is None
    assert figures.ratio(3.0, 2.0) == 1.5


def test_the_work_of_others_is_a_share():
    shared = figures.Machine()
    sum(range(300_000))
    assert 0.0 <= shared.figures()["others_busy"] <= 1.0


def test_the_result_is_one_line_of_json(capsys):
    figures.say("told")
    figures.finish({"bench": "x", "none": None})
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"bench": "x", "none": None}
    assert printed.err == "told\n"


def test_the_plan_moves_with_its_ports():
    plan = shipped_plan(500)
    assert plan.monolith.address == "127.0.0.1:3500"
    assert {target.prefix: target.address for target in targets(plan)}["/api/storage"] == "127.0.0.1:3514"


def test_a_field_of_a_form_is_read_and_a_missing_one_is_told():
    assert field_of('<input type="hidden" name="seen" value="7">', "seen") == "7"
    with pytest.raises(NotMeasured, match="seen"):
        field_of("<p>", "seen")


def test_the_effect_is_the_first_answer_of_the_other_side():
    def answer(side: str, at: float) -> Answer:
        return Answer(200, f"HTTP/1.1 200 OK\r\nx-side: {side}".encode(), b"", at, at)

    async def run() -> tuple[float, float]:
        watch = Watch()
        watch.take(answer("monolith", 1.0))
        found = watch.expect("service")
        for side, at in [("monolith", 1e9), ("service", 1e9 + 2), ("service", 1e9 + 3)]:
            watch.take(answer(side, at))
        return await found, watch.longest_gap

    effect, gap = asyncio.run(run())
    assert effect == 1e9 + 2
    assert gap == pytest.approx(1e9 - 1)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/api/auth/login", ("http://a:1", "/auth/login")),
        ("/api/auth", ("http://a:1", "/auth")),
        ("/api/authors", ("http://m:1", "/api/authors")),
        ("/other", ("http://m:1", "/other")),
    ],
)
def test_the_python_gateway_takes_whole_segments(path, target):
    assert Gateway([("/api/auth", "http://a:1", "/api")], "http://m:1").target(path) == target


def test_the_python_gateway_forwards_by_its_flags(tmp_path):
    offset = free_port() % 5000 + 20_000
    plan = shipped_plan(offset)
    port, log = free_port(), tmp_path / "python.log"

    async def ask(method: str, path: str) -> Answer:
        connection = await Connection.to(port)
        answer = await connection.request(encode(method, path, body=b"x" * 50_000 if method == "POST" else b""))
        connection.close()
        return answer

    environment = python_gateway_environment(plan, port, ["USE_STORAGE_SERVICE"])
    command = [sys.executable, "-m", "bench.gateway_python"]
    with upstreams(plan, tmp_path / "upstreams.log"), process(command, log, env=environment) as child:
        wait_for_port(port, child, log)
        answers = [asyncio.run(ask("GET", "/api/storage/x?y=1")), asyncio.run(ask("POST", "/api/rag"))]
    assert [(one.status, one.header("x-served-by")) for one in answers] == [(200, "storage"), (200, "monolith")]


def test_what_does_not_start_is_told_with_its_last_words(tmp_path):
    log = tmp_path / "log"
    with process([sys.executable, "-c", "print('out of luck')"], log) as child, pytest.raises(NotMeasured) as caught:
        wait_for_port(free_port(), child, log)
    assert "out of luck" in str(caught.value)
