"""Gates in a real browser: evidence, approvals, the override and its strip, freezes; with and without JavaScript."""

from __future__ import annotations

import re

import pytest

from migrations_app.actions.overrides import end_override, override_gate
from migrations_app.choices import Phase
from migrations_app.live import Topic, tell
from migrations_app.models import Approval, ApprovalRequest, Evidence, Freeze, Override, SignOff, Week
from migrations_app.roles import Role
from tests.browser.conftest import people_by_role
from tests.factories import put_behind, tick_all

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_sign_off_takes_a_link_and_a_file_and_gives_the_file_back(dashboard):
    page = dashboard.page(at="/weeks/3/")
    line = page.locator(".lines > li.manual").first
    line.get_by_text("Link or file").click()
    line.get_by_label(re.compile("^Note")).fill("the dump is on the backup host")
    line.get_by_label(re.compile("^Link for")).fill("https://backups.example/w49")
    line.get_by_label(re.compile("^File for")).set_input_files(
        {"name": "sizes.csv", "mimeType": "text/csv", "buffer": b"file,bytes\nmain,1024\n"}
    )
    line.get_by_role("button", name="Sign off").click()
    page.get_by_text("Signed off: The database backup").first.wait_for()
    with page.expect_download() as download:
        page.get_by_role("link", name="sizes.csv").click()
    assert download.value.suggested_filename == "sizes.csv"
    assert Evidence.objects.get().size == 21
    page.get_by_role("button", name="Undo").click()
    page.get_by_text("Sign-off withdrawn").first.wait_for()
    assert not SignOff.objects.filter(withdrawn_at=None).exists()


@pytest.mark.parametrize("javascript", [True, False])
def test_an_approval_goes_from_who_asks_to_who_answers(dashboard, javascript):
    manager = dashboard.page(at="/weeks/3/", java_script_enabled=javascript)
    manager.locator("#ask-reason").fill("the backup is done")
    manager.get_by_role("button", name="Ask for approval").click()
    manager.get_by_text("You asked for it, so somebody else approves").wait_for()
    approver = dashboard.page("approver", java_script_enabled=javascript)
    approver.get_by_text("release-manager asks for your approval").click()
    approver.wait_for_url("**/weeks/3/#request-*")
    approver.get_by_role("button", name="Approve").click()
    approver.get_by_role("button", name="Withdraw your approval").wait_for()
    assert Approval.objects.get().actor == "approver"
    approver.get_by_role("button", name="Withdraw your approval").click()
    approver.get_by_label(re.compile("^Why not")).fill("not with an old backup")
    approver.get_by_role("button", name="Decline").click()
    approver.get_by_role("button", name="Decline").wait_for(state="detached")
    assert "not with an old backup" in ApprovalRequest.objects.get().closed_because


@pytest.mark.parametrize("javascript", [True, False])
def test_the_glass_is_broken_line_by_line_and_mended_from_any_page(dashboard, javascript):
    page = dashboard.page("administrator", at="/weeks/3/", java_script_enabled=javascript)
    page.get_by_role("link", name="Break the glass").click()
    page.get_by_label(re.compile("The database backup is completed")).check()
    page.get_by_label(re.compile("^For how many minutes")).fill("5")
    page.get_by_label(re.compile("^Why")).fill("the backup host is down")
    page.get_by_role("button", name="Break the glass").click()
    page.locator("#overrides").get_by_text("The gate of week 3 is overridden").wait_for()
    assert Override.objects.get().lines == ["database-backup"]
    page.goto("/freezes/")
    page.get_by_role("button", name=re.compile("^End it")).click()
    page.wait_for_url("**/weeks/3/#gate")
    assert page.locator("#overrides .strip").count() == 0
    assert Override.objects.get().ended_at is not None


def test_an_open_page_learns_of_an_override_and_its_end_without_losing_the_focus(dashboard):
    administrator = people_by_role()[Role.ADMINISTRATOR]
    page = dashboard.page("administrator", at="/weeks/1/")
    override_gate(number=3, lines=["approval"], minutes=5, actor=administrator, reason="the approvers are asleep")
    page.get_by_text("The gate of week 3 is overridden").wait_for()
    page.locator("#end-override-3").focus()
    page.evaluate("document.getElementById('standing').dataset.old = ''")
    tell(Topic.CHECK)
    page.locator("#standing:not([data-old])").wait_for()  # the parts of the page have been asked for anew
    assert page.evaluate("document.activeElement.id") == "end-override-3"
    end_override(number=3, actor=administrator)
    page.locator("#overrides .strip").wait_for(state="detached")


@pytest.mark.parametrize("javascript", [True, False])
def test_a_freeze_is_added_seen_and_lifted(dashboard, javascript):
    page = dashboard.page(at="/freezes/", java_script_enabled=javascript)
    page.get_by_label("What for").fill("Every night and day")
    for name in ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"):
        page.get_by_label(name).check()
    page.locator("#from_time").fill("00:00")
    page.locator("#until_time").fill("00:00")
    page.get_by_role("button", name="Add the freeze").click()
    page.get_by_text("Freeze added: Every night and day.").first.wait_for()
    page.locator("#freezes-1 + ul").get_by_role("heading", name="Every night and day").wait_for()
    page.goto("/")
    page.get_by_text("Frozen: Every night and day").wait_for()
    page.goto("/freezes/")
    page.locator("summary", has_text="Lift it").click()
    page.get_by_role("button", name=re.compile("^Lift")).click()
    page.get_by_text("Freeze lifted: Every night and day.").first.wait_for()
    assert Freeze.objects.get().lifted_by == "release-manager"


def test_a_week_is_called_done_by_keyboard(dashboard):
    put_behind(1)
    tick_all(1, people_by_role()[Role.RELEASE_MANAGER], phase=Phase.DONE)
    page = dashboard.page(at="/weeks/1/")
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "finish":
            break
    page.keyboard.press("Enter")
    page.get_by_text("Week 1 is done.").first.wait_for()
    page.wait_for_function("['done', 'outcome', 'line-done-soak'].includes(document.activeElement.id)")
    assert Week.objects.get(number=1).done_by == "release-manager"
