"""The in-process adapter: a gateway without a process, for tests and for trying things out."""

from migrations_app.gateways.memory.adapter import MemoryGateway, Served

__all__ = ["MemoryGateway", "Served"]
