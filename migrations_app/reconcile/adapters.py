"""The adapter of a gateway row, made from the settings of this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from django.conf import settings

from migrations_app.gateways.base import Gateway as Adapter
from migrations_app.gateways.envoy import EnvoyGateway
from migrations_app.gateways.memory import MemoryGateway
from migrations_app.models import Gateway


def adapter_for(gateway: Gateway) -> Adapter:
    """One adapter for each gateway and process: it keeps its connections."""
    return _adapter(gateway.adapter, gateway.key)


@cache
def _adapter(name: str, key: str) -> Adapter:
    return _MAKERS[name](key)


def _envoy(_key: str) -> Adapter:
    return EnvoyGateway(
        folder=settings.GATEWAY_DIR,
        gateway_url=settings.GATEWAY_URL,
        admin_url=settings.GATEWAY_ADMIN_URL,
        envoy_binary=settings.ENVOY_BINARY or None,
    )


def _memory(_key: str) -> Adapter:
    return MemoryGateway()


_MAKERS: dict[str, Callable[[str], Adapter]] = {"envoy": _envoy, "memory": _memory}


@dataclass(frozen=True, slots=True)
class Known:
    """A gateway as the settings have it: its folder, and the address that its clients ask."""

    key: str
    adapter: Adapter
    folder: Path
    url: str


def known_gateways() -> list[Known]:
    """Every gateway that the settings name. Asks no database: a panic must not need one."""
    return [Known("main", _adapter("envoy", "main"), settings.GATEWAY_DIR, settings.GATEWAY_URL)]


def forget_adapters() -> None:
    """Make new ones on the next use; for tests that change the settings."""
    _adapter.cache_clear()
