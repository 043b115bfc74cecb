"""`endpoint_answers`: an address of the plan answers with a status and, if asked for, with a value in its JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from django.conf import settings

from migrations_app.choices import CheckState
from migrations_app.gates.parameters import EndpointAnswers
from migrations_app.gates.seen import Finding
from migrations_app.models import Service

from .asker import Answer, Asker, NoJson, url_of_monolith, url_of_service
from .json_values import NOTHING, equal, found_at, shown, told
from .probe import Scene


def endpoint_answers(parameters: Mapping[str, Any], scene: Scene) -> Finding:
    """`target: gateway`, `monolith` or a service, `path`, and what is expected: `status`, `json: {path, equals}`.

    One GET of the path as it stands, past the gateway unless that is the target.
    """
    asked = EndpointAnswers.of(parameters)
    limit = str(asked.status) + (f", {asked.json_value.path} is {shown(_wanted(asked))}" if asked.json_value else "")
    url, who = _target(asked, scene)
    if url is None:
        return Finding(CheckState.UNKNOWN, f"the plan has no service {who}", limit, "Load a plan that has it.")
    answer = asyncio.run(_ask(url, scene.within * 0.9))
    if answer.status is None:
        return Finding(CheckState.UNKNOWN, f"{who} {answer.error}", limit, f"Look whether {who} runs, and at its log.")
    value, holds = _judge(asked, answer)
    state = CheckState.HELD if holds else CheckState.NOT_HELD
    return Finding(state, value, limit, "" if holds else f"Look at {asked.path} of {who}.")


def _target(asked: EndpointAnswers, scene: Scene) -> tuple[str | None, str]:
    """The URL, and who that is in words; for a service that is not in the plan None and its key."""
    if asked.target == "gateway":
        return f"{settings.GATEWAY_URL.rstrip('/')}{asked.path}", "the gateway"
    if asked.target == "monolith":
        return url_of_monolith(scene.plan, asked.path), "the monolith"
    service = Service.objects.filter(plan=scene.plan, key=asked.target).first()
    if service is None:
        return None, asked.target
    return url_of_service(service, asked.path), f"the {service.key} service"


async def _ask(url: str, seconds: float) -> Answer:
    async with Asker(seconds) as asker:
        return await asker.ask("GET", url)


def _judge(asked: EndpointAnswers, answer: Answer) -> tuple[str, bool]:
    """The value, and whether it is what is expected."""
    value, holds = str(answer.status), answer.status == asked.status
    if asked.json_value is None:
        return value, holds
    try:
        found = found_at(answer.json(), asked.json_value.path)
    except NoJson:
        return f"{value}, and no JSON", False
    if found is NOTHING:
        return f"{value}, without {asked.json_value.path}", False
    as_wanted = equal(found, _wanted(asked))
    return f"{value}, {asked.json_value.path} is {(shown if as_wanted else told)(found)}", holds and as_wanted


def _wanted(asked: EndpointAnswers) -> Any:
    return asked.json_value.equals if asked.json_value else None
