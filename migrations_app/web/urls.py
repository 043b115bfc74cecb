"""Addresses of the pages and of the actions."""

from django.contrib.auth.views import LogoutView
from django.urls import URLPattern, path

from . import accounts, audit, flags, gateway, healthz, prerequisites, services, timeline, weeks

urlpatterns: list[URLPattern] = [
    path("", timeline.timeline, name="timeline"),
    path("live/", timeline.live, name="timeline-live"),
    path("weeks/<int:number>/", weeks.week, name="week"),
    path("weeks/<int:number>/live/", weeks.live, name="week-live"),
    path("weeks/<int:number>/enable/", weeks.enable, name="week-enable"),
    path("weeks/<int:number>/rollback/", weeks.roll_back, name="week-rollback"),
    path("flags/<str:key>/enable/", flags.enable, name="flag-enable"),
    path("flags/<str:key>/rollback/", flags.roll_back, name="flag-rollback"),
    path("prerequisites/<int:prerequisite_id>/tick/", prerequisites.tick, name="tick"),
    path("prerequisites/<int:prerequisite_id>/untick/", prerequisites.untick, name="untick"),
    path("services/<slug:key>/", services.service, name="service"),
    path("services/<slug:key>/live/", services.live, name="service-live"),
    path("gateway/", gateway.gateway, name="gateway"),
    path("gateway/live/", gateway.live, name="gateway-live"),
    path("audit/", audit.audit, name="audit"),
    path("sign-in/", accounts.SignIn.as_view(), name="sign-in"),
    path("sign-out/", LogoutView.as_view(), name="sign-out"),
    path("healthz", healthz.healthz, name="healthz"),
]
