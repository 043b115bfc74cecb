"""What Envoy does by itself, without a control plane, when a service is not what it should be."""

from __future__ import annotations

import itertools
import json
import socket
import threading
from dataclasses import replace

import pytest

from migrations_app.gateways.base import Address, Side
from migrations_app.gateways.envoy.bootstrap import CDS_FILE
from tests.gateways.estate import Upstream, free_port, wait_until

_numbers = itertools.count(1)


@pytest.fixture
def service(gateway, table):
    """A service of this test alone with a route of its own: `upstream = service(weight=100)`."""
    started = []

    def make(*, weight: int = 100, **fields) -> Upstream:
        upstream = Upstream(f"service-{next(_numbers)}")
        started.append(upstream)
        route(upstream, weight=weight, **fields)
        return upstream

    def route(service: Upstream, **fields) -> None:
        made = table()
        named = {"service": service.name, "flag": f"USE_{service.name}", "prefix": f"/api/{service.name}"}
        chosen = replace(made.routes[0], **({"upstream": service.address, **named} | fields))
        gateway.apply(gateway.render(replace(made, routes=(chosen,))))

    make.route = route
    yield make
    for upstream in started:
        upstream.delay = 0.0
        if not upstream.dead:
            upstream.stop()


def new_side(gateway, upstream):
    return gateway.traffic()[upstream.name, Side.SERVICE]


def test_a_read_to_a_service_that_hangs_is_answered_by_the_monolith_after_a_third_of_its_time(envoy, gateway, service):
    slow = service(timeout=1.5)
    slow.delay = 1.2
    reply = envoy.ask(f"/api/{slow.name}/x")
    assert (reply.status, reply.who, reply.path) == (200, "monolith", f"/api/{slow.name}/x")
    found = new_side(gateway, slow)
    assert (found.requests, found.errors, found.failovers, found.retries) == (1, 1, 1, 1)
    assert found.failed_failovers == 0


def test_a_write_that_was_sent_is_not_sent_again(envoy, gateway, service, estate):
    slow = service(timeout=0.5)
    slow.delay = 1.0
    before = estate["monolith"].hits
    assert envoy.ask(f"/api/{slow.name}/x", method="POST", body=b"once").status == 504
    assert estate["monolith"].hits == before
    found = new_side(gateway, slow)
    assert (found.requests, found.errors, found.failovers) == (1, 1, 0)


def test_once_it_is_known_to_hang_writes_go_to_the_monolith_and_come_back_when_it_answers(envoy, gateway, service):
    slow = service(timeout=1.5)
    assert envoy.ask(f"/api/{slow.name}/x").who == slow.name
    slow.delay = 4.0
    wait_until(lambda: slow.name in gateway.failing_over(), timeout=20)
    assert "does not answer" in gateway.failing_over()[slow.name]
    reply = envoy.ask(f"/api/{slow.name}/x", method="POST", body=b"x")
    assert (reply.status, reply.who) == (200, "monolith")
    slow.delay = 0.0
    wait_until(lambda: envoy.ask(f"/api/{slow.name}/x").who == slow.name, timeout=10)
    assert gateway.failing_over() == {}


def test_a_service_that_fails_again_and_again_is_left_alone_for_a_while(envoy, gateway, service):
    broken = service()
    broken.status = 500
    for _ in range(5):
        assert envoy.ask(f"/api/{broken.name}/x").who == "monolith"
    assert "in a row" in gateway.failing_over()[broken.name]
    hits = broken.hits
    assert envoy.ask(f"/api/{broken.name}/x", method="POST", body=b"x").who == "monolith"
    assert broken.hits == hits
    broken.status = 200
    wait_until(lambda: envoy.ask(f"/api/{broken.name}/x").who == broken.name, timeout=10)
    assert gateway.failing_over() == {}


def test_a_health_page_that_says_503_takes_no_traffic_away(envoy, gateway, service):
    ill = service(health_path="/ill")
    envoy.ask(f"/api/{ill.name}/x")
    ill.status = 503
    hits = ill.hits
    wait_until(lambda: ill.hits >= hits + 3, timeout=10)
    assert gateway.failing_over() == {}


def test_one_address_of_a_name_that_has_two_takes_all_while_the_other_is_away(envoy, gateway, service):
    half = service()
    own, dead = (
        json.dumps({"endpoint": {"address": {"socket_address": {"address": host, "port_value": half.address.port}}}})
        for host in (half.address.host, "127.0.0.2")
    )
    one, both = (text.replace(" ", "") for text in (f"[{own}]", f"[{own},{dead}]"))
    envoy.replace_file(CDS_FILE, (one, both))

    def away() -> bool:
        envoy.ask(f"/api/{half.name}/x", method="POST")
        told = envoy.ask("/clusters", port=envoy.admin_port).text
        return f"{half.name}.service::127.0.0.2:{half.address.port}::health_flags::/failed" in told

    wait_until(away)
    assert {envoy.ask(f"/api/{half.name}/x", method="POST").who for _ in range(60)} == {half.name}
    assert gateway.failing_over() == {}


def test_a_large_write_fails_over_whole_and_one_of_any_size_once_the_service_is_known_to_be_down(
    envoy, gateway, service
):
    dead = service()
    dead.die()
    for size in (900_000, 5_000_000):
        reply = envoy.ask(f"/api/{dead.name}/x", method="POST", body=b"x" * size)
        assert (reply.status, reply.who, reply.json()["length"]) == (200, "monolith", size)
        wait_until(lambda: envoy.ask(f"/api/{dead.name}/x").status == 200 and dead.name in gateway.failing_over())


def test_of_a_write_no_more_is_kept_for_the_monolith_than_of_any_other_request(envoy, service):
    well = service()
    assert envoy.ask(f"/api/{well.name}/x", method="POST", body=b"x" * 5_000_000).json()["length"] == 5_000_000
    assert envoy.ask(f"/api/{well.name}/x", method="POST", body=b"x" * 500_000).json()["length"] == 500_000
    told = envoy.ask("/stats?filter=retry_or_shadow_abandoned", port=envoy.admin_port).text
    assert f"cluster.{well.name}.failover.retry_or_shadow_abandoned: 1\n" in told


def test_what_may_come_in_may_also_fail_over(envoy, service):
    dead = service()
    dead.die()
    long = f"/api/{dead.name}/x?{'y' * 40_000}"
    assert envoy.ask(long).path == long
    headers = {f"x-mine-{number}": "1" for number in range(85)}
    assert envoy.ask(f"/api/{dead.name}/x", headers=headers).status == 200


@pytest.mark.parametrize(("weight", "alive"), [(0, True), (100, True), (100, False)])
def test_websockets_pass_to_either_side_and_fail_over(envoy, service, weight, alive):
    serving = service(weight=weight)
    if not alive:
        serving.die()
    with socket.create_connection(("127.0.0.1", envoy.port), timeout=10) as client:
        head = f"GET /api/{serving.name}/x HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
        client.sendall(head.encode())
        who = serving.name if weight and alive else "monolith"
        got = b""
        while not got.endswith(who.encode()):
            more = client.recv(1000)
            assert more, got
            got += more
        assert got.startswith(b"HTTP/1.1 101 ")
        client.sendall(b"ping")
        assert client.recv(4) == b"ping"


def test_the_monolith_sees_nothing_of_the_way_that_a_request_came(envoy, service):
    dead = service()
    plain = envoy.ask("/elsewhere", headers={"x-mine": "1"}).json()["headers"]
    dead.die()
    by_failover = envoy.ask(f"/api/{dead.name}/x", headers={"x-mine": "1"}).json()["headers"]
    assert set(by_failover) <= set(plain)
    assert (by_failover["host"], by_failover["x-forwarded-for"]) == (plain["host"], plain["x-forwarded-for"])
    assert by_failover["x-mine"] == "1"


def test_a_client_cannot_choose_the_path_that_the_monolith_sees(envoy, service):
    dead = service(strip="")
    dead.die()
    forged = {"x-envoy-original-path": "/admin", "x_envoy_original_path": "/admin"}
    assert envoy.ask(f"/api/{dead.name}/x", headers=forged).path == f"/api/{dead.name}/x"


def test_answers_by_failover_do_not_name_the_software_behind_them(envoy, service):
    dead = service()
    dead.die()
    headers = envoy.ask(f"/api/{dead.name}/x").headers
    assert not {"server", "x-powered-by", "x-envoy-upstream-service-time"} & set(headers)
    assert headers["x-request-id"]


def test_a_monolith_that_is_down_as_well_is_an_error_that_counts_once(envoy, gateway, table, service):
    made = table()
    nobody = Address("127.0.0.1", free_port())
    lost = replace(made.routes[0], service="lost", flag="USE_LOST", prefix="/api/lost", weight=100, upstream=nobody)
    gateway.apply(gateway.render(replace(made, routes=(lost,), monolith=nobody)))
    assert envoy.ask("/api/lost/x").status == 503
    found = gateway.traffic()["lost", Side.SERVICE]
    assert (found.requests, found.errors, found.failovers, found.failed_failovers) == (1, 1, 1, 1)
    # It was not sent yet, so the monolith was given a second try.
    told = envoy.ask("/stats?filter=cluster.monolith.upstream_rq_retry$", port=envoy.admin_port).text
    assert int(told.removeprefix("cluster.monolith.upstream_rq_retry: ")) >= 1
    gateway.apply(gateway.render(table()))


def test_what_the_monolith_fails_in_the_place_of_the_service_is_counted_as_such(envoy, gateway, service, estate):
    dead = service()
    dead.die()
    statuses = []
    for status in (500, 404, 200):
        estate["monolith"].status = status
        try:
            statuses.append(envoy.ask(f"/api/{dead.name}/x", method="POST", body=b"x").status)
        finally:
            estate["monolith"].status = 200
    assert statuses == [500, 404, 200]
    found = new_side(gateway, dead)
    assert (found.requests, found.errors, found.failovers, found.failed_failovers) == (3, 3, 3, 1)


def test_counters_outlive_a_change_of_the_services_address(envoy, gateway, service, estate):
    one = service()
    for _ in range(3):
        envoy.ask(f"/api/{one.name}/x")
    service.route(one, weight=100, upstream=estate["storage"].address)
    assert envoy.ask(f"/api/{one.name}/x").who == "storage"
    found = new_side(gateway, one)
    assert (found.requests, found.errors) == (4, 0)


def test_a_flip_changes_neither_clusters_nor_who_is_asked_for_its_health_while_it_is_off(envoy, gateway, service):
    off = service(weight=0)
    wait_until(lambda: off.polls == 1)
    cluster_file = (envoy.folder / "cds/cds.json").stat()
    service.route(off, weight=100)
    assert (envoy.folder / "cds/cds.json").stat() == cluster_file
    assert envoy.ask(f"/api/{off.name}/x").who == off.name


def test_a_service_that_was_down_when_it_was_added_serves_soon_after_it_came_up(envoy, gateway, service):
    late = service(weight=0)
    late.die()
    service.route(late, weight=0, upstream=Address("127.0.0.1", port := free_port()))
    revived = Upstream(late.name, port)
    try:
        service.route(late, weight=100, upstream=revived.address)
        wait_until(lambda: envoy.ask(f"/api/{late.name}/x").who == late.name)
    finally:
        revived.stop()


def test_no_read_is_lost_when_a_service_dies_under_load(envoy, service):
    dying = service()
    failed, answered, stop = [], set(), threading.Event()

    def client() -> None:
        while not stop.is_set():
            reply = envoy.ask(f"/api/{dying.name}/x")
            answered.add(reply.who)
            if reply.status != 200:
                failed.append(reply)

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: dying.name in answered)
    dying.die()
    wait_until(lambda: "monolith" in answered)
    hits = len(answered)
    stop.set()
    for thread in threads:
        thread.join()
    assert failed == []
    assert (hits, answered) == (2, {dying.name, "monolith"})
