"""The words that states and events are stored as."""

from enum import StrEnum

from django.db import models


class Risk(models.TextChoices):
    LOW = "low", "Low"
    MEDIUM = "medium", "Medium"
    HIGH = "high", "High"


class WeekStatus(models.TextChoices):
    PLANNED = "planned", "Planned"
    IN_PROGRESS = "in_progress", "In progress"  # some of it is on
    SOAKING = "soaking", "Soaking"  # all of it is on, and must stay stable for a time
    DONE = "done", "Done"  # a person has said so, after the soak
    ROLLED_BACK = "rolled_back", "Rolled back"


class RolloutState(models.TextChoices):
    RUNNING = "running", "Running"
    PAUSED = "paused", "Paused"  # the weight stays, nobody goes on
    FINISHED = "finished", "Finished"  # all steps were taken
    ENDED = "ended", "Ended"  # the flag was moved by other means, a rollback among them


class Breach(models.TextChoices):
    """What a trigger found."""

    OK = "ok", "Within its limit"
    BREACHED = "breached", "Past its limit"
    NO_DATA = "no_data", "Nobody can tell"


class PrerequisiteKind(models.TextChoices):
    MANUAL = "manual", "Ticked by a person"
    AUTOMATIC = "automatic", "Checked automatically"


class Phase(models.TextChoices):
    """What a checklist line is for."""

    START = "start", "Before the week starts"
    DONE = "done", "Before the week is done"


class CheckState(models.TextChoices):
    """What an automatic check found. Only HELD opens anything."""

    HELD = "held", "Held"
    NOT_HELD = "not_held", "Not held"
    UNKNOWN = "unknown", "Unknown"


class Decision(models.TextChoices):
    """What somebody answered to a request for approval."""

    GIVEN = "given", "Given"
    DECLINED = "declined", "Declined"


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
    EVERYTHING_ROLLED_BACK = "plan.rolled_back"
    WEEK_ENABLED = "week.enabled"
    WEEK_ROLLED_BACK = "week.rolled_back"
    FLAG_ENABLED = "flag.enabled"
    FLAG_WEIGHT_SET = "flag.weight_set"
    FLAG_ROLLED_BACK = "flag.rolled_back"
    REASON_GIVEN = "audit.reason_given"
    FLAG_PINNED = "flag.pinned"
    FLAG_PIN_LIFTED = "flag.pin_lifted"
    ROLLOUT_STARTED = "rollout.started"
    ROLLOUT_STEPPED = "rollout.stepped"
    ROLLOUT_PAUSED = "rollout.paused"
    ROLLOUT_RESUMED = "rollout.resumed"
    ROLLOUT_FINISHED = "rollout.finished"
    TRIGGER_FIRED = "trigger.fired"
    ENABLE_REFUSED = "gate.refused"
    PREREQUISITE_TICKED = "prerequisite.ticked"
    PREREQUISITE_UNTICKED = "prerequisite.unticked"
    PREREQUISITE_CHECKED = "prerequisite.checked"
    WEEK_STARTED = "week.started"
    WEEK_SOAK_RESTARTED = "week.soak_restarted"
    WEEK_DONE = "week.done"
    DONE_REFUSED = "week.done_refused"
    ROLLBACK_REHEARSED = "week.rollback_rehearsed"
    APPROVAL_REQUESTED = "approval.requested"
    APPROVAL_GIVEN = "approval.given"
    APPROVAL_DECLINED = "approval.declined"
    APPROVAL_WITHDRAWN = "approval.withdrawn"
    FREEZE_ADDED = "freeze.added"
    FREEZE_LIFTED = "freeze.lifted"
    MAINTENANCE_PLANNED = "maintenance.planned"
    MAINTENANCE_ENDED = "maintenance.ended"
    GATE_OVERRIDDEN = "gate.overridden"
    OVERRIDE_ENDED = "gate.override_ended"
    ACTION_REFUSED = "action.refused"
    DRIFT_CORRECTED = "gateway.drift_corrected"
    JOURNAL_NOT_OURS = "gateway.journal_not_ours"
    ACCOUNT_ADDED = "account.added"
    ACCOUNT_ROLE_SET = "account.role_set"
    ACCOUNT_PASSWORD_SET = "account.password_set"  # noqa: S105
    ACCOUNT_DEACTIVATED = "account.deactivated"
    TOKEN_ADDED = "token.added"  # noqa: S105
    TOKEN_REVOKED = "token.revoked"  # noqa: S105
    SIGNED_IN = "account.signed_in"
    SIGN_IN_FAILED = "account.sign_in_failed"
