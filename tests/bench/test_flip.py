"""The flip benchmark, tiny."""

from __future__ import annotations

from tests.bench.runs import run


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
