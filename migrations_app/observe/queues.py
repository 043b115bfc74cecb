"""How many messages wait in Celery's queues."""

from __future__ import annotations

from django.conf import settings
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

WITHIN = 0.5  # seconds, to connect and for the answer each
SCHEMES = ("redis://", "rediss://", "unix://")


def names() -> list[str]:
    """The queues that messages of ours go to."""
    scheduled = {entry["options"]["queue"] for entry in settings.CELERY_BEAT_SCHEDULE.values()}
    return sorted(scheduled | {settings.CELERY_TASK_DEFAULT_QUEUE})


def depths() -> dict[str, int] | None:
    """Queue -> messages that no worker has taken yet. None when Redis does not answer in time, or is not used."""
    if not settings.CELERY_BROKER_URL.startswith(SCHEMES):
        return None
    client = Redis.from_url(
        settings.CELERY_BROKER_URL,
        socket_connect_timeout=WITHIN,
        socket_timeout=WITHIN,
        retry=Retry(NoBackoff(), 0),
    )
    queues = names()
    try:
        with client, client.pipeline(transaction=False) as pipeline:
            for queue in queues:
                pipeline.llen(queue)
            return dict(zip(queues, pipeline.execute(), strict=True))
    except (RedisError, OSError):
        return None
