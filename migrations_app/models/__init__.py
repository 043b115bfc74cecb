"""State, constraints, derived values. Actions write the desired rows, reconcile and observe the observed ones."""

from .approvals import Approval, ApprovalRequest
from .audit import AuditEvent
from .checklists import CheckResult, Evidence, Prerequisite, SignOff
from .downtime import DowntimeClock, DowntimeSpan
from .freezes import Freeze
from .gateways import Confirmation, Gateway, Refusal
from .health import HealthChange, HealthSample, HealthState, PollLateness
from .history import (
    HealthDay,
    HealthHour,
    HealthMinute,
    HealthSummary,
    RollupDue,
    RollupMark,
    TrafficDay,
    TrafficHour,
    TrafficMinute,
)
from .maintenance import MaintenanceWindow
from .overrides import Override
from .plans import Plan
from .reasons import ReasonAsked
from .rollouts import Rollout
from .route_traffic import RouteCounter, RouteReading, RouteSample
from .services import Flag, Route, Service
from .tokens import ApiToken
from .traffic import TrafficCounter, TrafficReading, TrafficSample
from .triggers import QueryAnswer, TriggerState
from .weeks import Week

__all__ = [
    "ApiToken",
    "Approval",
    "ApprovalRequest",
    "AuditEvent",
    "CheckResult",
    "Confirmation",
    "DowntimeClock",
    "DowntimeSpan",
    "Evidence",
    "Flag",
    "Freeze",
    "Gateway",
    "HealthChange",
    "HealthDay",
    "HealthHour",
    "HealthMinute",
    "HealthSample",
    "HealthState",
    "HealthSummary",
    "MaintenanceWindow",
    "Override",
    "Plan",
    "PollLateness",
    "Prerequisite",
    "QueryAnswer",
    "ReasonAsked",
    "Refusal",
    "Rollout",
    "RollupDue",
    "RollupMark",
    "Route",
    "RouteCounter",
    "RouteReading",
    "RouteSample",
    "Service",
    "SignOff",
    "TrafficCounter",
    "TrafficDay",
    "TrafficHour",
    "TrafficMinute",
    "TrafficReading",
    "TrafficSample",
    "TriggerState",
    "Week",
]
