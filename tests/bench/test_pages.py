"""The pages benchmark, tiny, on its real PostgreSQL."""

from __future__ import annotations

from tests.bench.runs import run


def test_the_pages_benchmark_compares_a_long_past_with_a_short_one():
    result = run(
        "bench.pages", "--services", "12", "--days", "3", "--minute-days", "1", "--events", "50", "--loads", "2"
    )
    for past in ("short", "long"):
        assert set(result[past]["pages"]) == {"timeline", "overview", "service", "week", "gateway", "status"}
        for page in result[past]["pages"].values():
            assert 0 < page["p50_ms"] <= page["p95_ms"]
            assert page["queries"] > 0
        assert all(value > 0 for value in result[past]["reads_ms"].values())
        assert all(value > 0 for value in result[past]["bytes_per_service_and_day"].values())
        assert result[past]["rollup_of_a_minute_ms"] > 0
    queries = [{name: page["queries"] for name, page in result[past]["pages"].items()} for past in ("short", "long")]
    assert queries[0] == queries[1]
    assert result["ratios"]["overview_p95_long_over_short"] > 0
    assert result["expected"]["queries"] == 12
