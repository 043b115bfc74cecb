"""The ASGI application that uvicorn serves."""

import os

from django.core.asgi import get_asgi_application

import controlplane.celery  # noqa: F401  # loaded before the first click, which would wait for it otherwise

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
application = get_asgi_application()
