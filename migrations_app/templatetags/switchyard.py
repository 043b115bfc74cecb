"""Template tags of the pages: icons, moments, spans of days."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any

from django import template
from django.templatetags.static import static
from django.utils import timezone
from django.utils.html import escape, format_html, format_html_join
from django.utils.safestring import SafeString

register = template.Library()
CLOCKS_APART = timedelta(minutes=1)  # what lies less far ahead is the present of another machine's clock
_OLD, _NEW = "M4 22H60", "M4 22C24 22 24 6 44 6H60"  # the ways of a pair of points


@register.simple_tag
@lru_cache(maxsize=500)  # long pages have hundreds of them, and few kinds
def icon(name: str, label: str = "") -> SafeString:
    """A shape of static/icons.svg. Without a label it only repeats the words beside it and is not read out."""
    address = static("icons.svg")
    if label:
        return format_html(
            '<svg class="icon" role="img" aria-label="{}"><use href="{}#{}"></use></svg>', label, address, name
        )
    return format_html('<svg class="icon" aria-hidden="true"><use href="{}#{}"></use></svg>', address, name)


@register.simple_tag
@lru_cache(maxsize=101)
def points(weight: int) -> SafeString:
    """A pair of points, set for a weight of 0-100 %: the way that is gone is drawn last."""
    old, new = ("old", _OLD), ("new", _NEW)
    set_old, set_new = ("old set", _OLD), ("new set", _NEW)
    ways = [new, set_old] if weight == 0 else [old, set_new] if weight == 100 else [set_old, set_new]
    paths = format_html_join("", '<path class="{}" d="{}"></path>', ways)
    return format_html('<svg class="points" viewBox="0 0 64 28" aria-hidden="true" focusable="false">{}</svg>', paths)


@register.simple_tag
def day_bars(days: Iterable[Any]) -> SafeString:
    """The days of web.past as bars of one drawing. By tags, ninety of them would be a third of the work on a page."""
    return SafeString(
        "".join(
            f'<rect class="{day.grade}" x="{day.x}.15" y="{day.y}" width="0.7" height="{day.height}">'
            f"<title>{escape(day.words)}</title></rect>"
            for day in days
        )
    )


@register.simple_tag
def chart_rows(readings: Iterable[Any]) -> SafeString:
    """The readings of web.charts as rows of its table. Not by tags either: there are 180 of them for each chart."""
    rows = []
    for reading in readings:
        cells = "".join(f'<td class="num">{escape(text) or "none"}</td>' for text in (*reading.texts, *reading.more))
        words, when = escape(reading.words), escape(reading.when)
        rows.append(f'<tr data-x="{reading.x}" data-words="{words}"><td class="num">{when}</td>{cells}</tr>')
    return SafeString("".join(rows))


@register.simple_tag(takes_context=True)
def moment(context: dict[str, Any], value: datetime | None, missing: str = "never") -> SafeString:
    """A moment in the plan's time zone; the script shows it in the viewer's, with this one on hover.

    What is to come has no seconds on the page: nobody plans by them.
    """
    if value is None:
        return format_html("{}", missing)
    return moment_in(context["chrome"].zone if "chrome" in context else value.tzinfo, value)


def moment_in(zone: tzinfo | None, value: datetime) -> SafeString:
    """The same without a template."""
    return _moment(value.astimezone(UTC), zone, value - timezone.now() > CLOCKS_APART)


@lru_cache(maxsize=2000)  # of hundreds on a page most stay as they are from one look to the next
def _moment(value: datetime, zone: tzinfo | None, ahead: bool) -> SafeString:
    local = value.astimezone(zone)
    return format_html(
        '<time datetime="{}" title="{}" data-to="{}">{} {}</time>',
        value.isoformat(),
        f"{local:%Y-%m-%d %H:%M:%S %Z}",
        "minute" if ahead else "second",
        local.day,
        f"{local:%b %H:%M}" if ahead else f"{local:%b %H:%M:%S}",
    )


@register.simple_tag
def days(first: date, last: date) -> str:
    """Two dates as one span: 23-29 Nov, 30 Nov - 6 Dec."""
    if first == last:
        return f"{first.day} {first:%b}"
    if (first.year, first.month) == (last.year, last.month):
        return f"{first.day}–{last.day} {last:%b}"  # noqa: RUF001  # spans of days take an en dash
    return f"{first.day} {first:%b} – {last.day} {last:%b}"  # noqa: RUF001


@register.filter
def whole(value: float | None) -> str:
    """A number of milliseconds, requests or per cent, with thousands apart: 1,234; under 10 one decimal."""
    if value is None:
        return "–"  # noqa: RUF001
    return f"{value:,.1f}" if isinstance(value, float) and value < 10 else f"{value:,.0f}"
