"""Small charts: numbers in, paths out."""

from datetime import UTC, datetime, timedelta

import pytest

from migrations_app.web.sparkline import HEIGHT, SHAPES, WIDTH, Mark, line_of, sparkline

BEGUN = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ((), ""),
        ((None, None), ""),
        ((5.0, 10.0, 0.0), "M2 21.0L6 11.0L10 31.0"),
        ((None, 10.0, None, 5.0, 10.0), "M6 11.0m-2 0h4M14 21.0L18 11.0"),
    ],
)
def test_the_line_goes_through_each_hour_and_breaks_where_one_is_missing(values, path):
    assert line_of(values) == path


def test_marks_stand_where_they_happened_and_those_outside_are_left_out():
    marks = [
        Mark(BEGUN + timedelta(hours=hours), shape, "") for hours, shape in ((-1, "up"), (12, "back"), (48, "ill"))
    ]
    drawn = sparkline((None,) * 48, BEGUN, marks, "nothing", ["", "moved", ""])
    assert drawn.count("<title>") == 1
    assert '<path class="back" d="M48 10V32M44.5 1h7l-3.5 7z"><title>moved</title>' in drawn


def test_what_somebody_wrote_is_escaped():
    drawn = sparkline((1.0,) * 48, BEGUN, [Mark(BEGUN, "up", "")], 'a "label" <b>', ["</title><script>"])
    assert 'aria-label="a &quot;label&quot; &lt;b&gt;"' in drawn
    assert "<title>&lt;/title&gt;&lt;script&gt;</title>" in drawn


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_drawn_by_its_name(shape):
    drawn = sparkline((1.0,) * 48, BEGUN, [Mark(BEGUN + timedelta(hours=24), shape, "")], "", [""])
    assert f'viewBox="0 0 {WIDTH} {HEIGHT}"' in drawn
    assert f'<path class="{shape}" d="M' in drawn
