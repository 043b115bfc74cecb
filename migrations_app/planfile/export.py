"""The plan of the database as a plan file."""

from __future__ import annotations

from django.conf import settings

from migrations_app.planfile.load import current_plan
from migrations_app.planfile.ports import shift_ports
from migrations_app.planfile.writer import write


def export_plan() -> str:
    """YAML that loads again to an equal plan, with PORT_OFFSET taken off. Raises NotFound when no plan is loaded."""
    return write(shift_ports(current_plan(), -settings.PORT_OFFSET))
