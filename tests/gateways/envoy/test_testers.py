"""The secret of testers: who holds it, and who never gets to see it."""

from __future__ import annotations

import json
import socket
from dataclasses import replace

import pytest

from migrations_app.gateways.base import Address, Rendered
from migrations_app.gateways.envoy.bootstrap import BOOTSTRAP_FILE, RDS_FILE
from migrations_app.gateways.envoy.files import APPLIED_FILE, VALIDATED_FILE
from migrations_app.gateways.errors import Rejected
from tests.gateways.estate import Envoy, wait_until

SECRET = "open-sesame_0123456789"
OTHER = "another-secret-987654321"


@pytest.fixture
def secret_table(table):
    def make(secret: str = SECRET, **weights: int):
        return replace(table(**weights), tester_secret=secret)

    return make


@pytest.mark.parametrize("name", ["x-switchyard-side", "X-Switchyard-Side", "x_switchyard_side", "x-switchyard_side"])
@pytest.mark.parametrize("value", [f"service {SECRET}", "service", "anything"])
def test_no_upstream_sees_the_header(envoy, gateway, secret_table, name, value):
    gateway.apply(gateway.render(secret_table(auth=100)))
    for path in ("/api/auth/x", "/api/storage/x", "/elsewhere"):
        for method in ("GET", "POST"):
            seen = envoy.ask(path, method=method, headers={name: value, "x-mine": "kept"}).json()["headers"]
            assert not {"x-switchyard-side", "x_switchyard_side", "x-switchyard_side"} & set(seen)
            assert seen["x-mine"] == "kept"
            assert value not in seen.values()


def test_the_files_that_hold_it_are_for_their_owner_alone_and_no_other_file_holds_it(
    envoy, gateway, secret_table, table
):
    def modes() -> dict[str, int]:
        holding = [path for path in envoy.folder.rglob("*") if path.is_file() and SECRET in path.read_text()]
        return {str(path.relative_to(envoy.folder)): path.stat().st_mode & 0o777 for path in holding}

    gateway.apply(gateway.render(secret_table(auth=100)))
    envoy.ask("/api/auth/x", headers={"x-switchyard-side": f"monolith {SECRET}"})
    assert modes() == {RDS_FILE: 0o600, APPLIED_FILE: 0o600}
    gateway.apply(gateway.render(table(auth=100)))
    assert modes() == {}


def test_the_gateways_own_answers_do_not_tell_it(envoy, gateway, secret_table, table):
    gateway.apply(gateway.render(secret_table(auth=30)))
    for path in ("/routing-status", "/health", "/services/discovery"):
        assert SECRET not in envoy.ask(path).text
    assert envoy.ask("/routing-status").json()["testers"] is True
    gateway.apply(gateway.render(table(auth=30)))
    assert "testers" not in envoy.ask("/routing-status").json()


def test_another_secret_behind_our_back_is_found_and_neither_is_told(envoy, gateway, secret_table):
    rendered = gateway.render(secret_table(auth=0))
    gateway.apply(rendered)
    forged = (envoy.folder / RDS_FILE).read_text().replace(SECRET, OTHER)
    (envoy.folder / "edited").write_text(forged)
    (envoy.folder / "edited").rename(envoy.folder / RDS_FILE)
    asked = {"x-switchyard-side": f"service {OTHER}"}
    wait_until(lambda: envoy.ask("/api/auth/x", headers=asked).who == "auth")
    seen = gateway.observe()
    assert any("secret of testers" in sentence for sentence in seen.drift)
    assert SECRET not in repr(seen)
    assert OTHER not in repr(seen)
    assert gateway.apply(rendered).changed
    assert envoy.ask("/api/auth/x", headers=asked).who == "monolith"


def test_a_secret_in_the_wrong_place_is_not_told_either(envoy, gateway, secret_table):
    gateway.apply(gateway.render(secret_table(auth=100)))
    long = "x" * 100 + SECRET
    envoy.replace_file(RDS_FILE, ('"prefix_rewrite":"/auth"', f'"prefix_rewrite":"/{long}"'))
    wait_until(lambda: any("prefix_rewrite" in sentence for sentence in gateway.observe().drift))
    assert "open-sesame" not in repr(gateway.observe())


def test_what_the_validator_says_does_not_tell_it(gateway, secret_table):
    good = gateway.render(secret_table(auth=100))
    document = json.loads(good.files[RDS_FILE])
    document["resources"][0]["virtual_hosts"][0]["routes"][-1]["route"]["cluster"] = SECRET
    with pytest.raises(Rejected, match="unknown cluster") as refused:
        gateway.apply(Rendered(good.generation, {**good.files, RDS_FILE: json.dumps(document).encode()}))
    assert SECRET not in str(refused.value)


def test_a_new_secret_is_no_new_shape(gateway, secret_table, monkeypatch):
    gateway.apply(gateway.render(secret_table(auth=30)))
    asked = []
    monkeypatch.setattr(gateway._validator, "check", lambda **given: asked.append(given))
    gateway.apply(gateway.render(secret_table(OTHER, auth=100)))
    assert asked == []
    assert SECRET not in (gateway._folder.path / VALIDATED_FILE).read_text()


def test_nothing_waits_for_a_service_that_only_testers_are_sent_to(tmp_path, estate, secret_table):
    fresh = Envoy(tmp_path)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            fresh.prepare()
            path = fresh.folder / BOOTSTRAP_FILE
            path.write_text(json.dumps(json.loads(path.read_text()) | names_asked_of(silent.getsockname()[1])))
            fresh.start(prepared=False)
            gateway = fresh.adapter()
            made = secret_table(auth=0)
            lost = replace(made.routes[0], upstream=Address("no-such-host.invalid", 80))
            gateway.apply(gateway.render(replace(made, routes=(lost,))))
            assert fresh.ask("/api/auth/x").who == "monolith"
            asked = {"x-switchyard-side": f"service {SECRET}"}
            assert fresh.ask("/api/auth/x", headers=asked).status == 503
            assert gateway.failing_over() == {}
    finally:
        fresh.close()


def names_asked_of(port: int) -> dict:
    """Part of a bootstrap: who tells Envoy the addresses of names."""
    server = {"socket_address": {"address": "127.0.0.1", "port_value": port, "protocol": "UDP"}}
    kind = "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"
    config = {"@type": kind, "resolvers": [server]}
    return {"typed_dns_resolver_config": {"name": "envoy.network.dns_resolver.cares", "typed_config": config}}
