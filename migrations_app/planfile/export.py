"""The plan of the database as a plan file."""

from __future__ import annotations

from django.conf import settings

from migrations_app.planfile.load import current_plan, current_scale
from migrations_app.planfile.ports import shift_ports
from migrations_app.planfile.writer import write


def export_plan() -> str:
    """YAML that loads again to an equal plan, with PORT_OFFSET taken off. Raises NotFound when no plan is loaded.

    The time scale is not of the plan: a comment at the end tells one that is not 1.
    """
    text, scale = write(shift_ports(current_plan(), -settings.PORT_OFFSET)), current_scale()
    return text if scale == 1 else f"{text}# Loaded with --time-scale {scale}.\n"
