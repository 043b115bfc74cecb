"""The ASGI application that uvicorn serves."""

import os

from django.core.asgi import get_asgi_application

import controlplane.celery  # noqa: F401  # loaded before the first click, which would wait for it otherwise

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
# Under ASGI each request runs in a thread of its own, so without a pool each one would connect anew.
os.environ.setdefault("DATABASE_POOL", "on")
application = get_asgi_application()
