"""What tests read of the traffic that was counted."""

from __future__ import annotations

from migrations_app.gateways.base import Side
from migrations_app.observe.last_minute import LastMinute


def requests_in(found: LastMinute) -> dict[str, dict[Side, int]]:
    """Service key -> side -> requests, of the services that had some."""
    services = {service for (service, _), one in found.counts.items() if service and one.requests}
    return {
        service: dict(zip(Side, (one.requests for one in found.sides(service)), strict=True)) for service in services
    }
