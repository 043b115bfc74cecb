"""Each benchmark, tiny, on its real processes: it ends with one line of JSON that has its figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from controlplane.environment import REPOSITORY


def run(module: str, *options: str, seconds: float = 180) -> dict:
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_URL")}
    done = subprocess.run(
        [sys.executable, "-m", module, *options],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    return json.loads(done.stdout)


def test_the_gateway_benchmark_compares_the_gateways():
    result = run("bench.gateway", "--rounds", "1", "--seconds", "0.3", "--connections", "8")
    for name in ("switchyard", "python", "bare", "as_shipped"):
        assert result[name]["requests_per_s"] > 0
        assert result[name]["p99_ms"] > 0
        assert result[name]["lost"] == 0
    assert result["ratios"]["requests_per_s_over_python"] > 1
    assert result["ratios"]["requests_per_s_over_bare"] > 0
    assert result["ratios"]["as_shipped_over_python"] > 1
    assert 0 <= result["machine"]["others_busy"] <= 1


def test_the_flip_benchmark_clicks_and_restarts():
    result = run("bench.flip", "--flips", "2", "--restarts", "1", "--blocks", "1")
    clicked, restarted = result["switchyard"], result["restarted"]
    assert (clicked["flips"], restarted["flips"]) == (2, 1)
    assert clicked["lost"] == 0
    assert clicked["requests"] > 100
    assert 0 < clicked["effect_ms"]["p50"] <= clicked["effect_ms"]["p99"] <= clicked["effect_ms"]["max"]
    assert clicked["answer_ms"]["p50"] > 0
    assert restarted["lost"] > 0
    assert restarted["outage_ms"]["p50"] > 50
    assert result["ratios"]["effect_p50_restarted_over_switchyard"] > 0
    assert result["expected"]["lost"] == 0


def test_the_poll_benchmark_polls_with_and_without_hanging_targets():
    result = run("bench.poll", "--targets", "20", "--seconds", "2")
    for case in ("all_answer", "hanging_20_percent"):
        figures = result["switchyard"][case]
        assert figures["polls"] > 10
        assert figures["cpu_s_per_1000"] > 0
        assert 0 <= figures["late_p50_ms"] <= figures["late_p99_ms"]
    assert result["prometheus"]["all_answer"]["cpu_s_per_1000"] > 0
    assert result["ratios"]["cpu_over_prometheus"] > 0
    assert result["expected"]["late_p99_ms"] == 50
