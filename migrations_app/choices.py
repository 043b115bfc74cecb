"""The words that states and events are stored as."""

from enum import StrEnum

from django.db import models


class Risk(models.TextChoices):
    LOW = "low", "Low"
    MEDIUM = "medium", "Medium"
    HIGH = "high", "High"


class WeekStatus(models.TextChoices):
    PLANNED = "planned", "Planned"
    IN_PROGRESS = "in_progress", "In progress"
    ROLLED_BACK = "rolled_back", "Rolled back"


class PrerequisiteKind(models.TextChoices):
    MANUAL = "manual", "Ticked by a person"
    AUTOMATIC = "automatic", "Checked automatically"


class Health(models.TextChoices):
    HEALTHY = "healthy", "Healthy"
    UNHEALTHY = "unhealthy", "Unhealthy"
    UNKNOWN = "unknown", "Unknown"


class ActorKind(models.TextChoices):
    ACCOUNT = "account", "Account"  # signed in, or named with --actor and known
    SHELL = "shell", "Shell"  # someone with a shell on this machine who named no account
    SYSTEM = "system", "Switchyard"  # the product itself


class AuditKind(StrEnum):
    """What an audit event tells of. Never reuse or rename one: rows outlive the code."""

    PLAN_LOADED = "plan.loaded"
    WEEK_ENABLED = "week.enabled"
    WEEK_ROLLED_BACK = "week.rolled_back"
    FLAG_ENABLED = "flag.enabled"
    FLAG_WEIGHT_SET = "flag.weight_set"
    FLAG_ROLLED_BACK = "flag.rolled_back"
    ENABLE_REFUSED = "gate.refused"
    PREREQUISITE_TICKED = "prerequisite.ticked"
    PREREQUISITE_UNTICKED = "prerequisite.unticked"
    DRIFT_CORRECTED = "gateway.drift_corrected"
    ACCOUNT_ADDED = "account.added"
    ACCOUNT_ROLE_SET = "account.role_set"
    ACCOUNT_DEACTIVATED = "account.deactivated"
    SIGNED_IN = "account.signed_in"
    SIGN_IN_FAILED = "account.sign_in_failed"
