"""What a click may carry. Forms return domain types; the actions judge them."""

from __future__ import annotations

from uuid import uuid4

from django import forms


class ActionForm(forms.Form):
    """`seen` is the week's version on the page that asks; `request_key` makes the same click count once."""

    seen = forms.IntegerField(required=False, min_value=0)
    request_key = forms.UUIDField(required=False)
    reason = forms.CharField(required=False, max_length=1000)
    page = forms.ChoiceField(required=False, choices=[("week", "week"), ("service", "service")])


class TickForm(ActionForm):
    note = forms.CharField(required=False, max_length=1000)


def new_key() -> str:
    """A key for one click; each form that is rendered gets its own."""
    return str(uuid4())
