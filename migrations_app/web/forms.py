"""What a click may carry. Forms return domain types; the actions judge them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django import forms


class ActionForm(forms.Form):
    """`seen` is the week's version on the page that asks; `request_key` makes the same click count once."""

    seen = forms.IntegerField(required=False, min_value=0)
    request_key = forms.UUIDField(required=False)
    reason = forms.CharField(required=False, max_length=1000)
    page = forms.ChoiceField(required=False, choices=[("week", "week"), ("service", "service")])
    with_later = forms.BooleanField(required=False)

    @property
    def knows(self) -> bool:
        """Whether the box beside a point of no return was ticked."""
        return "past_no_return" in self.data


class PinsForm(ActionForm):
    """Which flags. The action knows which are pinned."""

    flags = forms.Field(widget=forms.MultipleHiddenInput, error_messages={"required": "Say which flags."})

    def clean_flags(self) -> list[str]:
        given = self.cleaned_data["flags"]
        if any("\x00" in one or len(one) > 200 for one in given):
            raise forms.ValidationError("A flag that nobody can have pinned.")
        return list(given)


class RolloutForm(ActionForm):
    """`at` is the index of the step that the page showed."""

    at = forms.IntegerField(required=False, min_value=0)


class StepForm(RolloutForm):
    """`position` is the index of the step that is asked for."""

    position = forms.IntegerField(min_value=0, error_messages={"required": "Say which step."})


class TickForm(ActionForm):
    """What a sign-off may carry: words, an address, a file. The action judges them: what it refuses is audited."""

    note = forms.CharField(required=False, max_length=1000)
    link = forms.CharField(required=False, max_length=2000)
    evidence = forms.FileField(required=False, allow_empty_file=True)


class AskForm(ActionForm):
    """`flag` is the key of one flag, or nothing for the whole week; the action knows which there are."""

    flag = forms.CharField(required=False, max_length=200)


class OverrideForm(ActionForm):
    """Which lines, for how many minutes. The action judges both: what it refuses stands in the audit log."""

    lines = forms.Field(required=False, widget=forms.MultipleHiddenInput)
    minutes = forms.IntegerField(error_messages={"required": "Say for how many minutes."})

    def clean_lines(self) -> list[str]:
        given = self.cleaned_data["lines"] or []
        if any("\x00" in one or len(one) > 200 for one in given):
            raise forms.ValidationError("A line of the gate that nobody can have ticked.")
        return list(given)


class FreezeForm(forms.Form):
    """A freeze: between two moments, or on weekdays between two times of day, by the clock of `timezone`."""

    request_key = forms.UUIDField(required=False)
    title = forms.CharField(max_length=200, error_messages={"required": "Say what the freeze is for."})
    timezone = forms.CharField(required=False, max_length=64)
    reason = forms.CharField(required=False, max_length=1000)
    starts_at = forms.CharField(required=False, max_length=30)
    ends_at = forms.CharField(required=False, max_length=30)
    weekdays = forms.Field(required=False, widget=forms.MultipleHiddenInput)
    from_time = forms.TimeField(required=False)
    until_time = forms.TimeField(required=False)

    def __init__(self, data: Any = None, *, zone: str = "UTC") -> None:
        super().__init__(data)
        self.zone = zone

    def clean_weekdays(self) -> str:
        return "".join(self.cleaned_data["weekdays"] or [])[:50]

    def clean(self) -> dict[str, Any]:
        """The moments in the zone of the form, which is the plan's when none is given."""
        return _in_zone(self.cleaned_data, self.zone)


class MaintenanceForm(forms.Form):
    """A window between two moments by the clock of `timezone`. No begin means now; `everything` stands for all."""

    request_key = forms.UUIDField(required=False)
    title = forms.CharField(max_length=200, error_messages={"required": "Say what is being done."})
    timezone = forms.CharField(required=False, max_length=64)
    reason = forms.CharField(required=False, max_length=1000)
    starts_at = forms.CharField(required=False, max_length=30)
    ends_at = forms.CharField(max_length=30, error_messages={"required": "Say until when."})
    targets = forms.Field(required=False, widget=forms.MultipleHiddenInput)
    everything = forms.BooleanField(required=False)

    def __init__(self, data: Any = None, *, zone: str = "UTC") -> None:
        super().__init__(data)
        self.zone = zone

    def clean_targets(self) -> list[str]:
        given = self.cleaned_data["targets"] or []
        if any("\x00" in one or len(one) > 200 for one in given):
            raise forms.ValidationError("A service that the plan cannot have.")
        return list(given)

    def clean(self) -> dict[str, Any]:
        """The moments in the zone of the form, which is the plan's when none is given."""
        return _in_zone(self.cleaned_data, self.zone)


def _in_zone(said: dict[str, Any], plans: str) -> dict[str, Any]:
    """`starts_at` and `ends_at` as moments, by the clock of `timezone`, or of the plan's where that is empty."""
    try:
        zone = ZoneInfo(said.get("timezone") or plans)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise forms.ValidationError("That is no time zone; one is called Europe/Berlin.") from None
    for name, label in (("starts_at", "From"), ("ends_at", "Until")):
        said[name] = _moment(said.get(name) or "", label, zone)
    return said


def _moment(typed: str, label: str, zone: ZoneInfo) -> datetime | None:
    """As browsers send it: 2026-12-24T18:00."""
    if not typed:
        return None
    try:
        return datetime.fromisoformat(typed).replace(tzinfo=zone)
    except ValueError:
        raise forms.ValidationError(f"{label}: a day and a time, such as 2026-12-24T18:00.") from None


def new_key() -> str:
    """A key for one click; each form that is rendered gets its own."""
    return str(uuid4())
