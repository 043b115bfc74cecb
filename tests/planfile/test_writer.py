"""A written plan reads as an equal plan, whatever its texts are."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migrations_app.planfile.schema import Plan
from migrations_app.planfile.writer import write

from .samples import CHECKED, PLANS, SMALL, plan_of

_TEXT = st.text(alphabet=st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=40).filter(
    lambda text: text.strip() == text
)
_WORDS = st.sampled_from(
    ["no", "on", "null", "~", "5", "1e5", "-.5", "012", "2026-11-23", "- x", "a: b", "#x", "*a", "|"]
)
_PROSE = st.lists(_TEXT | _WORDS | st.just(""), max_size=4).map("\n".join).map(str.strip)


@pytest.mark.parametrize("name", ["tracseq-phase2.yaml", "nanopore.yaml"])
def test_the_shipped_plans_survive_a_round_trip(name):
    plan = plan_of((PLANS / name).read_text())
    written = write(plan)
    assert plan_of(written) == plan
    assert write(plan_of(written)) == written
    assert written.startswith("# yaml-language-server: $schema=plan.schema.json\n")


def test_defaults_are_left_out():
    written = write(plan_of())
    for default in ("timezone", "strip", "timeout", "new_side_only", "weight", "moves_traffic", "notes", "null", "{}"):
        assert f"{default}:" not in written


def test_validity_approvals_and_checks_survive_a_round_trip():
    plan = plan_of(CHECKED)
    written = write(plan)
    assert plan_of(written) == plan
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    for line in (
        "valid_for: 72h",
        "      valid_for: 8h",
        "for: 5m",
        "soak: 90s",
        "- Nobody has noticed.",
        "- key: all-on",
    ):
        assert f"{line}\n" in written
    assert "role: approver" not in written  # as it is unless told


def test_a_document_of_before_criteria_had_keys_still_reads():
    document = plan_of(SMALL).model_dump(mode="json")
    document["weeks"][0]["done_when"] = ["Storage is on the new side."]
    del document["weeks"][0]["approvals"]
    assert Plan.model_validate_json(json.dumps(document)) == plan_of(SMALL)


@given(line=_TEXT | _WORDS, prose=_PROSE, soak=st.integers(0, 90 * 24 * 3600), timeout=st.floats(0.1, 3600))
@settings(max_examples=200, deadline=None)
def test_any_text_survives_a_round_trip(line, prose, soak, timeout):
    document = plan_of().model_dump(mode="python")
    document["plan"] |= {"title": line, "summary": prose}
    document["services"][0].update(timeout=timeout, area=line)
    document["weeks"][0].update(soak=timedelta(seconds=soak), done_when=(line, line), notes=prose)
    plan = Plan.model_validate(document)
    assert plan_of(write(plan)) == plan


def test_the_stored_form_of_a_plan_reads_as_an_equal_plan():
    plan = plan_of(SMALL)
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
