"""What the gateway answers by itself, as operators' scripts read it."""

from __future__ import annotations

import json


def test_routing_status_can_be_grepped(envoy, run):
    rendered = run(auth=100, storage=1)
    reply = envoy.ask("/routing-status")
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["cache-control"] == "no-store"
    assert '"USE_AUTH_SERVICE":true' in reply.text
    assert '"USE_STORAGE_SERVICE":true' in reply.text
    assert '"USE_USERS_SERVICE":false' in reply.text
    assert " " not in reply.text
    assert reply.text == json.dumps(reply.json(), separators=(",", ":"), sort_keys=True)
    assert reply.json()["generation"] == rendered.generation


def test_routing_status_says_for_each_prefix_who_serves_it_and_where(envoy, run, estate):
    run(auth=100, storage=25)
    status = envoy.ask("/routing-status").json()
    assert status["plan"] == "tests"
    assert status["weights"] == {"USE_AUTH_SERVICE": 100, "USE_USERS_SERVICE": 0, "USE_STORAGE_SERVICE": 25}
    routes = {prefix: (route["service"], route["side"], route["address"]) for prefix, route in status["routes"].items()}
    monolith = str(estate["monolith"].address)
    assert routes == {
        "/api/auth": ("auth", "service", str(estate["auth"].address)),
        "/api/auth/users": ("users", "monolith", monolith),
        "/api/storage": ("storage", "split", {"monolith": monolith, "service": str(estate["storage"].address)}),
    }


def test_discovery_has_every_service_whoever_serves(envoy, run, estate):
    run()
    found = envoy.ask("/services/discovery").json()
    assert found["monolith"]["address"] == str(estate["monolith"].address)
    assert set(found["services"]) == {"auth", "users", "storage"}
    auth = found["services"]["auth"]
    assert auth["address"] == str(estate["auth"].address)
    assert auth["health_path"] == "/health"
    assert auth["prefixes"] == ["/api/auth"]


def test_health_is_the_gateways_own_and_needs_no_upstream(envoy, run):
    rendered = run()
    reply = envoy.ask("/health")
    assert (reply.status, reply.json()["status"]) == (200, "healthy")
    assert reply.json()["generation"] == rendered.generation
    assert envoy.ask("/healthy").who == "monolith"


def test_a_long_status_is_answered_whole(envoy, gateway, table):
    from dataclasses import replace

    made = table()
    many = tuple(
        replace(made.routes[0], service=f"s{i}", flag=f"USE_{i}", prefix=f"/api/s{i}", weight=i % 101)
        for i in range(150)
    )
    gateway.apply(gateway.render(replace(made, routes=many)))
    status = envoy.ask("/routing-status").json()
    assert len(status["routes"]) == 150
    assert gateway.observe().weights == status["weights"]


def test_routing_status_tells_of_writes_where_they_go_another_way(envoy, gateway, table):
    from dataclasses import replace

    made = table(storage=40)
    reads_first = replace(made.routes[0], weight=100, write_weight=0)
    gateway.apply(gateway.render(replace(made, routes=(reads_first, *made.routes[1:]))))
    status = envoy.ask("/routing-status").json()
    assert (status["weights"]["USE_AUTH_SERVICE"], status["flags"]["USE_AUTH_SERVICE"]) == (100, True)
    assert status["write_weights"] == {"USE_AUTH_SERVICE": 0}
    route = status["routes"]["/api/auth"]
    assert (route["side"], route["weight"], route["write_weight"]) == ("split", 100, 0)
    assert set(route["address"]) == {"monolith", "service"}
    assert "write_weight" not in status["routes"]["/api/storage"]
    gateway.apply(gateway.render(table(storage=40)))
    assert "write_weights" not in envoy.ask("/routing-status").json()
