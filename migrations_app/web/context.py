"""What every page shows around its own content."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

from django.http import HttpRequest
from django.utils import timezone

from migrations_app.models import Gateway, Plan
from migrations_app.roles import Permission

from .gateway_state import GatewayState, state_of


@dataclass
class Chrome:
    """The header's content. Read when a template asks for it: one query with a plan, two without."""

    request: HttpRequest

    @cached_property
    def _gateways(self) -> list[Gateway]:
        return list(Gateway.objects.select_related("plan").defer("plan__document").order_by("key"))

    @cached_property
    def plan(self) -> Plan | None:
        return self._gateways[0].plan if self._gateways else Plan.objects.first()

    @cached_property
    def gateway(self) -> GatewayState | None:
        return state_of(self.plan, self._gateways) if self.plan else None

    @cached_property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.plan.timezone if self.plan else "UTC")

    @cached_property
    def now(self) -> datetime:
        return timezone.now()

    @cached_property
    def role(self) -> str:
        """The account's groups, in words."""
        return ", ".join(group.name for group in self.request.user.groups.all()) or "no role"

    @property
    def may(self) -> dict[str, bool]:
        """What the account may do, by the permission's name in lower case."""
        return {permission.name.lower(): self.request.user.has_perm(permission) for permission in Permission}


def chrome(request: HttpRequest) -> dict[str, Any]:
    if not hasattr(request, "user") or not request.user.is_authenticated:
        return {}
    if not hasattr(request, "chrome"):
        request.chrome = Chrome(request)  # type: ignore[attr-defined]  # once for a page and its parts
    return {"chrome": request.chrome}  # type: ignore[attr-defined]
