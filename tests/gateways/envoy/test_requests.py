"""What happens to a request on its way through Envoy: paths, headers, retries, timeouts, the access log."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import threading
from dataclasses import replace

import pytest

from migrations_app.gateways.base import Address, Side, Sticky
from migrations_app.gateways.envoy.bootstrap import BOOTSTRAP_FILE
from tests.gateways.estate import Envoy, free_port, wait_until


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("/api//auth/login", "/auth/login"),
        ("//api/auth/login", "/auth/login"),
        ("/api/%61uth/login", "/auth/login"),
        ("/api/storage/../auth/login", "/auth/login"),
        ("/api/./auth/login", "/auth/login"),
        ("/api/storage/%2e%2e/auth/login", "/auth/login"),
        ("/api/auth/a%20b?q=%2F", "/auth/a%20b?q=%2F"),
    ],
)
def test_a_path_written_otherwise_does_not_slip_past_its_route(envoy, run, path, seen):
    run(auth=100)
    reply = envoy.ask(path)
    assert (reply.who, reply.path) == ("auth", seen)


@pytest.mark.parametrize(
    "path", ["/api%2Fauth/login", "/api%2fauth%2flogin", "/api/storage%2f..%2fauth", "/api%5Cauth"]
)
def test_an_escaped_slash_is_answered_with_the_plain_path_to_ask_for(envoy, run, path):
    run(auth=100)
    reply = envoy.ask(path)
    assert reply.status == 307
    assert reply.who is None
    assert "%2" not in reply.headers["location"].lower()
    assert "%5c" not in reply.headers["location"].lower()


def test_leaving_the_root_is_refused_or_stays_inside(envoy, run):
    run(auth=100)
    assert envoy.ask("/../../etc/passwd").status in {400, 200}
    assert envoy.ask("/../api/auth/x").who in {"auth", None}


@pytest.mark.parametrize(
    "header",
    [
        "x-side",
        "X-Side",
        "x_side",
        "x-envoy-original-path",
        "x-envoy-upstream-alt-stat-name",
        "x_envoy_original_path",
        "x-user-id",
        "x-switchyard-bucket",
        "x_switchyard-bucket",
    ],
)
def test_headers_that_only_the_gateway_may_set_do_not_get_through(envoy, run, header):
    run(auth=100)
    for path in ("/api/auth/me", "/api/storage/x"):
        seen = envoy.ask(path, headers={header: "forged", "x-mine": "kept"}).json()["headers"]
        assert "forged" not in seen.values()
        assert seen["x-mine"] == "kept"


def test_a_client_cannot_stretch_its_timeout_or_ask_for_retries(envoy, run, estate):
    run(auth=100)
    estate["auth"].delay = 0.3
    reply = envoy.ask("/api/auth/x", headers={"x-envoy-upstream-rq-timeout-ms": "1"})
    assert reply.status == 200
    estate["auth"].delay, estate["auth"].status, estate["auth"].hits = 0, 500, 0
    envoy.ask("/api/auth/x", method="POST", headers={"x-envoy-retry-on": "5xx", "x-envoy-max-retries": "5"})
    assert estate["auth"].hits == 1


def test_answers_do_not_name_the_software_behind_them(envoy, run):
    run(auth=100)
    for path in ("/api/auth/x", "/api/storage/x", "/health"):
        headers = envoy.ask(path).headers
        assert not {"server", "x-powered-by", "x-envoy-upstream-service-time"} & set(headers)
        assert headers["x-request-id"]


@pytest.mark.parametrize(
    ("sticky", "headers"),
    [
        (Sticky(cookie="sid"), {"cookie": "a" * 60_000}),
        (Sticky(cookie="sid"), {"cookie": "a=;" * 20_000}),
        (Sticky(jwt_claim="sub"), {"authorization": "Bearer" + " " * 59_990 + "x"}),
        (Sticky(jwt_claim="sub"), {"authorization": "Bearer " + "." * 59_990}),
    ],
)
def test_no_text_of_a_clients_keeps_a_worker_busy(envoy, gateway, table, sticky, headers):
    """Milliseconds; were the work to grow with the square of the length, the route's time would be up."""
    gateway.apply(gateway.render(replace(table(auth=50), sticky=sticky)))
    assert envoy.ask("/api/auth/x", headers=headers).status == 200


def test_users_stay_on_their_side_when_the_gateway_has_forgotten_them(envoy, gateway, table):
    """It keeps the numbers of some thousand tokens."""
    gateway.apply(gateway.render(replace(table(auth=50), sticky=Sticky(jwt_claim="sub"))))
    connection = http.client.HTTPConnection("127.0.0.1", envoy.port, timeout=10)

    def who(user: int) -> str:
        claims = base64.urlsafe_b64encode(json.dumps({"sub": f"user-{user}"}).encode()).decode().rstrip("=")
        connection.request("GET", "/api/auth/x", headers={"authorization": f"Bearer e30.{claims}.x"})
        answered: str = json.load(connection.getresponse())["who"]
        return answered

    with contextlib.closing(connection):
        first = [who(user) for user in range(30)]
        assert set(first) == {"auth", "monolith"}
        for user in range(30, 2100):
            who(user)
        assert [who(user) for user in range(30)] == first


@pytest.mark.parametrize("size", [0, 70_000, 5_000_000])
def test_a_body_arrives_whole_on_either_side(envoy, run, size):
    run(auth=100)
    for path in ("/api/auth/upload", "/api/storage/upload"):
        reply = envoy.ask(path, method="POST", body=b"x" * size)
        assert (reply.status, reply.json()["length"], reply.json()["method"]) == (200, size, "POST")


def test_without_failover_a_read_is_tried_again_once_and_a_write_is_not(envoy, run, estate):
    run(auth=100, failover=False)
    estate["auth"].status, estate["auth"].hits = 503, 0
    assert envoy.ask("/api/auth/x").status == 503
    assert estate["auth"].hits == 2
    estate["auth"].hits = 0
    assert envoy.ask("/api/auth/x", method="POST", body=b"once").status == 503
    assert estate["auth"].hits == 1


def test_without_failover_a_service_that_hangs_costs_the_client_the_routes_timeout_and_no_more(envoy, run, estate):
    run(auth=100, failover=False)
    estate["auth"].delay = 4.0
    estate["auth"].hits = 0
    assert envoy.ask("/api/auth/x").status == 504
    assert estate["auth"].hits == 2


def test_errors_are_counted_on_the_side_that_made_them(envoy, run, gateway, estate):
    run(auth=100)

    def counted():
        found = gateway.traffic().get(("auth", Side.SERVICE))
        return (found.requests, found.errors) if found else (0, 0)

    requests, errors = counted()
    estate["auth"].status = 500
    envoy.ask("/api/auth/x", method="POST")
    estate["auth"].status = 404
    envoy.ask("/api/auth/x", method="POST")
    assert counted() == (requests + 2, errors + 1)


def test_without_failover_a_service_that_is_down_counts_as_errors(envoy, gateway, table):
    made = table(auth=100, failover=False)
    gone = replace(made.routes[0], service="gone", flag="USE_GONE", upstream=Address("127.0.0.1", free_port()))
    gateway.apply(gateway.render(replace(made, routes=(gone,))))
    assert envoy.ask("/api/auth/x").status == 503
    found = gateway.traffic()["gone", Side.SERVICE]
    assert (found.requests, found.errors) == (1, 1)


def test_the_access_log_has_one_json_object_for_each_request(envoy, run):
    run(auth=100)
    log = envoy.folder / "access.log"
    mark = "/api/auth/log-me"
    envoy.ask(f"{mark}?token=of-somebody")
    wait_until(lambda: mark in log.read_text())
    assert "of-somebody" not in log.read_text()
    entry = next(json.loads(line) for line in log.read_text().splitlines() if mark in line)
    assert (entry["path"], entry["service"], entry["side"], entry["status"]) == (mark, "auth", "service", 200)
    assert entry["method"] == "GET"
    assert entry["flags"] == "-"
    assert entry["tries"] == 1


@pytest.mark.parametrize(("failover", "side"), [(True, "failover"), (False, "service")])
def test_prometheus_metrics_are_labelled_with_service_and_side(envoy, run, failover, side):
    run(auth=100, failover=failover)
    envoy.ask("/api/auth/x")
    metrics = envoy.ask("/stats/prometheus", port=envoy.admin_port).text.splitlines()
    [line] = [
        line
        for line in metrics
        if line.startswith("envoy_cluster_upstream_rq_completed{")
        and f'side="{side}"' in line
        and 'envoy_cluster_name="auth"' in line
    ]
    assert int(line.rsplit(" ", 1)[1]) >= 1


def test_the_admin_port_takes_no_orders(envoy, run):
    run()
    for path in ("/quitquitquit", "/healthcheck/fail", "/drain_listeners", "/logging?level=trace"):
        assert envoy.ask(path, method="POST", port=envoy.admin_port).status == 403
    assert envoy.ask("/health").status == 200


def test_no_request_is_lost_while_flags_flip(envoy, gateway, table):
    failed, served, stop = [], set(), threading.Event()

    def client(method):
        while not stop.is_set():
            reply = envoy.ask("/api/auth/x", method=method, body=b"y" * 2000 if method == "POST" else None)
            served.add(reply.who)
            if reply.status != 200 or reply.path not in {"/auth/x", "/api/auth/x"}:
                failed.append(reply)

    gateway.apply(gateway.render(table()))
    threads = [threading.Thread(target=client, args=(method,)) for method in ("GET", "POST")]
    for thread in threads:
        thread.start()
    for turn in range(40):
        gateway.apply(gateway.render(table(auth=100 * (turn % 2))))
    stop.set()
    for thread in threads:
        thread.join()
    assert failed == []
    assert served == {"auth", "monolith"}


def test_an_envoy_that_still_runs_an_older_bootstrap_tells_no_response_times(tmp_path, estate, table):
    older = Envoy(tmp_path)
    try:
        older.prepare()
        path = older.folder / BOOTSTRAP_FILE
        bootstrap = json.loads(path.read_text())
        del bootstrap["stats_config"]["histogram_bucket_settings"]
        path.write_text(json.dumps(bootstrap))
        older.start(prepared=False)
        gateway = older.adapter()
        gateway.apply(gateway.render(table(auth=100)))
        older.ask("/api/auth/x")
        key = ("auth", Side.SERVICE)
        wait_until(lambda: gateway.traffic()[key].latency == ())
        assert gateway.traffic()[key].requests == 1
        older.stop()
        older.start()
        older.ask("/api/auth/x")
        wait_until(lambda: sum(gateway.traffic()[key].latency) == 1)
    finally:
        older.close()


def test_an_envoy_that_still_runs_a_bootstrap_without_failover_serves_and_counts(tmp_path, estate, table):
    older = Envoy(tmp_path)
    try:
        older.prepare()
        path = older.folder / BOOTSTRAP_FILE
        bootstrap = json.loads(path.read_text())
        del bootstrap["node"]["locality"], bootstrap["bootstrap_extensions"]
        listeners = bootstrap["static_resources"]["listeners"]
        listeners[1:] = []
        del listeners[0]["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"][0]
        path.write_text(json.dumps(bootstrap))
        older.start(prepared=False)
        gateway = older.adapter()
        for weight, who in ((0, "monolith"), (100, "auth"), (0, "monolith"), (100, "auth")):
            gateway.apply(gateway.render(table(auth=weight)))
            assert older.ask("/api/auth/x").who == who
            assert gateway.observe().drift == ()
        estate["auth"].status = 500
        assert older.ask("/api/auth/x", method="POST").status == 500
        wait_until(lambda: sum(gateway.traffic()["auth", Side.SERVICE].latency) == 3)
        found = gateway.traffic()["auth", Side.SERVICE]
        assert (found.requests, found.errors, found.failovers) == (3, 1, 0)
        gateway.apply(gateway.render(replace(table(auth=40), sticky=Sticky(header="x-a"))))
        estate["auth"].status = 200
        assert {older.ask("/api/auth/x", headers={"x-a": "1"}).who for _ in range(60)} == {"auth", "monolith"}
    finally:
        older.close()


def test_without_memory_it_gives_up_who_keeps_it_waiting_and_answers_everybody_else(tmp_path, estate, table):
    small = Envoy(tmp_path)
    try:
        small.prepare()
        path = small.folder / BOOTSTRAP_FILE
        text = path.read_text().replace('"max_heap_size_bytes": 1073741824', '"max_heap_size_bytes": 1')
        path.write_text(text.replace('"min_timeout": "10s"', '"min_timeout": "0.300s"'))
        small.start(prepared=False)
        gateway = small.adapter()
        gateway.apply(gateway.render(table(auth=100)))
        with socket.create_connection(("127.0.0.1", small.port)) as slow:
            slow.settimeout(10)
            slow.sendall(b"POST /api/auth/x HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\nhalf")
            assert slow.recv(100).startswith(b"HTTP/1.1 408")
        assert small.ask("/api/auth/x").who == "auth"
        gateway.apply(gateway.render(table(auth=0)))
        assert small.ask("/api/auth/x").who == "monolith"
    finally:
        small.close()


def test_a_request_that_gets_no_answer_is_an_error_without_a_response_time(gateway, envoy, estate, table):
    made = table(auth=100)
    slow = replace(made.routes[0], service="slow", flag="USE_SLOW_SERVICE", timeout=0.5)
    gateway.apply(gateway.render(replace(made, routes=(slow,))))
    estate["auth"].delay = 1.0
    assert envoy.ask("/api/auth/x", method="POST").status == 504
    estate["auth"].delay = 0.0
    assert envoy.ask("/api/auth/x").status == 200
    wait_until(lambda: any(gateway.traffic()["slow", Side.SERVICE].latency))
    found = gateway.traffic()["slow", Side.SERVICE]
    assert (found.requests, found.errors, sum(found.latency)) == (2, 1, 1)
