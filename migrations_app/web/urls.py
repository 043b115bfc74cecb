"""Addresses of the pages and of the actions."""

from django.contrib.auth.views import LogoutView
from django.urls import URLPattern, path

from . import (
    accounts,
    approvals,
    audit,
    chrome_live,
    evidence,
    flags,
    freezes,
    gateway,
    healthz,
    live,
    overrides,
    prerequisites,
    rehearsals,
    services,
    timeline,
    weeks,
)

urlpatterns: list[URLPattern] = [
    path("", timeline.timeline, name="timeline"),
    path("live", live.live, name="live"),  # the stream; below it, what pages ask for when it has told them something
    path("live/", timeline.live, name="timeline-live"),
    path("weeks/<int:number>/", weeks.week, name="week"),
    path("weeks/<int:number>/live/", weeks.live, name="week-live"),
    path("weeks/<int:number>/enable/", weeks.enable, name="week-enable"),
    path("weeks/<int:number>/rollback/", weeks.roll_back, name="week-rollback"),
    path("weeks/<int:number>/done/", weeks.finish, name="week-done"),
    path("weeks/<int:number>/approvals/ask/", approvals.ask, name="approval-ask"),
    path("weeks/<int:number>/rehearse/", rehearsals.rehearse, name="rehearse"),
    path("weeks/<int:number>/override/", overrides.override, name="override"),
    path("weeks/<int:number>/override/end/", overrides.end, name="override-end"),
    path("approvals/<int:request_id>/give/", approvals.give, name="approval-give"),
    path("approvals/<int:request_id>/decline/", approvals.decline, name="approval-decline"),
    path("approvals/<int:request_id>/withdraw/", approvals.withdraw, name="approval-withdraw"),
    path("freezes/", freezes.freezes, name="freezes"),
    path("freezes/<int:freeze_id>/lift/", freezes.lift, name="freeze-lift"),
    path("evidence/<int:evidence_id>/", evidence.evidence, name="evidence"),
    path("flags/<str:key>/enable/", flags.enable, name="flag-enable"),
    path("flags/<str:key>/rollback/", flags.roll_back, name="flag-rollback"),
    path("prerequisites/<int:prerequisite_id>/tick/", prerequisites.tick, name="tick"),
    path("prerequisites/<int:prerequisite_id>/untick/", prerequisites.untick, name="untick"),
    path("prerequisites/<int:prerequisite_id>/check/", prerequisites.check, name="check"),
    path("services/<slug:key>/", services.service, name="service"),
    path("services/<slug:key>/live/", services.live, name="service-live"),
    path("gateway/", gateway.gateway, name="gateway"),
    path("gateway/live/", gateway.live, name="gateway-live"),
    path("audit/", audit.audit, name="audit"),
    path("audit/<int:event_id>/", audit.event, name="audit-event"),
    path("live/every-page/", chrome_live.live, name="chrome-live"),
    path("sign-in/", accounts.SignIn.as_view(), name="sign-in"),
    path("sign-out/", LogoutView.as_view(), name="sign-out"),
    path("healthz", healthz.healthz, name="healthz"),
]
