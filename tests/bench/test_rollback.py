"""The rollback benchmark, tiny, on its real processes."""

from __future__ import annotations

from tests.bench.runs import run


def test_the_rollback_benchmark_breaches_triggers_and_restarts():
    tiny = ("--kills", "1", "--breaches", "1", "--settled", "0.5", "--restarts", "1", "--cases", "errors")
    load = ("--rounds", "1", "--seconds", "0.3", "--connections", "8")
    result = run("bench.rollback", *tiny, *load, seconds=600)
    assert (result["killed"]["kills"], result["killed"]["failed_gets"]) == (1, 0)
    breaches = result["breaches"]
    assert list(breaches) == ["errors_with_failover", "errors_without_failover"]
    for found in breaches.values():
        assert found["failures"] == 1
        parts = ("until_judged_ms", "judged_to_committed_ms", "committed_to_confirmed_ms")
        assert abs(found["confirmed_ms"]["max"] - sum(found[part]["max"] for part in parts)) < 1
        assert found["committed_to_confirmed_ms"]["max"] > 0
    assert breaches["errors_with_failover"]["failed_gets"] == 0
    assert breaches["errors_without_failover"]["failed_gets"] > 0
    for found in result["restarted"].values():
        assert found["failed_gets"] > 0
        assert found["first_monolith_answer_ms"]["max"] > 0
    assert result["requests_per_s"]["rolled_back_meanwhile"] is False
    assert result["ratios"]["errors_restarted_over_switchyard"] > 0
    for name in ("at_100", "everything_on"):
        assert result["requests_per_s"][name]["requests_per_s"] > 0
        assert result["requests_per_s"][name]["lost"] == 0
    assert result["ratios"]["requests_per_s_over_bare"] > 0
    assert result["ratios"]["requests_per_s_at_100_over_bare"] > 0
    assert 0 <= result["machine"]["others_busy"] <= 1
