"""The failover benchmark, tiny, on its real processes."""

from __future__ import annotations

from tests.bench.runs import run


def test_the_failover_benchmark_kills_a_service_and_compares_the_gateways():
    result = run("bench.failover", "--kills", "1", "--rounds", "1", "--seconds", "0.3", "--connections", "8")
    ready, not_ready = result["with_failover"], result["without_failover"]
    assert (ready["kills"], not_ready["kills"]) == (1, 1)
    assert ready["failed_gets"] == 0
    assert 0 < ready["first_monolith_answer_ms"]["max"] < 1000
    assert not_ready["failed_gets"] > 0
    assert not_ready["first_monolith_answer_ms"]["max"] is None
    for name in ("failover", "sticky", "without", "bare"):
        assert result[name]["requests_per_s"] > 0
        assert result[name]["lost"] == 0
    assert result["ratios"]["failover_over_bare"] > 0
    assert result["ratios"]["sticky_over_without"] > 0
