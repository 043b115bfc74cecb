"""The rows of the overview as HTML.

Written in Python and not in a template: fifty of them are on a page, and by tags they were a third of its work.
Everything that somebody may have written is escaped here, and nowhere else.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import partial
from html import escape

from django.utils.safestring import SafeString

from migrations_app.templatetags.switchyard import icon, moment_in

from .overview_rows import Row, Target, Told

Moment = Callable[[datetime], SafeString]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A row that is drawn: `html` is what stands within its `<li>`. `token` differs when that would be another."""

    target: Target
    summed_at: datetime | None
    html: SafeString

    @property
    def token(self) -> str:
        return f"{zlib.crc32(self.html.encode()):08x}"


def drawn(rows: Iterable[Row], zone: tzinfo) -> list[Drawn]:
    """With moments in the plan's time zone."""
    return [Drawn(row.target, row.summed_at, _row(row, partial(moment_in, zone))) for row in rows]


def _row(row: Row, moment: Moment) -> SafeString:
    asked = f' <span class="soft num">{escape(row.asked)}</span>' if row.asked else ""
    return SafeString(
        f'<div class="name">{"".join(_name(row, moment))}</div>'
        f'<div class="two-days">{row.line}<p class="soft num">{escape(row.line_words)}</p>{_told(row, moment)}</div>'
        f'<p class="num"><span class="k">24 h</span><b>{escape(row.uptime_24h)}</b></p>'
        f'<p class="num"><span class="k">90 d</span><b>{escape(row.uptime_90d)}</b></p>'
        f'<p><span class="k">Served by</span>{escape(row.serves)}{asked}</p>'
        f'<p class="num"><span class="k">Failed</span><b>{escape(row.failed)}</b>'
        f' <span class="soft">{escape(row.failed_of)}</span></p>'
    )


def _name(row: Row, moment: Moment) -> Iterator[str]:
    target = row.target
    title, key = escape(target.title), escape(target.key)
    yield f'<h3><a href="{row.link}" id="open-{key}">{title}</a></h3>' if row.link else f"<h3>{title}</h3>"
    since = f"since {moment(row.since)}" if row.since else escape(row.why)
    yield f'<p>{row.icon}<b>{escape(row.state)}</b> <span class="soft">{since}</span></p>'
    if target.planned_until:
        yield f'<p class="soft">{icon("clock")}Planned maintenance until {moment(target.planned_until)}</p>'
    if row.last_error:
        at = f" {moment(row.last_error_at)}" if row.last_error_at else ""
        yield f'<p class="wrong"><span class="soft">Last error{at}:</span> {escape(row.last_error)}</p>'


def _told(row: Row, moment: Moment) -> str:
    if not row.told:
        return ""
    more = f'<li class="soft">and {row.more:,} before</li>' if row.more else ""
    return f"<ul>{''.join(_change(one, moment) for one in row.told)}{more}</ul>"


def _change(one: Told, moment: Moment) -> str:
    return f'<li class="{one.shape}">{moment(one.at)} {escape(one.text)}</li>'
