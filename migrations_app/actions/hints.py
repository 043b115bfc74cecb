"""Hints to the workers, sent aside so that a dead or hung Redis never delays a click."""

from __future__ import annotations

import logging
import queue
import threading

from django.conf import settings

logger = logging.getLogger(__name__)


class _Publisher:
    """One daemon thread that publishes. While it is stuck on a hung Redis, further hints are dropped."""

    def __init__(self) -> None:
        self._queue: queue.Queue[int] = queue.Queue(maxsize=1)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def publish(self, generation: int) -> None:
        with self._lock:
            # Also after a fork, where the thread of the parent does not live on.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="hints", daemon=True)
                self._thread.start()
        try:
            self._queue.put_nowait(generation)
        except queue.Full:
            logger.warning("Redis is slow: the hint for generation %s was dropped; beat will ask", generation)

    def _run(self) -> None:
        # Here, so that a command which only reads does not pay for loading Celery.
        from controlplane.celery import app

        while True:
            generation = self._queue.get()
            try:
                app.send_task("migrations_app.tasks.reconcile_all", queue="gateway", expires=10)
            except Exception as error:  # noqa: BLE001  # whatever the broker raises, the hint is lost and that is fine
                logger.warning("the hint for generation %s could not be sent: %s", generation, error)


_publisher = _Publisher()


def ask_to_reconcile(generation: int) -> None:
    """Ask a worker to bring the gateways to `generation`. Returns at once and never raises."""
    if settings.CELERY_BROKER_URL:
        _publisher.publish(generation)
