"""A plan -> a plan file. Reading the text gives an equal plan; comments of the file it came from are not kept."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import yaml
from pydantic import BaseModel

from migrations_app.durations import format_duration
from migrations_app.planfile.health import HealthPart
from migrations_app.planfile.nodes import reads_as_text
from migrations_app.planfile.rollout import RolloutPart
from migrations_app.planfile.schema import DonePart, Plan

SCHEMA_LINE = "# yaml-language-server: $schema=plan.schema.json\n"


class _Dumper(yaml.SafeDumper):
    """Writes what `nodes` reads: text that looks like a number there is quoted, paragraphs become blocks."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)  # lists are indented under their key, as in the shipped plans

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None if reads_as_text(text) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _day(dumper: yaml.SafeDumper, day: date) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:timestamp", day.isoformat())


_Dumper.add_representer(str, _text)
_Dumper.add_representer(date, _day)


def write(plan: Plan) -> str:
    """The plan as YAML, values at their defaults left out."""
    text: str = yaml.dump(_values(plan), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return SCHEMA_LINE + text


def _values(value: Any) -> Any:
    if isinstance(value, DonePart) and value.is_sentence:
        return value.title
    if isinstance(value, HealthPart | RolloutPart):
        return value.row()
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return {
            fields[key].alias or key: _values(item)
            for key, item in value
            if fields[key].is_required() or item != fields[key].get_default(call_default_factory=True)
        }
    if isinstance(value, timedelta):
        return format_duration(value)
    return [_values(item) for item in value] if isinstance(value, tuple) else value
