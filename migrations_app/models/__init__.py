"""State, constraints, derived values. Actions write the desired rows, reconcile and observe the observed ones."""

from .audit import AuditEvent
from .checklists import Prerequisite, SignOff
from .gateways import Confirmation, Gateway
from .health import HealthSample, HealthState
from .plans import Plan
from .services import Flag, Route, Service
from .traffic import TrafficCounter, TrafficSample
from .weeks import Week

__all__ = [
    "AuditEvent",
    "Confirmation",
    "Flag",
    "Gateway",
    "HealthSample",
    "HealthState",
    "Plan",
    "Prerequisite",
    "Route",
    "Service",
    "SignOff",
    "TrafficCounter",
    "TrafficSample",
    "Week",
]
