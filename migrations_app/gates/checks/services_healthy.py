"""`services_healthy`: the services have been healthy for a time without a break."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from migrations_app.choices import CheckState, Health
from migrations_app.durations import in_words
from migrations_app.gates.parameters import ServicesHealthy
from migrations_app.gates.seen import Finding, SeenService, Snapshot


def services_healthy(parameters: Mapping[str, Any], snapshot: Snapshot) -> Finding:
    """`for: 5m`, and `services: [keys]`; without them the week's own."""
    asked = ServicesHealthy.of(parameters)
    lasting = asked.lasting / snapshot.time_scale
    limit = f"all healthy for {in_words(lasting)}" if lasting else "all healthy"
    services = [
        snapshot.health.get(key) or SeenService(key, key, Health.UNKNOWN, "no poll yet") for key in asked.services
    ]
    services = services or list(snapshot.services)
    if not services:
        return Finding(CheckState.UNKNOWN, "there is no service to look at", limit, "Name services in the plan.")
    bad = [service for service in services if service.state != Health.HEALTHY]
    if bad:
        told = ", ".join(f"{one.title} is {one.state}" + (f" ({one.error})" if one.error else "") for one in bad)
        state = CheckState.NOT_HELD if any(one.state == Health.UNHEALTHY for one in bad) else CheckState.UNKNOWN
        since = max((one.since for one in bad if one.since), default=None)
        return Finding(state, told, limit, "Look at the logs of the services, and mend them.", since)
    since = max((one.since for one in services if one.since), default=snapshot.now)
    lasted = snapshot.now - since
    held = lasted >= lasting
    act = "" if held else f"Wait another {in_words(lasting - lasted)}."
    state = CheckState.HELD if held else CheckState.NOT_HELD
    return Finding(state, f"{len(services)} healthy for {in_words(lasted)}", limit, act, since)
