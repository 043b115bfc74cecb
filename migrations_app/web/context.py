"""What every page shows around its own content."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

from django.db.models import QuerySet
from django.db.models.expressions import RawSQL
from django.http import HttpRequest
from django.utils import timezone

from migrations_app.durations import in_words
from migrations_app.models import Gateway, Override, Plan, Prerequisite
from migrations_app.roles import Permission

from .forms import new_key
from .gate import key_in_words
from .gateway_state import GatewayState, state_of

EXAMPLE = timedelta(hours=48)  # the soak that tells how fast time runs
# As an expression of the ORM it takes every page longer to put in words than to answer.
_OWES_REASONS = "EXISTS (SELECT FROM migrations_app_reasonasked WHERE account_id = %s AND answer_id IS NULL)"
_OVERRIDDEN = "EXISTS (SELECT FROM migrations_app_override WHERE ended_at IS NULL AND expires_at > %s)"


@dataclass(frozen=True, slots=True)
class OverrideRow:
    """`lines` in words."""

    row: Override
    lines: tuple[str, ...]


@dataclass
class Chrome:
    """The header's content. Read when a template asks for it: one query with a plan, two without one.

    While an override lasts, two more tell of it.
    """

    request: HttpRequest

    @cached_property
    def gateways(self) -> list[Gateway]:
        """With their plan."""
        rows = Gateway.objects.select_related("plan").defer("plan__document")
        # Constants, both of them.
        overridden = RawSQL(_OVERRIDDEN, [self.now])  # noqa: S611
        owes_reasons = RawSQL(_OWES_REASONS, [self.request.user.pk])  # noqa: S611
        return list(rows.annotate(overridden=overridden, owes_reasons=owes_reasons).order_by("key"))

    @cached_property
    def plan(self) -> Plan | None:
        return self.gateways[0].plan if self.gateways else Plan.objects.first()

    @cached_property
    def gateway(self) -> GatewayState | None:
        return state_of(self.plan, self.gateways) if self.plan else None

    @cached_property
    def overrides(self) -> list[OverrideRow]:
        """The gates that are overridden now."""
        if not any(getattr(row, "overridden", False) for row in self.gateways):
            return []
        found = list(_live_overrides(self.now).select_related("week").order_by("week__number"))
        asked = Prerequisite.objects.filter(week__in=[row.week_id for row in found])
        titles = {(week, key): title for week, key, title in asked.values_list("week", "key", "title")}
        return [
            OverrideRow(row, tuple(titles.get((row.week_id, key)) or key_in_words(key) for key in row.lines))
            for row in found
        ]

    @property
    def owes_reasons(self) -> bool:
        """The account has rolled something back, and has not said why."""
        return any(getattr(row, "owes_reasons", False) for row in self.gateways)

    @property
    def overrides_token(self) -> str:
        """Differs when another gate is overridden, or one no more."""
        return "-".join(str(one.row.pk) for one in self.overrides)

    @property
    def time_scale(self) -> str:
        """How fast time runs here, as a sentence; "" at its own pace."""
        scale = self.plan.time_scale if self.plan else 1
        if scale == 1 or self.plan is None:
            return ""
        shown, takes = in_words(EXAMPLE), in_words(self.plan.scaled(EXAMPLE))
        return f"Time runs {scale:,} times faster: a soak of {shown} takes {takes}."

    @property
    def new_key(self) -> str:
        """For a form that stands on every page."""
        return new_key()

    @cached_property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.plan.timezone if self.plan else "UTC")

    @cached_property
    def now(self) -> datetime:
        return timezone.now()

    @cached_property
    def roles(self) -> list[str]:
        """The names of the account's groups. As a rule they came with the account (roles.RoleBackend)."""
        names = getattr(self.request.user, "roles", None)
        return [group.name for group in self.request.user.groups.all()] if names is None else list(names)

    @property
    def role(self) -> str:
        """In words."""
        return ", ".join(self.roles) or "no role"

    @cached_property
    def may(self) -> dict[str, bool]:
        """What the account may do, by the permission's name in lower case."""
        return {permission.name.lower(): self.request.user.has_perm(permission) for permission in Permission}


def _live_overrides(now: datetime) -> QuerySet[Override]:
    return Override.objects.filter(ended_at__isnull=True, expires_at__gt=now)


def chrome(request: HttpRequest) -> dict[str, Any]:
    if not hasattr(request, "user") or not request.user.is_authenticated:
        return {}
    if not hasattr(request, "chrome"):
        request.chrome = Chrome(request)  # type: ignore[attr-defined]  # once for a page and its parts
    return {"chrome": request.chrome}  # type: ignore[attr-defined]
