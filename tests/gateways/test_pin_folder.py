"""The pins of one gateway on a disk that fails: nothing is said to be so that is not."""

from __future__ import annotations

import pytest

from migrations_app.gateways.pins import JOURNAL_FILE, LIFTED, PINNED, PinFolder, entry_of

KEY, OTHER = "USE_AUTH_SERVICE", "USE_STORAGE_SERVICE"


@pytest.fixture
def pins(tmp_path) -> PinFolder:
    folder = PinFolder(tmp_path)
    folder.pin([KEY, OTHER], by="anna", why="it burns", generation=7)
    return folder


def test_of_a_folder_that_is_not_there_nobody_can_say_that_nothing_is_pinned(tmp_path):
    assert PinFolder(tmp_path).pins() == ()
    away = PinFolder(tmp_path / "away")
    for asked in (away.pins, away.journal, away.journal_size):
        with pytest.raises(FileNotFoundError):
            asked()


def test_a_pin_is_not_lifted_where_the_journal_takes_no_more(pins, tmp_path):
    (tmp_path / JOURNAL_FILE).unlink()
    (tmp_path / JOURNAL_FILE).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        pins.lift([KEY], by="ben", why="mended", generation=7)
    assert pins.flags() == {KEY, OTHER}


def test_a_pin_that_cannot_be_lifted_is_noted_as_still_there(pins, tmp_path):
    (tmp_path / "pins" / OTHER).unlink()
    (tmp_path / "pins" / OTHER).mkdir()
    with pytest.raises(OSError, match=OTHER):
        pins.lift([KEY, OTHER], by="ben", why="mended", generation=7)
    assert pins.flags() == {OTHER}
    told = [entry_of(line.text) for line in pins.journal().lines]
    assert [(one.done, one.flags) for one in told[1:]] == [(LIFTED, (KEY, OTHER)), (PINNED, (OTHER,))]
