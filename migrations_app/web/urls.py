"""Addresses of the pages and of the actions."""

from django.urls import URLPattern

urlpatterns: list[URLPattern] = []
