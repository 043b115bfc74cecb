"""The ASGI application that uvicorn serves."""

import os

from django.core.asgi import get_asgi_application

from controlplane import celery as celery  # loaded before the first click, which would wait for it otherwise

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
application = get_asgi_application()
