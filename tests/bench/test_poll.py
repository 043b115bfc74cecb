"""The poll benchmark, tiny, beside Prometheus where that is installed."""

from __future__ import annotations

from tests.bench.runs import run


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
