"""Envoy's folder: first start, fence, races, drift, validation, and what Envoy itself refuses."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from migrations_app.gateways.base import Address, Rendered, Sticky
from migrations_app.gateways.envoy import adapter, confirm, holders, start, validate
from migrations_app.gateways.envoy.bootstrap import CDS_FILE, RDS_FILE
from migrations_app.gateways.envoy.files import APPLIED_FILE, VALIDATED_FILE, Folder
from migrations_app.gateways.errors import FolderBusy, FolderUnusable, NotConfirmed, Rejected, StaleGeneration
from tests.gateways.estate import Envoy, wait_until

ROOT = Path(__file__).parents[3]


@pytest.fixture
def fresh(tmp_path):
    envoy = Envoy(tmp_path / "gateway")
    try:
        yield envoy
    finally:
        envoy.close()


def written(path: Path) -> tuple[Path, int, int]:
    """Changes whenever the file is written."""
    found = path.stat()
    return path, found.st_ino, found.st_mtime_ns


def test_a_first_start_answers_for_itself_and_has_no_plan(fresh):
    fresh.start()
    assert fresh.ask("/health").json()["status"] == "healthy"
    assert fresh.ask("/routing-status").json()["generation"] == 0
    reply = fresh.ask("/api/auth")
    assert (reply.status, reply.text) == (503, "no plan loaded yet\n")
    seen = fresh.adapter().observe()
    assert (seen.generation, seen.weights, seen.drift, seen.error) == (0, {}, (), "")


def test_a_folder_that_was_never_prepared_takes_a_table_for_the_first_start(fresh, table):
    fresh.folder.mkdir()
    gateway = fresh.adapter(down_timeout=0.05)
    rendered = gateway.render(table(auth=100))
    with pytest.raises(NotConfirmed, match="runs it as soon as it starts"):
        gateway.apply(rendered)
    fresh.start()
    assert fresh.ask("/api/auth/x").path == "/auth/x"
    assert not gateway.apply(rendered).changed


def test_an_outage_does_not_make_every_pass_write_again(fresh, table):
    fresh.prepare()
    gateway = fresh.adapter(down_timeout=0.01)
    rendered = gateway.render(table(auth=100))
    for _ in range(2):
        with pytest.raises(NotConfirmed):
            gateway.apply(rendered)
        before = [written(path) for path in sorted(fresh.folder.rglob("*.json"))]
    with pytest.raises(NotConfirmed):
        gateway.apply(rendered)
    assert [written(path) for path in sorted(fresh.folder.rglob("*.json"))] == before


def test_envoy_starts_again_from_the_bare_files(envoy, run):
    run(auth=100)
    envoy.stop()
    envoy.start(prepared=False)
    assert envoy.ask("/api/auth/x").path == "/auth/x"


@pytest.mark.parametrize("damage", ["lost", "empty", "garbage"])
def test_preparing_again_repairs_files_that_envoy_could_not_start_from(envoy, run, damage):
    run(auth=100)
    envoy.stop()
    for name in (CDS_FILE, RDS_FILE):
        path = envoy.folder / name
        if damage == "lost":
            path.unlink()
        else:
            path.write_text("" if damage == "empty" else "{]")
    envoy.start()
    assert envoy.ask("/api/auth/x").path == "/auth/x"


def test_a_lost_note_is_written_again_and_does_not_stop_anything(envoy, run, gateway, table):
    rendered = run(auth=100)
    (envoy.folder / APPLIED_FILE).write_text("not json")
    assert "lost" in gateway.observe().error
    with pytest.raises(StaleGeneration):
        gateway.apply(gateway.render(table(generation=rendered.generation - 1)))
    assert gateway.apply(rendered).changed
    assert gateway.observe().error == ""


def test_a_forged_high_generation_in_the_route_file_does_not_lift_the_fence(envoy, run, gateway, table):
    run(auth=100)
    version = json.loads((envoy.folder / RDS_FILE).read_text())["version_info"]
    envoy.replace_file(RDS_FILE, (f'"version_info":"{version}"', '"version_info":"999999999"'))
    rendered = gateway.render(table(auth=0))
    assert gateway.apply(rendered).changed
    assert envoy.ask("/api/auth").who == "monolith"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            ('"cluster":"auth.failover"', '"cluster":"auth.monolith"'),
            "route /api/auth runs to auth.monolith, applied was",
        ),
        (
            ('"prefix_rewrite":"/auth"', '"prefix_rewrite":"/evil"'),
            "prefix_rewrite runs as '/evil', applied was '/auth'",
        ),
        (('"path_separated_prefix":"/api/storage"', '"path_separated_prefix":"/api/other"'), "/api/storage is missing"),
        (('"numerator":30', '"numerator":31'), "31 % users.failover"),
        (('"timeout":"2s"', '"timeout":"3s"'), "timeout runs as '3s', applied was '2s'"),
        (('\\"generation\\"', '\\"generatiom\\"'), "own.health"),
    ],
)
def test_every_change_of_the_routes_is_named(envoy, run, gateway, change, sentence):
    rendered = run(auth=100, users=30)
    envoy.replace_file(RDS_FILE, change)

    def noticed():
        text = envoy.ask("/config_dump?resource=dynamic_route_configs", port=envoy.admin_port).text
        return change[1].split(":")[-1] in text

    wait_until(noticed)
    seen = gateway.observe()
    assert any(sentence in told for told in (*seen.drift, seen.error)), seen
    assert gateway.apply(rendered).changed
    assert gateway.observe().drift == ()


def test_a_forged_generation_in_the_answers_is_not_believed(envoy, run, gateway):
    rendered = run(auth=100)
    told = f'\\"generation\\":{rendered.generation}'
    envoy.replace_file(RDS_FILE, (told, '\\"generation\\":999999'))
    wait_until(lambda: envoy.ask("/routing-status").json()["generation"] == 999999)
    seen = gateway.observe()
    assert seen.generation is None
    assert "claims generation 999999" in seen.error
    assert seen.drift
    assert gateway.apply(rendered).changed
    assert gateway.observe().generation == rendered.generation


def test_a_hand_made_route_file_is_named_and_put_back(envoy, run, gateway):
    rendered = run(auth=100)
    document = json.loads((envoy.folder / RDS_FILE).read_text())
    rest = {"match": {"prefix": "/"}, "route": {"cluster": "monolith"}}
    document["resources"][0]["virtual_hosts"][0]["routes"] = [rest]
    edited = envoy.folder / "edited"
    edited.write_text(json.dumps(document))
    edited.rename(envoy.folder / RDS_FILE)
    wait_until(lambda: envoy.ask("/api/auth").who == "monolith")
    seen = gateway.observe()
    assert seen.generation is None
    assert "route /api/auth is missing, applied was auth.failover" in seen.drift
    assert gateway.apply(rendered).changed
    assert envoy.ask("/api/auth/x").path == "/auth/x"


@pytest.mark.parametrize("change", [("port_value", "7"), ("max_retries", "3")])
def test_every_change_of_the_clusters_is_named(envoy, run, gateway, change):
    rendered = run(auth=100)
    field, value = change
    document = json.loads((envoy.folder / CDS_FILE).read_text())
    [cluster] = [cluster for cluster in document["resources"] if cluster["name"] == "auth.service"]
    if field == "port_value":
        endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
        endpoint["address"]["socket_address"]["port_value"] = int(value)
        sentence = "cluster auth.service runs to 127.0.0.1:7, applied was"
    else:
        cluster["circuit_breakers"]["thresholds"][0]["max_retries"] = int(value)
        sentence = "max_retries runs as 3, applied was 1000"
    edited = envoy.folder / "edited"
    edited.write_text(json.dumps(document | {"version_info": "edited"}))
    edited.rename(envoy.folder / CDS_FILE)
    wait_until(lambda: any(sentence in told for told in gateway.observe().drift))
    assert gateway.apply(rendered).changed
    assert gateway.observe().drift == ()


def test_clusters_that_no_route_needs_go_last(envoy, run, gateway, table):
    run(auth=100)
    made = table(storage=100)
    only_storage = replace(made, routes=(made.routes[2],))
    gateway.apply(gateway.render(only_storage))
    text = envoy.ask("/config_dump?resource=dynamic_active_clusters", port=envoy.admin_port).text
    assert '"auth.service"' not in text
    assert '"storage.service"' in text
    assert gateway.observe().drift == ()


def test_a_change_of_weight_leaves_the_cluster_file_alone(envoy, run):
    run(auth=100)
    before = written(envoy.folder / CDS_FILE)
    run(auth=0, storage=55)
    assert written(envoy.folder / CDS_FILE) == before


def test_host_names_are_resolved(envoy, gateway, table, estate):
    made = table(auth=100)
    named = replace(made.routes[0], upstream=Address("localhost", estate["auth"].address.port))
    gateway.apply(gateway.render(replace(made, routes=(named,))))
    assert envoy.ask("/api/auth/x").path == "/auth/x"
    assert gateway.observe().drift == ()


def broken(rendered: Rendered) -> Rendered:
    """Files that are JSON and of ours, but that Envoy refuses."""
    routes = rendered.files[RDS_FILE].replace(b'"cluster":"auth.failover"', b'"cluster":"nowhere"')
    assert routes != rendered.files[RDS_FILE]
    return Rendered(rendered.generation, {**rendered.files, RDS_FILE: routes})


def test_an_invalid_configuration_never_reaches_the_folder(envoy, run, gateway, table):
    run(auth=100)
    before = {path: path.read_bytes() for path in envoy.folder.rglob("*.json")}
    with pytest.raises(Rejected, match="unknown cluster 'nowhere'"):
        gateway.apply(broken(gateway.render(table(auth=100))))
    assert {path: path.read_bytes() for path in envoy.folder.rglob("*.json")} == before
    assert envoy.ask("/api/auth/x").who == "auth"


def test_an_unknown_field_is_refused(envoy, run, gateway, table):
    run(auth=100)
    rendered = gateway.render(table(auth=100))
    typo = rendered.files[RDS_FILE].replace(b'"num_retries"', b'"num_retires"')
    with pytest.raises(Rejected, match="num_retires"):
        gateway.apply(Rendered(rendered.generation, {**rendered.files, RDS_FILE: typo}))
    assert gateway.observe().drift == ()


def test_without_a_validator_envoys_own_refusal_is_found_and_undone(envoy, run, table):
    rendered = run(auth=100)
    gateway = envoy.adapter(envoy_binary=None)
    assert not gateway.capabilities.validates
    with pytest.raises(Rejected, match="refuses generation"):
        gateway.apply(broken(gateway.render(table(auth=100))))
    assert envoy.ask("/api/auth/x").who == "auth"
    assert Folder(envoy.folder).read_watched() == rendered.files
    assert gateway.observe().drift == ()
    assert gateway.apply(gateway.render(table(auth=0))).changed


def test_without_its_validator_a_rollback_still_goes_and_a_new_shape_is_rejected(envoy, run, table, tmp_path):
    run(auth=100)
    gateway = envoy.adapter(envoy_binary=tmp_path / "no-envoy")
    assert gateway.apply(gateway.render(table(auth=0))).changed
    assert envoy.ask("/api/auth").who == "monolith"
    made = table(auth=0)
    with pytest.raises(Rejected, match="does not run"):
        gateway.apply(gateway.render(replace(made, routes=(replace(made.routes[0], timeout=9.0),))))


@pytest.fixture(params=["exit 127", "exec sleep 60", "kill -SEGV $$"])
def broken_validator(request, tmp_path) -> Path:
    path = tmp_path / "envoy"
    path.write_text(f"#!/bin/sh\n{request.param}\n")
    path.chmod(0o755)
    return path


def test_with_a_validator_that_an_upgrade_broke_a_rollback_still_goes(envoy, run, table, broken_validator, monkeypatch):
    run(auth=100)
    deadlines = []  # seconds that each run of the validator got
    start = subprocess.run

    def noted(command, *, timeout, **options):
        deadlines.append(timeout)
        return start(command, timeout=timeout, **options)

    monkeypatch.setattr(validate.subprocess, "run", noted)
    upgraded = envoy.adapter(envoy_binary=broken_validator)
    assert upgraded.apply(upgraded.render(table(auth=0))).changed
    [deadline] = deadlines
    assert deadline < 1
    assert envoy.ask("/api/auth/x").path == "/api/auth/x"
    made = table(auth=0)
    new_shape = replace(made, routes=(replace(made.routes[0], timeout=9.0),))
    with pytest.raises(Rejected, match="validator"):
        envoy.adapter(envoy_binary=broken_validator, validate_timeout=0.2).apply(upgraded.render(new_shape))
    assert deadlines == [deadline, 0.2]


def test_a_folder_that_is_not_there_is_told(envoy, table, tmp_path):
    gateway = envoy.adapter(folder=tmp_path / "nowhere")
    with pytest.raises(FolderUnusable, match="nowhere"):
        gateway.apply(gateway.render(table()))
    assert "nothing was applied" in gateway.observe().error


def test_files_of_nobody_are_replaced_at_a_first_start(fresh):
    for name in (CDS_FILE, RDS_FILE):
        (fresh.folder / name).parent.mkdir(parents=True)
        (fresh.folder / name).write_text('{"resources":[{}]}')
    fresh.start()
    assert fresh.ask("/routing-status").json()["generation"] == 0


def test_a_rollback_does_not_wait_for_a_new_side_whose_name_does_not_resolve(fresh, table):
    """A name server that never answers keeps Envoy from using the new side's cluster."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        fresh.prepare()
        bootstrap = json.loads((fresh.folder / "bootstrap.json").read_text())
        resolver = {
            "socket_address": {"protocol": "UDP", "address": "127.0.0.1", "port_value": silent.getsockname()[1]}
        }
        bootstrap["typed_dns_resolver_config"] = {
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
                "resolvers": [resolver],
            },
        }
        (fresh.folder / "bootstrap.json").write_text(json.dumps(bootstrap))
        fresh.start(prepared=False)
        gateway = fresh.adapter()
        made = table()
        lost = replace(made.routes[0], upstream=Address("auth.invalid", 80))
        gateway.apply(gateway.render(replace(made, routes=(lost,))))
        assert fresh.ask("/api/auth").who == "monolith"
        assert gateway.observe().drift == ()
        with pytest.raises(NotConfirmed, match=r"auth\.service"):
            fresh.adapter(confirm_timeout=0.3).apply(
                gateway.render(replace(table(), routes=(replace(lost, weight=100, timeout=3.0),)))
            )
        gateway.apply(gateway.render(replace(table(), routes=(lost,))))
        assert fresh.ask("/api/auth").who == "monolith"


def test_only_a_new_shape_is_validated(envoy, run, gateway, table, monkeypatch):
    run(auth=0)
    asked = []
    check = gateway._validator.check
    monkeypatch.setattr(gateway._validator, "check", lambda **given: (asked.append(1), check(**given)))
    for weight in (100, 1, 99, 50, 0):
        gateway.apply(gateway.render(table(auth=weight, storage=100 - weight)))
    split = table(auth=100)
    gateway.apply(gateway.render(replace(split, routes=(replace(split.routes[0], write_weight=30), *split.routes[1:]))))
    assert asked == []
    made = table(auth=100)
    gateway.apply(gateway.render(replace(made, routes=(replace(made.routes[0], timeout=7.0),))))
    assert asked == [1]


def test_files_that_say_other_than_their_table_are_validated_themselves(envoy, run, gateway, table):
    run(auth=100)
    before = {path: path.read_bytes() for path in envoy.folder.rglob("*.json")}
    rendered = gateway.render(replace(made := table(auth=100), routes=(replace(made.routes[0], timeout=6.0),)))
    typo = rendered.files[RDS_FILE].replace(b'"num_retries"', b'"num_retires"')
    with pytest.raises(Rejected, match="num_retires"):
        gateway.apply(replace(rendered, files={**rendered.files, RDS_FILE: typo}))
    document = json.loads(rendered.files[RDS_FILE])
    document["resources"][0]["virtual_hosts"].append({"name": "more", "domains": ["*"], "routes": []})
    second = json.dumps(document).encode()
    with pytest.raises(Rejected, match="domain"):
        gateway.apply(replace(rendered, files={**rendered.files, RDS_FILE: second}))
    assert {path: path.read_bytes() for path in envoy.folder.rglob("*.json")} == before
    right = rendered.files[RDS_FILE].replace(b'"num_retries":1', b'"num_retries":2')
    assert gateway.apply(replace(rendered, files={**rendered.files, RDS_FILE: right})).changed
    assert gateway.observe().drift == ()


@pytest.mark.parametrize("binary", ["with", "without"])
def test_a_flip_of_a_known_shape_asks_the_gateway_nothing_before_its_routes_are_written(
    envoy, table, monkeypatch, binary
):
    gateway = envoy.adapter(**({} if binary == "with" else {"envoy_binary": None}))
    for weight in (100, 0):
        gateway.apply(gateway.render(table(auth=weight)))
    asked = []
    get = gateway._client._get

    def noted(url, params=None, within=None):
        asked.append(json.loads((envoy.folder / RDS_FILE).read_bytes())["version_info"])
        return get(url, params, within)

    monkeypatch.setattr(gateway._client, "_get", noted)
    rendered = gateway.render(table(auth=100))
    assert gateway.apply(rendered).changed
    assert asked
    assert set(asked) == {str(rendered.generation)}


def test_a_flip_puts_clusters_right_that_were_changed_since_they_were_last_seen(envoy, gateway, run, table):
    run(auth=0)
    right = (envoy.folder / CDS_FILE).read_text()
    [port] = [one["load_assignment"] for one in json.loads(right)["resources"] if one["name"] == "auth.monolith"]
    number = port["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["port_value"]
    envoy.replace_file(CDS_FILE, (f'"port_value":{number}', '"port_value":7'))
    dump = "/config_dump?resource=dynamic_active_clusters"
    wait_until(lambda: '"port_value": 7\n' in envoy.ask(dump, port=envoy.admin_port).text)
    (envoy.folder / CDS_FILE).write_text(right)
    assert gateway.apply(gateway.render(table(auth=100))).changed
    assert envoy.ask("/api/auth/x").path == "/auth/x"
    assert gateway.observe().drift == ()


def test_a_flip_brings_back_clusters_that_were_taken_away_since_they_were_last_seen(envoy, gateway, run, table):
    run(auth=0)
    right = (envoy.folder / CDS_FILE).read_text()
    document = json.loads(right)
    left = [cluster for cluster in document["resources"] if cluster["name"] != "auth.service"]
    (envoy.folder / "edited").write_text(json.dumps({"version_info": "edited", "resources": left}))
    (envoy.folder / "edited").rename(envoy.folder / CDS_FILE)
    dump = "/config_dump?resource=dynamic_active_clusters"
    wait_until(lambda: '"name": "auth.service"' not in envoy.ask(dump, port=envoy.admin_port).text)
    (envoy.folder / CDS_FILE).write_text(right)
    assert gateway.apply(gateway.render(table(auth=100))).changed
    assert envoy.ask("/api/auth/x").path == "/auth/x"


def test_a_damaged_store_of_shapes_only_costs_a_validation(envoy, run, gateway, table):
    run(auth=0)
    (envoy.folder / VALIDATED_FILE).write_text("[1")
    gateway.apply(gateway.render(table(auth=100)))
    assert envoy.ask("/api/auth/x").who == "auth"
    assert json.loads((envoy.folder / VALIDATED_FILE).read_text())["routes"]


def test_a_held_lock_is_waited_for_and_then_told(envoy, run, table):
    run(auth=100)
    gateway = envoy.adapter(lock_timeout=0.05)
    with (
        Folder(envoy.folder).locked(1),
        pytest.raises(FolderBusy, match=f"lock .* process {os.getpid()} on .* has held"),
    ):
        gateway.apply(gateway.render(table()))
    assert gateway.apply(gateway.render(table())).changed
    assert (envoy.folder / ".lock").read_bytes() == b""


def test_a_lock_that_was_waited_for_in_vain_is_not_waited_for_again_by_the_look_after(envoy, run, table, monkeypatch):
    run(auth=100)
    gateway, locked, waits = envoy.adapter(lock_timeout=0.05), Folder.locked, []
    envoy.edit_in_place(RDS_FILE, ("auth.failover", "auth.monolith"))
    with locked(Folder(envoy.folder), 1):
        monkeypatch.setattr(Folder, "locked", lambda self, timeout: waits.append(timeout) or locked(self, timeout))
        with pytest.raises(FolderBusy):
            gateway.apply(gateway.render(table()))
        assert gateway.observe().drift
    assert waits == [0.05, 0.0]
    assert gateway.apply(gateway.render(table())).changed


def test_who_holds_the_lock_is_told_with_how_to_end_it(tmp_path):
    sleeper = subprocess.Popen(["sleep", "60"])
    descriptor = os.open(tmp_path / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        os.kill(sleeper.pid, signal.SIGSTOP)
        wait_until(lambda: all_stopped(sleeper.pid))
        os.write(descriptor, f"{sleeper.pid} {socket.gethostname()} 1795389441\n".encode())
        who = f"process {sleeper.pid} on {socket.gethostname()}, which is stopped,"
        since = "has held it since 2026-11-22 23:17:21 UTC"
        assert holders.told(descriptor) == f"{who} {since}; end it there: kill -9 {sleeper.pid}"
    finally:
        sleeper.kill()
        sleeper.wait()
    # Its words have outlived it; somebody who signs nothing holds the lock now.
    assert holders.told(descriptor) == ""
    os.close(descriptor)


def test_a_start_waits_for_no_lock_and_no_disk_when_the_gateway_can_start_from_what_lies_there(
    envoy, run, gateway, monkeypatch, caplog
):
    monkeypatch.setattr(start, "_LOCK_TIMEOUT_STARTABLE", 0.0)
    monkeypatch.setattr(start, "_LOCK_TIMEOUT", 0.0)
    run(auth=100)
    gateway.pin(["USE_AUTH_SERVICE"], by="tests")
    envoy.stop()
    with Folder(envoy.folder).locked(1):
        envoy.start()
        assert envoy.ask("/api/auth/x").who == "auth"
        assert f"process {os.getpid()} on" in caplog.text
        assert "requests of USE_AUTH_SERVICE to the new side, although that is pinned" in caplog.text
        routes = (envoy.folder / RDS_FILE).read_bytes()
        (envoy.folder / RDS_FILE).unlink()
        with pytest.raises(FolderBusy):
            envoy.prepare()
    (envoy.folder / RDS_FILE).write_bytes(routes)
    caplog.clear()
    (envoy.folder / ".lock").rename(envoy.folder / "aside")
    (envoy.folder / ".lock").mkdir()
    envoy.prepare()
    assert "Is a directory" in caplog.text
    (envoy.folder / ".lock").rmdir()
    gateway.lift(["USE_AUTH_SERVICE"], by="tests")


def test_a_folder_that_was_made_anew_is_told_until_the_gateway_starts_again(fresh, table):
    envoy, gateway = fresh, fresh.adapter()
    envoy.start()
    rendered = gateway.render(table(auth=100))
    gateway.apply(rendered)
    shutil.rmtree(envoy.folder / "rds")
    assert gateway.observe().drift
    assert gateway.apply(rendered).changed
    seen = gateway.observe()
    assert (seen.generation, seen.drift) == (rendered.generation, ())
    assert seen.error.startswith("the folder rds/ was made anew after the gateway had started")
    later = gateway.render(table(auth=0))
    with pytest.raises(NotConfirmed, match=r"rds/ was made anew .*: start the gateway again"):
        envoy.adapter(confirm_timeout=0.05).apply(later)
    envoy.stop()
    envoy.start(prepared=False)
    assert (gateway.observe().generation, gateway.observe().error) == (later.generation, "")
    # A copy in the place of the one that is watched.
    shutil.copytree(envoy.folder / "rds", envoy.folder / "copy")
    (envoy.folder / "rds").rename(envoy.folder / "gone")
    (envoy.folder / "copy").rename(envoy.folder / "rds")
    assert "rds/ was made anew" in gateway.observe().error
    envoy.prepare()
    assert gateway.observe().error == ""


class Waited:
    """A clock on which only that passes which was waited for: questions that nobody answered, and pauses."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.questions: list[dict[str, float]] = []

    def note(self, question: httpx.Request) -> None:
        self.questions.append(question.extensions["timeout"])
        self.seconds += self.questions[-1]["read"]

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def monotonic(self) -> float:
        return self.seconds

    perf_counter = monotonic


def all_stopped(pid: int) -> bool:
    states = [stat.read_text().rpartition(") ")[2][0] for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    return set(states) == {"T"}


def test_an_envoy_that_hangs_is_told_in_time(envoy, run, table, monkeypatch):
    run(auth=100)
    gateway, waited = envoy.adapter(), Waited()
    gateway._client._client().event_hooks = {"request": [waited.note]}
    for module in (adapter, confirm):
        monkeypatch.setattr(module, "time", waited)
    os.kill(envoy._process.pid, signal.SIGSTOP)
    try:
        # A thread that is at work on another processor may answer one more question before the signal reaches it.
        wait_until(lambda: all_stopped(envoy._process.pid))
        assert "no answer in time" in gateway.observe().error
        assert len(waited.questions) == 1
        with pytest.raises(NotConfirmed, match="no answer in time"):
            gateway.apply(gateway.render(table()))
    finally:
        os.kill(envoy._process.pid, signal.SIGCONT)
    assert all(set(question.values()) == {0.3} for question in waited.questions)
    assert waited.seconds < 2
    wait_until(lambda: envoy.ask("/api/auth").who == "monolith")


def test_a_stranger_on_the_port_is_not_taken_for_the_gateway(envoy, run, estate):
    run(auth=100)
    gateway = envoy.adapter(gateway_url=f"http://{estate['monolith'].address}")
    seen = gateway.observe()
    assert seen.generation is None
    assert "not as a table of ours" in seen.error


RACER = """
import random, sys
from dataclasses import replace
from pathlib import Path
from migrations_app.gateways.base import Address, Route, RoutingTable
from migrations_app.gateways.envoy import EnvoyGateway
from migrations_app.gateways.errors import FolderBusy, FolderUnusable, StaleGeneration
folder, port, admin, monolith, auth, first, last, seed = sys.argv[1], *map(int, sys.argv[2:])
gateway = EnvoyGateway(folder=Path(folder), gateway_url=f"http://127.0.0.1:{port}",
                       admin_url=f"http://127.0.0.1:{admin}", envoy_binary=None)
order = list(range(first, last))
random.Random(seed).shuffle(order)
for generation in order:
    route = Route("auth", "USE_AUTH_SERVICE", "/api/auth", Address("127.0.0.1", auth), generation % 101)
    table = RoutingTable("race", generation, Address("127.0.0.1", monolith), (route,))
    try:
        gateway.apply(gateway.render(table))
    except (StaleGeneration, FolderBusy):
        pass
"""


def test_processes_that_race_with_generations_in_random_order_end_at_the_highest(fresh, estate):
    fresh.start()
    ports = [estate[name].address.port for name in ("monolith", "auth")]
    common = [sys.executable, "-c", RACER, str(fresh.folder), *map(str, [fresh.port, fresh.admin_port, *ports])]
    seeds = random.Random(7).sample(range(1000), 2)
    racers = [
        subprocess.Popen([*common, "1", "60", str(seed)], cwd=ROOT, stderr=subprocess.PIPE, text=True) for seed in seeds
    ]
    for racer in racers:
        _, errors = racer.communicate(timeout=60)
        assert racer.returncode == 0, errors
    seen = fresh.adapter().observe()
    assert (seen.generation, seen.weights, seen.drift) == (59, {"USE_AUTH_SERVICE": 59}, ())


def test_a_writer_that_is_killed_leaves_what_the_next_one_can_finish(envoy, run, gateway, table):
    """The order of writing is note, clusters, routes: stop after the note, as a kill -9 may."""
    run(auth=100)
    rendered = gateway.render(table(auth=0))
    folder = Folder(envoy.folder)
    with folder.locked(1):
        from migrations_app.gateways.envoy.files import AppliedState

        folder.note_applied(AppliedState(rendered.generation, rendered.files))
    seen = gateway.observe()
    assert seen.generation == rendered.generation - 1
    assert seen.drift
    with pytest.raises(StaleGeneration):
        gateway.apply(gateway.render(table(generation=rendered.generation - 1, auth=100)))
    assert gateway.apply(rendered).changed
    assert envoy.ask("/api/auth").who == "monolith"


def test_the_folder_holds_no_leftovers(envoy, run):
    run(auth=100)
    run(auth=0)
    assert not [path.name for path in envoy.folder.rglob("*.tmp")]


@pytest.mark.parametrize(
    "change",
    [
        {"timeout": 0.25},
        {"timeout": 1.001},
        {"timeout": 3600.0},
        {"prefix": "/api/a.b~c!$&'()*+,;=:@"},
        {"prefix": "/api"},
        {"prefix": "/", "strip": ""},
        {"strip": ""},
        {"upstream": Address("::1", 9)},
        {"upstream": Address("localhost", 9)},
        {"weight": 1},
        {"weight": 99},
        {"failover": False, "weight": 100},
        {"failover": False, "weight": 30},
        {"health_path": "/healthz?full=1"},
        {"weight": 100, "write_weight": 0},
        {"weight": 10, "write_weight": 20},
    ],
    ids=str,
)
@pytest.mark.parametrize("sticky", [None, Sticky(header="x-a"), Sticky(cookie="a"), Sticky(jwt_claim="sub")])
def test_envoy_dumps_what_was_rendered_letter_for_letter(envoy, gateway, table, change, sticky):
    made = replace(table(), sticky=sticky, tester_secret="open-sesame_0123456789" if sticky else "")
    rendered = gateway.render(replace(made, routes=(replace(made.routes[0], **change),)))
    gateway.apply(rendered)
    seen = gateway.observe()
    assert (seen.drift, seen.error) == ((), "")
    assert not gateway.apply(rendered).changed
