"""When a generation was verified, and whether a gateway runs a flag."""

from datetime import timedelta

from django.utils import timezone

from migrations_app.models import Confirmation, Flag, Gateway
from migrations_app.models.gateways import SEEN_FOR, begun_at, verified_at


def test_a_generation_is_verified_by_the_first_confirmation_at_or_above_it(plan):
    gateway, now = Gateway.objects.get(), timezone.now()
    for generation, seconds in ((10, 1), (14, 2), (15, 3)):
        Confirmation.objects.create(
            gateway=gateway, generation=generation, confirmed_at=now + timedelta(seconds=seconds), milliseconds=1
        )
    found = verified_at([10, 11, 14, 15, 16])
    assert {generation: (moment - now).seconds for generation, moment in found.items()} == {10: 1, 11: 2, 14: 2, 15: 3}


def test_with_two_gateways_both_must_have_confirmed(plan):
    now = timezone.now()
    first = Gateway.objects.get()
    second = Gateway.objects.create(plan=plan, key="second", adapter="memory")
    Confirmation.objects.create(gateway=first, generation=20, confirmed_at=now, milliseconds=1)
    assert verified_at([20]) == {}
    # Traffic goes by it since the first of them, whatever the others do.
    assert begun_at([20, 21]) == {20: now}
    later = now + timedelta(seconds=4)
    Confirmation.objects.create(gateway=second, generation=21, confirmed_at=later, milliseconds=1)
    assert verified_at([20]) == {20: later}
    assert begun_at([20, 21, 22]) == {20: now, 21: later}


def test_a_gateway_answers_while_it_has_been_seen_to_lately():
    now = timezone.now()
    for generation, at, answers in (
        (8, now - SEEN_FOR, True),
        (8, now - SEEN_FOR - timedelta(microseconds=1), False),
        (8, None, False),
        (None, now, False),
    ):
        assert Gateway(observed_generation=generation, observed_at=at).answers_at(now) is answers


def test_a_flag_runs_only_once_the_gateway_has_answered_with_its_generation(plan):
    flag = Flag.objects.get(key="USE_AUTH_SERVICE")
    flag.weight, flag.generation = 100, 8
    for generation, weights, runs in (
        (7, {flag.key: 100}, False),
        (8, {flag.key: 100}, True),
        (8, {}, False),
        (None, {}, False),
    ):
        assert Gateway(observed_generation=generation, observed_weights=weights).runs(flag) is runs
