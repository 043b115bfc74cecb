"""The ASGI application that uvicorn serves."""

import os
import warnings

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
# Under ASGI each request runs in a thread of its own, so without a pool each one would connect anew.
os.environ.setdefault("DATABASE_POOL", "on")
# WhiteNoise serves its few small files by synchronous iterators; Django would say so once in every log.
warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume synchronous iterators")
django = get_asgi_application()

from controlplane.garbage import settle  # noqa: E402
from migrations_app.actions import hints  # noqa: E402  # needs the settings that were loaded above
from migrations_app.web.bodies import with_bounded_bodies  # noqa: E402
from migrations_app.web.live import with_streams  # noqa: E402

application = with_bounded_bodies(with_streams(django))

hints.start()
settle()
