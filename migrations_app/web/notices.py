"""What a page says about the action that was just asked for, and the status of the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from http import HTTPStatus

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase, HttpResponseRedirectBase

from migrations_app.actions.change import Change
from migrations_app.actions.confirm import Outcome, confirm
from migrations_app.choices import Phase
from migrations_app.errors import (
    ActionError,
    Busy,
    GateClosed,
    NotFound,
    NotPermitted,
    Partly,
    Pinned,
    PlanConflict,
    Stale,
)
from migrations_app.gates.verdict import Line, LineKind, Verdict

from .access import WebRequest
from .gate import anchor_of, first_of, state_of

_STATUS: dict[type[ActionError], HTTPStatus] = {
    NotPermitted: HTTPStatus.FORBIDDEN,
    NotFound: HTTPStatus.NOT_FOUND,
    Stale: HTTPStatus.CONFLICT,
    GateClosed: HTTPStatus.CONFLICT,
    PlanConflict: HTTPStatus.CONFLICT,
    Pinned: HTTPStatus.CONFLICT,
    Partly: HTTPStatus.CONFLICT,
    Busy: HTTPStatus.SERVICE_UNAVAILABLE,
}


@dataclass(frozen=True, slots=True)
class Blocking:
    """One line of a closed gate. `anchor` is its place on the page of the week."""

    line: Line
    anchor: str

    @property
    def says(self) -> str:
        word, _, text = state_of(self.line)
        return f"{word.lower()}, {text}" if text else word.lower()


@dataclass(frozen=True, slots=True)
class Notice:
    """One sentence on what came of a click. `loud` ones stay until read; `blocking` has the closed gate's lines."""

    title: str
    text: str = ""
    loud: bool = False
    status: int = HTTPStatus.OK
    command: str = ""
    blocking: tuple[Blocking, ...] = ()


class SeeOther(HttpResponseRedirectBase):
    """After a form was carried out: the browser gets the page anew, and a reload repeats nothing."""

    status_code = HTTPStatus.SEE_OTHER


def carry_out(
    act: Callable[[], Change],
    *,
    done: str,
    already: str,
    refused: str = "Not enabled",
    waits: bool = True,
    by_hand: str = "",
) -> Notice:
    """Run one action and tell what came of it. With `waits`, the gateway's own word is waited for.

    `done` and `already` are sentences with `{}` in the place of what was acted on; `refused` says what a closed gate
    has kept from happening. `by_hand` is the command of a rollback, for when somebody else holds the plan.
    """
    try:
        change = act()
    except GateClosed as refusal:
        return blocked(refusal.verdict, refused)
    except ActionError as refusal:
        said = declined(refusal)
        return replace(said, command=by_hand) if isinstance(refusal, Busy) else said
    # The same click again finds its own event, and is told the same.
    title = (done if change.changed or change.event else already).format(change.title)
    if not waits:
        return Notice(title)
    outcome = confirm(change.generation, event=change.event)
    if outcome.overtaken:
        # It was carried out and is true no more: the `done` sentence would be taken for how things stand.
        return Notice(
            "Somebody has changed this since.",
            f"Your click was carried out. {outcome.overtaken}",
            loud=True,
            status=HTTPStatus.CONFLICT,
        )
    if outcome.confirmed:
        return Notice(title, outcome.sentence())
    return _unconfirmed(title, outcome)


def _unconfirmed(title: str, outcome: Outcome) -> Notice:
    where = "no gateway has" if len(outcome.answers) > 1 else "the gateway has not"
    told = f"This is stored and will be tried again every second, but {where} confirmed it: {outcome.error}"
    if outcome.reached:
        told = f"Not on {outcome.error} It is stored and will be tried again every second."
    return Notice(
        outcome.reached or "Not confirmed yet",
        f"{title} {told}",
        loud=True,
        status=HTTPStatus.ACCEPTED,
        command=outcome.command,
    )


def blocked(verdict: Verdict, refused: str) -> Notice:
    """What a closed gate answers: every line that holds it."""
    lines, phase = verdict.blocking, phase_of(verdict)
    count = len(lines)
    return Notice(
        f"{refused}: {count} {'thing is' if count == 1 else 'things are'} in the way",
        "No traffic has moved." if phase == Phase.START else "",
        loud=True,
        status=HTTPStatus.CONFLICT,
        blocking=tuple(Blocking(line, anchor_of(line, phase)) for line in lines),
    )


def phase_of(verdict: Verdict) -> Phase:
    """What the verdict is on: only that on being done has the soak among its lines."""
    return Phase.DONE if first_of(verdict.lines, LineKind.SOAK) else Phase.START


def declined(refusal: ActionError) -> Notice:
    """What a refused action answers."""
    titles = {Busy: "The plan is busy.", Partly: "Only a part was done"}
    title = titles.get(type(refusal), "Nothing was done")
    return Notice(title, str(refusal), loud=True, status=status_of(refusal))


def invalid(form: forms.Form) -> Notice:
    """What was wrong with a form, as one notice."""
    said = " ".join(str(error) for errors in form.errors.values() for error in errors)
    return Notice("Nothing was done", said, loud=True, status=HTTPStatus.UNPROCESSABLE_ENTITY)


def status_of(refusal: ActionError) -> HTTPStatus:
    return _STATUS.get(type(refusal), HTTPStatus.UNPROCESSABLE_ENTITY)


def answer(
    request: WebRequest, notice: Notice, *, page: str, show: Callable[[HttpRequest, Notice], HttpResponse]
) -> HttpResponseBase:
    """The panel for htmx. For a plain form: back to the `page` when it was carried out, else the whole page here."""
    if not request.htmx and notice.status == HTTPStatus.OK:
        messages.success(request, notice.title, extra_tags=notice.text)
        return SeeOther(page)
    response = show(request, notice)
    response.status_code = notice.status
    return response
