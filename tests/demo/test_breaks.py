"""Breaking a password hash and the JWT secret of one side, and mending them."""

from collections.abc import Iterator

import pytest

from demo.break_hash import USERNAME
from demo.fault import listing
from demo.jwt_secret import set_secret
from tests.demo.conftest import Estate

VERIFY = {"monolith": "/api/auth/verify", "auth": "/auth/verify"}
LOGIN = {"monolith": "/api/auth/login", "auth": "/auth/login"}


@pytest.fixture
def mended(estate: Estate) -> Iterator[Estate]:
    """The estate, whose secrets are its own again afterwards."""
    yield estate
    for name in VERIFY:
        assert set_secret(name, "own", estate.settings) is None


def token(estate: Estate, name: str) -> str:
    return estate.login(name, LOGIN[name]).json()["token"]


def accepts(estate: Estate, name: str, given: str) -> int:
    return estate.get(name, VERIFY[name], headers={"authorization": f"Bearer {given}"}).status_code


def line_of(estate: Estate, name: str) -> str:
    return next(line for line in listing(estate.settings) if line.startswith(name))


@pytest.mark.parametrize(("name", "other"), [("auth", "monolith"), ("monolith", "auth")])
def test_a_changed_secret_parts_the_two_sides_until_it_is_restored(mended: Estate, migrated, name, other) -> None:
    before = token(mended, name)
    done = mended.run("demo.jwt_secret", name, "change")
    assert (done.returncode, done.stdout) == (0, f"{name}: a JWT secret that nobody else knows\n"), done.stderr
    assert accepts(mended, name, token(mended, name)) == 200
    assert accepts(mended, other, token(mended, name)) == 401
    assert accepts(mended, name, token(mended, other)) == 401
    assert accepts(mended, name, before) == 401
    assert line_of(mended, name).endswith("no fault, JWT secret changed")
    assert mended.run("demo.fault", name, "slow", "1").returncode == 0
    assert mended.run("demo.fault", name, "none").returncode == 0
    assert accepts(mended, name, before) == 401

    done = mended.run("demo.jwt_secret", name, "restore")
    assert (done.returncode, done.stdout) == (0, f"{name}: its own JWT secret\n")
    assert accepts(mended, name, before) == 200
    assert accepts(mended, other, token(mended, name)) == 200
    assert line_of(mended, name).endswith("no fault")


@pytest.mark.parametrize("words", [[], ["auth"], ["nobody", "change"], ["auth", "break"], ["auth", "change", "x"]])
def test_words_that_change_no_secret_are_refused(mended: Estate, words: list[str]) -> None:
    done = mended.run("demo.jwt_secret", *words)
    assert (done.returncode, done.stderr) == (2, "")
    assert "usage:" in done.stdout


def test_a_secret_of_a_process_that_does_not_run_is_not_changed(seeded: Estate, tmp_path) -> None:
    done = seeded.run("demo.jwt_secret", "auth", "change", STATE_DIR=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "jwt_secret: auth is not running\n")


def test_a_spoilt_hash_shuts_one_user_out_until_users_are_migrated_again(estate: Estate, migrated) -> None:
    done = estate.run("demo.break_hash")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"break_hash: {USERNAME} has another password hash on the new side\n"
    assert estate.login("auth", LOGIN["auth"], USERNAME).status_code == 401
    assert estate.login("auth", LOGIN["auth"]).status_code == 200
    assert estate.login("monolith", LOGIN["monolith"], USERNAME).status_code == 200
    assert "39 of 40" in estate.run("demo.migrate_users", "--check").stdout
    assert estate.run("demo.migrate_users").returncode == 0
    assert estate.login("auth", LOGIN["auth"], USERNAME).status_code == 200


def test_a_hash_of_nobody_is_not_spoilt(estate: Estate, unmigrated) -> None:
    for words in ([], ["nobody"]):
        done = estate.run("demo.break_hash", *words)
        assert (done.returncode, done.stderr) == (1, "")
        assert "has no user" in done.stdout
    assert estate.run("demo.break_hash", "a", "b").returncode == 2
    url = "postgresql://postgres@127.0.0.1:1/postgres"
    refused = estate.run("demo.break_hash", DEMO_DATABASE_URL=url)
    assert (refused.returncode, refused.stderr) == (1, "")
