"""The adapter of a gateway row, made from the settings of this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from django.conf import settings

from migrations_app.gateways.base import Gateway as Adapter
from migrations_app.gateways.envoy import EnvoyGateway
from migrations_app.gateways.errors import GatewayError, Unplaced
from migrations_app.gateways.memory import MemoryGateway
from migrations_app.models import Gateway


def adapter_for(gateway: Gateway) -> Adapter:
    """One adapter for each gateway and process: it keeps its connections. Raises Unplaced."""
    return _adapter(gateway.adapter, gateway.key, gateway.first)


@cache
def _adapter(name: str, key: str, first: bool) -> Adapter:
    return _MAKERS[name](key, first)


def _envoy(key: str, first: bool) -> Adapter:
    if first:
        folder, url, admin_url = settings.GATEWAY_DIR, settings.GATEWAY_URL, settings.GATEWAY_ADMIN_URL
    elif (place := settings.GATEWAYS.get(key)) is not None:
        folder, url, admin_url = place.folder, place.url, place.admin_url
    else:
        raise Unplaced(f"the setting GATEWAYS of this process does not say where {key} runs")
    return EnvoyGateway(folder=folder, gateway_url=url, admin_url=admin_url, envoy_binary=settings.ENVOY_BINARY or None)


def _memory(_key: str, _first: bool) -> Adapter:
    return MemoryGateway()


_MAKERS: dict[str, Callable[[str, bool], Adapter]] = {"envoy": _envoy, "memory": _memory}


@dataclass(frozen=True, slots=True)
class Known:
    """A gateway as the settings have it: its folder, and the address that its clients ask.

    `key` is empty for the plan's own: the settings do not say how the plan calls it.
    """

    key: str
    adapter: Adapter
    folder: Path
    url: str

    def name(self) -> str:
        """Its key in the plan; the folder of one that nobody has told. Reads the folder, which may hang."""
        if self.key:
            return self.key
        try:
            return self.adapter.called() or str(self.folder)
        except GatewayError:
            return str(self.folder)


def known_gateways() -> list[Known]:
    """Every gateway that the settings name, the plan's own first. Asks no database: a panic must not need one."""
    first = Known("", _adapter("envoy", "", True), settings.GATEWAY_DIR, settings.GATEWAY_URL)
    others = settings.GATEWAYS.items()
    return [first, *(Known(key, _adapter("envoy", key, False), place.folder, place.url) for key, place in others)]


def forget_adapters() -> None:
    """Make new ones on the next use; for tests that change the settings."""
    _adapter.cache_clear()
