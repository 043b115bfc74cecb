"""The rollback scripts: plain sh in the gateway's folder, which needs nothing of ours."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from migrations_app.gateways.base import Address, Counted, RollbackScript, Route, RoutingTable, Sticky, with_pins
from migrations_app.gateways.envoy import EnvoyGateway
from migrations_app.gateways.envoy.bootstrap import RDS_FILE
from migrations_app.gateways.envoy.files import APPLIED_FILE, AppliedState, Folder
from migrations_app.gateways.envoy.render import render
from migrations_app.gateways.envoy.scripts import Scripts, script_of
from migrations_app.gateways.pins import JOURNAL_FILE, PinFolder, entry_of
from tests.gateways.estate import Envoy

SHELLS = [shell for shell in ("dash", "bash --posix", "busybox sh") if shutil.which(shell.split()[0])]
URL = "http://127.0.0.1:9"  # nobody listens
# The longer prefix is another service's, and prefixes may hold what shells and patterns take for their own.
ROUTES = [
    ("auth", "/api/auth", "/api"),
    ("auth", "/api/auth:reads", "/api"),
    ("auth", "/api/$HOME/'x'&(y)*", ""),
    ("users", "/api/auth/users", "/api/auth/users"),
    ("storage", "/", ""),
    ("a-long_one", "/api/a.b", "/api"),
]
WEIGHTS = (0, 1, 50, 100)


def table_of(seed: int, *, weights: dict[str, tuple[int, int | None]]) -> RoutingTable:
    odd = seed % 2 == 1
    routes = tuple(
        Route(
            service,
            f"USE_{service}",
            prefix,
            Address("127.0.0.1", 4000 + len(service)),
            weights[service][0],
            strip,
            timeout=3.5 if prefix == "/" else 15.0,
            failover=service != "users",
            write_weight=weights[service][1],
        )
        for service, prefix, strip in ROUTES
    )
    secret = "a-secret-of-testers-0123" if odd else ""
    sticky = [None, Sticky(cookie="session"), Sticky(header="x-user"), Sticky(jwt_claim="sub")][seed % 4]
    apart = (Counted("/api/auth"), Counted("/api/auth/login", "POST"), Counted("/api/a.b/c"), Counted("/", "GET"))
    counted = apart if seed % 3 else ()
    return RoutingTable("plan-ü", 41 + seed, Address("monolith.example", 80), routes, sticky, secret, counted)


def folder_with(place: Path, table: RoutingTable, *scripts: RollbackScript) -> Path:
    """As the adapter leaves it, but for the pins and what is not read here."""
    folder = Folder(place)
    rendered = render(table)
    folder.note_applied(AppliedState(rendered.generation, rendered.files, table))
    for name, content in rendered.files.items():
        folder.write(name, content)
    assert Scripts(place).keep(scripts, table, URL)
    return place


def run(place: Path, name: str, *arguments: str, shell="sh", path: str = os.environ["PATH"]):
    command = [*shell.split(), str(place / "rollback" / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={"PATH": path}, cwd="/", check=False, timeout=60)


def without(folder: Path, *missing: str) -> str:
    """A PATH with the tools of the scripts, but for these."""
    tools = {
        "awk",
        "cat",
        "chmod",
        "cmp",
        "cp",
        "curl",
        "cut",
        "date",
        "dirname",
        "env",
        "flock",
        "grep",
        "id",
        "mkdir",
    }
    tools |= {"mv", "rm", "sed", "sh", "sleep", "tail", "tr", *(shell.split()[0] for shell in SHELLS)}
    folder.mkdir()
    for tool in tools - set(missing):
        if found := shutil.which(tool):
            (folder / tool).symlink_to(found)
    return str(folder)


@pytest.mark.parametrize("seed", range(8))
def test_a_script_leaves_the_very_bytes_that_we_would_have_written(tmp_path, no_curl, seed):
    """Whatever the weights, the split, the testers and the other flags are."""
    choose = random.Random(seed)
    weights = {service: (choose.choice(WEIGHTS), choose.choice((None, *WEIGHTS))) for service, *_ in ROUTES}
    table = table_of(seed, weights=weights)
    flags = choose.sample([f"USE_{name}" for name in weights], choose.randint(1, len(weights)))
    place = folder_with(tmp_path / "a folder", table, RollbackScript("week-3.sh", "Week 3", tuple(flags)))
    done = run(place, "week-3.sh", shell=SHELLS[seed % len(SHELLS)], path=no_curl)
    assert "WARNING" not in done.stdout + done.stderr
    assert done.stderr == ""
    assert (place / RDS_FILE).read_bytes() == render(with_pins(table, flags)).files[RDS_FILE]
    assert PinFolder(place).flags() == set(flags)


@pytest.fixture(scope="module")
def no_curl(tmp_path_factory) -> str:
    """Where nobody listens, asking for long only takes time."""
    return without(tmp_path_factory.mktemp("path") / "tools", "curl")


def all_on(place: Path, **more) -> tuple[Path, RoutingTable]:
    table = table_of(1, weights=dict.fromkeys(("auth", "users", "storage", "a-long_one"), (100, None)))
    week = RollbackScript("week-3.sh", "Week 3: Sign-in", ("USE_users", "USE_auth"))
    return folder_with(
        place, table, week, RollbackScript("everything.sh", "Everything", ("USE_storage", "USE_users"))
    ), table


def test_a_script_pins_and_journals_who_when_and_why(tmp_path):
    place, table = all_on(tmp_path)
    done = run(place, "week-3.sh", "it's\ta $(burning)\nhouse")
    assert done.returncode == 1
    assert "NOT CONFIRMED" in done.stdout
    pins = PinFolder(place).pins()
    assert [pin.flag for pin in pins] == ["USE_auth", "USE_users"]
    (line,) = PinFolder(place).journal().lines
    told = entry_of(line.text)
    assert (told.done, told.flags, told.generation) == ("pinned", ("USE_users", "USE_auth"), table.generation)
    assert {told.why, *(pin.why for pin in pins)} == {"it's a $(burning) house"}
    assert {told.by, *(pin.by for pin in pins)} == {subprocess.check_output(["id", "-un"], text=True).strip()}
    assert {pin.at for pin in pins} == {told.at}


def test_a_script_may_run_twice_and_keeps_owner_and_mode(tmp_path, no_curl):
    place, _table = all_on(tmp_path)
    routes = place / RDS_FILE
    assert routes.stat().st_mode & 0o777 == 0o600  # it holds the secret of testers
    run(place, "week-3.sh", path=no_curl)
    first, inode = routes.read_bytes(), routes.stat().st_ino
    run(place, "week-3.sh", path=no_curl)
    assert (routes.read_bytes(), routes.stat().st_ino) == (first, inode)
    assert routes.stat().st_mode & 0o777 == 0o600
    assert len(PinFolder(place).journal().lines) == 2
    assert not [path for path in place.rglob(".*") if path.name != ".lock"]


def test_a_script_does_without_flock_and_curl(tmp_path):
    place, table = all_on(tmp_path / "gateway")
    done = run(place, "week-3.sh", path=without(tmp_path / "tools", "flock", "curl"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "no curl" in done.stdout
    assert (place / RDS_FILE).read_bytes() == render(with_pins(table, ["USE_auth", "USE_users"])).files[RDS_FILE]


def test_a_script_sets_the_pins_also_where_it_cannot_read_the_routes(tmp_path):
    place, _table = all_on(tmp_path)
    (place / RDS_FILE).write_text('{"version_info":"7","resources":[]}')
    done = run(place, "week-3.sh")
    assert done.returncode == 1
    assert "FAILED" in done.stdout
    assert PinFolder(place).flags() == {"USE_auth", "USE_users"}
    assert (place / RDS_FILE).read_text() == '{"version_info":"7","resources":[]}'


@pytest.mark.parametrize("broken", ["pins", "pins.journal"])
def test_a_script_does_not_say_that_it_has_pinned_what_it_has_not(tmp_path, no_curl, broken):
    place, table = all_on(tmp_path)
    if broken == "pins":
        (place / "pins").rmdir()
        (place / "pins").write_text("this is no folder")
    else:
        (place / JOURNAL_FILE).unlink()
        (place / JOURNAL_FILE).symlink_to("/dev/full")
    for shell in SHELLS:
        done = run(place, "week-3.sh", path=no_curl, shell=shell)
        assert done.returncode == 1
        assert "The pins are set" not in done.stdout
        assert "Pinned to the monolith" not in done.stdout
        assert "Sent to the monolith: USE_users USE_auth. NOT all pins could be written" in done.stdout
        assert (place / RDS_FILE).read_bytes() == render(with_pins(table, ["USE_auth", "USE_users"])).files[RDS_FILE]
    (place / RDS_FILE).write_text('{"version_info":"7","resources":[]}')
    assert "cannot be written. NOT all pins could" in run(place, "week-3.sh", path=no_curl).stdout
    assert not list(place.glob(".*.new"))


def test_a_script_goes_on_in_every_shell_where_it_cannot_open_the_lock(tmp_path):
    place, table = all_on(tmp_path / "gateway")
    (place / ".lock").mkdir()
    path = without(tmp_path / "tools", "curl", "sleep")
    (tmp_path / "tools" / "sleep").symlink_to("/bin/true")  # nobody else is at work
    for shell in SHELLS:
        assert run(place, "week-3.sh", path=path, shell=shell).returncode == 0
    assert (place / RDS_FILE).read_bytes() == render(with_pins(table, ["USE_auth", "USE_users"])).files[RDS_FILE]


def test_a_script_says_of_routes_that_came_after_it(tmp_path, no_curl):
    place, table = all_on(tmp_path)
    added = Route("auth", "USE_auth", "/api/new", Address("127.0.0.1", 4004), 100)
    later = render(RoutingTable(table.plan, 99, table.monolith, (*table.routes, added)))
    Folder(place).write(RDS_FILE, later.files[RDS_FILE])
    done = run(place, "week-3.sh", path=no_curl)
    assert done.returncode == 1
    assert "USE_auth has routes that this script does not know" in done.stdout


@pytest.mark.parametrize(("killer", "left"), [("mv", ".USE_users.*.new"), ("cmp", ".rds.json.*.new")])
def test_what_a_killed_script_leaves_is_cleared_up(tmp_path, killer, left):
    place, _table = all_on(tmp_path / "gateway")
    tools = without(tmp_path / "tools", "curl", killer)
    (Path(tools) / killer).write_text("#!/bin/sh\nkill -9 $PPID\n")
    (Path(tools) / killer).chmod(0o755)
    assert run(place, "week-3.sh", path=tools).returncode == -signal.SIGKILL
    assert len(list(place.glob(left))) == 1
    urls = {"gateway_url": URL, "admin_url": URL}
    assert EnvoyGateway(folder=place, envoy_binary=None, leftover_age=0.0, **urls).housekeep()
    assert [path.name for path in place.rglob(".*")] == [".lock"]


def test_a_torn_journal_line_is_not_written_on(tmp_path, no_curl):
    place, _table = all_on(tmp_path)
    (place / JOURNAL_FILE).write_bytes(b"done=pinned\tat=2026")
    run(place, "week-3.sh", path=no_curl)
    torn, whole = PinFolder(place).journal().lines
    assert entry_of(torn.text) is None
    assert entry_of(whole.text).flags == ("USE_users", "USE_auth")


def test_scripts_are_written_when_something_they_hold_has_changed_and_at_no_other_time(tmp_path):
    place, table = all_on(tmp_path)
    scripts = Scripts(place)
    week = RollbackScript("week-3.sh", "Week 3", ("USE_auth",))
    assert scripts.keep((week,), table, URL)
    assert sorted(path.name for path in (place / "rollback").iterdir()) == ["scripts.json", "week-3.sh"]
    assert (place / "rollback" / "week-3.sh").stat().st_mode & 0o777 == 0o755
    assert scripts.known() == (week,)
    assert not scripts.keep((week,), with_pins(table, ["USE_auth"]), URL)
    assert not Scripts(place).keep((week,), table, URL)
    (place / "rollback" / "week-3.sh").unlink()
    assert scripts.keep((week,), table, URL)
    assert scripts.keep((week,), table, "http://127.0.0.1:10")


def test_a_title_is_one_line_of_comment_whatever_it_says():
    table = table_of(1, weights=dict.fromkeys(("auth", "users", "storage", "a-long_one"), (0, None)))

    def lines(title: str) -> list[str]:
        return script_of(RollbackScript("week-3.sh", title, ("USE_auth", "USE_users")), table, URL).split("\n")

    plain = lines("Week 3")
    title = "@DATA@ @COUNT@ @NAME@ '@FLAGS@' @FLAGS@ '@URL@' @URL@ @TITLE@ $(id)"
    assert lines(f"{title}\n\r\x85\u2028\ud800id") == [plain[0], f"# {title}     id", *plain[2:]]


def test_scripts_tell_no_secret(tmp_path):
    place, table = all_on(tmp_path)
    assert table.tester_secret.encode() in (place / APPLIED_FILE).read_bytes()
    assert (place / APPLIED_FILE).stat().st_mode & 0o777 == 0o600
    for path in (place / "rollback").iterdir():
        assert table.tester_secret.encode() not in path.read_bytes()


def test_a_real_gateway_takes_what_a_script_has_left_and_the_loop_finds_nothing_to_put_back(tmp_path, table):
    envoy = Envoy(tmp_path / "gateway")
    try:
        envoy.start()
        gateway = envoy.adapter()
        done = gateway.apply(gateway.render(table(auth=100, users=30, storage=100)))
        gateway.keep_scripts([RollbackScript("week-1.sh", "Week 1", ("USE_USERS_SERVICE", "USE_AUTH_SERVICE"))])
        said = run(envoy.folder, "week-1.sh")
        assert said.returncode == 0, said.stdout + said.stderr
        assert "The gateway says so too" in said.stdout
        assert json.loads(envoy.ask("/routing-status").text)["generation"] == done.generation
        seen = gateway.observe()
        assert (seen.weights["USE_AUTH_SERVICE"], seen.weights["USE_STORAGE_SERVICE"], seen.drift) == (0, 100, ())
        assert (envoy.ask("/api/auth/x").who, envoy.ask("/api/storage/x").who) == ("monolith", "storage")
        # What the control plane applies then replaces nothing of anybody else's.
        pinned = with_pins(table(auth=100, users=30, storage=100), [pin.flag for pin in gateway.pins()])
        assert gateway.apply(gateway.render(pinned)).replaced == ()
        envoy.stop()
        envoy.start()
        assert envoy.ask("/api/auth/x").who == "monolith"
    finally:
        envoy.close()
