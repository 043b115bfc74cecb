"""The port offset: the same plan file serves two estates side by side on one machine.

`PORT_OFFSET` is added to every loopback port of a plan when it is loaded, and taken off when it is exported. Addresses
of other machines are left alone.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from migrations_app.planfile.problems import PlanFileError, Problem
from migrations_app.planfile.schema import Plan, join_address, split_address
from migrations_app.planfile.triggers import AnyTrigger, QueryTrigger


def shift_ports(plan: Plan, offset: int, *, file: str = "plan") -> Plan:
    """The same plan with every loopback port moved by `offset` (negative to take it off).

    Raises PlanFileError, naming every address whose port would leave 1-65535.
    """
    if offset == 0:
        return plan
    problems: list[Problem] = []

    def shifted(path: str, address: str) -> str:
        host, port = split_address(address)
        if not _is_loopback(host):
            return address
        if not 1 <= port + offset <= 65535:
            reason = f"port {port} with the offset {offset:+} is {port + offset}, outside 1-65535; change PORT_OFFSET"
            problems.append(Problem(file, 0, path, reason))
            return address
        return join_address(host, port + offset)

    def moved(path: str, triggers: tuple[AnyTrigger, ...]) -> tuple[AnyTrigger, ...]:
        """With the addresses that they ask."""
        found: list[AnyTrigger] = []
        for trigger in triggers:
            if isinstance(trigger, QueryTrigger):
                urls = {"url": trigger.url, "prometheus": trigger.prometheus}
                where = f"{path}.triggers[{trigger.key}]"
                changed = {name: with_port(f"{where}.{name}", url) for name, url in urls.items() if url}
                found.append(trigger.model_copy(update=changed))
            else:
                found.append(trigger)
        return tuple(found)

    def with_port(path: str, url: str) -> str:
        parts = urlsplit(url)
        if parts.hostname is None or parts.port is None:
            return url
        return parts._replace(netloc=shifted(path, join_address(parts.hostname, parts.port))).geturl()

    monolith = plan.monolith.model_copy(update={"address": shifted("monolith.address", plan.monolith.address)})
    services = tuple(
        service.model_copy(
            update={
                "upstream": shifted(f"services[{service.key}].upstream", service.upstream),
                "triggers": moved(f"services[{service.key}]", service.triggers),
            }
        )
        for service in plan.services
    )
    weeks = tuple(
        week.model_copy(update={"triggers": moved(f"weeks[{week.number}]", week.triggers)}) for week in plan.weeks
    )
    if problems:
        raise PlanFileError(problems)
    return plan.model_copy(update={"monolith": monolith, "services": services, "weeks": weeks})


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
