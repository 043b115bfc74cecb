"""Automatic checks by the name that a plan file calls them. One module each.

INSTANT checks need nothing but what every verdict loads anyway, and are judged anew each time. PROBES ask elsewhere
(another database, a file, a service) or read history; what they found is stored by `observe.checks`, which runs them
on a schedule and again at the click.
"""

from migrations_app.gates.seen import InstantCheck

from .backup_fresh import backup_fresh
from .data_migrated import data_migrated
from .downtime import downtime
from .endpoint_answers import endpoint_answers
from .flags_on import flags_on
from .jwt_compatible import jwt_compatible
from .no_degradation import no_degradation
from .probe import Probe
from .rollback_rehearsed import rollback_rehearsed
from .services_healthy import services_healthy
from .week_stable import week_stable

INSTANT: dict[str, InstantCheck] = {
    "flags_on": flags_on,
    "services_healthy": services_healthy,
}
PROBES: dict[str, Probe] = {
    "backup_fresh": backup_fresh,
    "data_migrated": data_migrated,
    "downtime": downtime,
    "endpoint_answers": endpoint_answers,
    "jwt_compatible": jwt_compatible,
    "no_degradation": no_degradation,
    "rollback_rehearsed": rollback_rehearsed,
    "week_stable": week_stable,
}
