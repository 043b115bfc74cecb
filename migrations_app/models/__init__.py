"""State, constraints, derived values. Actions write the desired rows, reconcile and observe the observed ones."""

from .approvals import Approval, ApprovalRequest
from .audit import AuditEvent
from .checklists import CheckResult, Evidence, Prerequisite, SignOff
from .freezes import Freeze
from .gateways import Confirmation, Gateway
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
from .overrides import Override
from .plans import Plan
from .rollouts import Rollout
from .services import Flag, Route, Service
from .traffic import TrafficCounter, TrafficSample
from .triggers import TriggerState
from .weeks import Week

__all__ = [
    "Approval",
    "ApprovalRequest",
    "AuditEvent",
    "CheckResult",
    "Confirmation",
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
    "Override",
    "Plan",
    "PollLateness",
    "Prerequisite",
    "Rollout",
    "RollupDue",
    "RollupMark",
    "Route",
    "Service",
    "SignOff",
    "TrafficCounter",
    "TrafficDay",
    "TrafficHour",
    "TrafficMinute",
    "TrafficSample",
    "TriggerState",
    "Week",
]
