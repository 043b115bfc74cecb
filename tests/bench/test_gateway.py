"""The gateway benchmark, tiny."""

from __future__ import annotations

from tests.bench.runs import run


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
