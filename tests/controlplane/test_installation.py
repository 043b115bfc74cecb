"""What the parts of an installation, and commands beside it, are told."""

from __future__ import annotations

from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from controlplane.embedded import gateway
from controlplane.embedded.errors import StartFailed
from controlplane.embedded.installation import Installation
from controlplane.environment import EnvironmentProblem, Ports
from controlplane.gateways import Place, read_places

CHECKS = {"CHECK_DATABASE_MAIN", "CHECK_DATABASE_AUTH", "CHECK_ACCOUNT_DEMO", "CHECK_SECRET_JWT"}


def runtime(state: Path, *, demo: bool = True, **given: str) -> dict[str, str]:
    return Installation(state, Ports.from_environment({"PORT_OFFSET": "20000"}), given, demo).runtime("")


def test_the_demos_checks_find_its_databases_its_account_and_its_secret(tmp_path: Path):
    told = runtime(tmp_path)
    address = conninfo_to_dict(told["CHECK_DATABASE_MAIN"])
    assert (address["host"], address["port"], address["dbname"]) == ("127.0.0.1", "25439", "tracseq_main")
    assert address["password"] == conninfo_to_dict(told["DEMO_DATABASE_URL"])["password"]
    assert conninfo_to_dict(told["CHECK_DATABASE_AUTH"])["dbname"] == "tracseq_auth"
    assert told["CHECK_ACCOUNT_DEMO"] == "ana.silva:tracseq-demo"
    assert told["CHECK_SECRET_JWT"].startswith("tracseq-demo-")
    assert told["BACKUP_DIR"] == str(tmp_path / "backups")
    assert Path(told["PG_RESTORE"]).is_file()


def test_without_the_demo_there_are_none(tmp_path: Path):
    told = runtime(tmp_path, demo=False)
    assert CHECKS & set(told) == set()
    assert told["BACKUP_DIR"] == str(tmp_path / "backups")


@pytest.mark.parametrize("demo", [True, False])
def test_what_a_person_has_set_is_passed_on(tmp_path: Path, demo: bool):
    given = {
        "BACKUP_DIR": "/srv/backups",
        "PG_RESTORE": "/opt/pg_restore",
        "CHECK_SECRET_JWT": "mine",
        "CHECK_DATABASE_OTHER": "postgres://other",
        "CHECK_WITHIN": "20",
    }
    told = runtime(tmp_path, demo=demo, **given)
    assert {name: told[name] for name in given} == given


def test_further_gateways_have_ports_folders_and_keys_of_their_own(tmp_path: Path):
    assert runtime(tmp_path)["GATEWAYS"] == ""
    assert read_places(runtime(tmp_path, GATEWAYS_EXTRA="2")["GATEWAYS"]) == {
        "gw-2": Place(tmp_path / "gateway-2", "http://127.0.0.1:28090", "http://127.0.0.1:29902"),
        "gw-3": Place(tmp_path / "gateway-3", "http://127.0.0.1:28091", "http://127.0.0.1:29903"),
    }
    ports = Ports.from_environment({"PORT_OFFSET": "20000"})
    it = Installation(tmp_path, ports, {"GATEWAYS_EXTRA": "2"}, demo=False)
    assert {28089, 28090, 28091, 29901, 29902, 29903} <= {port.number for port in it.wanted_ports()}
    assert [part.name for part in gateway.parts(it)] == ["gateway", "gw-2", "gw-3"]


@pytest.mark.parametrize(
    "given",
    [
        {"GATEWAYS": "gw-2=/x,http://x:1,http://x:2"},
        {"GATEWAY_DIR": "/x", "GATEWAY_URL": "u", "GATEWAY_ADMIN_URL": "a"},
    ],
)
def test_further_gateways_are_not_run_beside_those_of_others(tmp_path: Path, given: dict[str, str]):
    with pytest.raises(StartFailed, match="GATEWAYS_EXTRA is for gateways that are run here"):
        runtime(tmp_path, GATEWAYS_EXTRA="1", **given)


@pytest.mark.parametrize("number", ["-1", "9", "many"])
def test_how_many_further_gateways_is_held_to_by_name(tmp_path: Path, number: str):
    with pytest.raises(EnvironmentProblem, match="GATEWAYS_EXTRA must be"):
        runtime(tmp_path, GATEWAYS_EXTRA=number)


def test_gateways_that_run_elsewhere_are_passed_on(tmp_path: Path):
    text = "gw-2=/x,http://x:1,http://x:2"
    assert runtime(tmp_path, GATEWAYS=text)["GATEWAYS"] == text


def test_the_demos_own_settings_are_followed(tmp_path: Path):
    told = runtime(tmp_path, DEMO_JWT_SECRET="another", DEMO_DATABASE_PREFIX="lab_")
    assert told["CHECK_SECRET_JWT"] == "another"
    assert conninfo_to_dict(told["CHECK_DATABASE_AUTH"])["dbname"] == "lab_auth"
