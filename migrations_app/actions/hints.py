"""Hints to the workers, sent aside so that a dead or hung Redis never delays a click."""

from __future__ import annotations

import logging
import queue
import threading

from django.conf import settings

logger = logging.getLogger(__name__)


class _Publisher(threading.Thread):
    """Publishes hints. While it is stuck on a hung Redis, further hints are dropped."""

    def __init__(self) -> None:
        super().__init__(name="hints", daemon=True)
        self._queue: queue.Queue[int] = queue.Queue(maxsize=1)

    def publish(self, generation: int) -> None:
        try:
            self._queue.put_nowait(generation)
        except queue.Full:
            logger.warning("Redis is slow: the hint for generation %s was dropped; beat will ask", generation)

    def run(self) -> None:
        from controlplane.celery import app

        # The first connection costs more than all that follows on it; the first click must not wait for it.
        try:
            with app.producer_pool.acquire(block=True) as producer:
                producer.connection.ensure_connection(max_retries=1)
        except Exception as error:  # noqa: BLE001  # as below: without Redis there are no hints, and that is fine
            logger.warning("Redis does not answer yet: %s", error)
        while True:
            generation = self._queue.get()
            try:
                app.send_task("migrations_app.tasks.reconcile_all", queue="gateway", expires=10)
            except Exception as error:  # noqa: BLE001  # whatever the broker raises, the hint is lost and that is fine
                logger.warning("the hint for generation %s could not be sent: %s", generation, error)


_publisher: _Publisher | None = None


def start() -> None:
    """Send hints from now on. For processes that live on: a command reconciles by itself before it ends."""
    global _publisher  # noqa: PLW0603  # one thread for the process
    if settings.CELERY_BROKER_URL and _publisher is None:
        _publisher = _Publisher()
        _publisher.start()


def ask_to_reconcile(generation: int) -> None:
    """Ask a worker to bring the gateways to `generation`. Returns at once and never raises."""
    if _publisher is not None:
        _publisher.publish(generation)
