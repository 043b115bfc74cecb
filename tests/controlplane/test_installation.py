"""What the parts of an installation, and commands beside it, are told."""

from __future__ import annotations

from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from controlplane.embedded.installation import Installation
from controlplane.environment import Ports

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


def test_the_demos_own_settings_are_followed(tmp_path: Path):
    told = runtime(tmp_path, DEMO_JWT_SECRET="another", DEMO_DATABASE_PREFIX="lab_")
    assert told["CHECK_SECRET_JWT"] == "another"
    assert conninfo_to_dict(told["CHECK_DATABASE_AUTH"])["dbname"] == "lab_auth"
