"""All addresses of the dashboard are the app's own."""

from django.urls import include, path

urlpatterns = [path("", include("migrations_app.web.urls"))]
handler403 = "migrations_app.web.errors.forbidden"
handler404 = "migrations_app.web.errors.not_found"
handler500 = "migrations_app.web.errors.server_error"
