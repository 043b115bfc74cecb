"""The command lines of an installation's processes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace

import httpx

from controlplane.embedded import parts
from controlplane.embedded.children import free_port, wait_until

ECHO = """
async def application(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["client"][0].encode()})
"""


def test_web_does_not_believe_a_forwarded_address(tmp_path: Path):
    (tmp_path / "echo.py").write_text(ECHO)
    port = free_port()
    part = parts.web(SimpleNamespace(ports=SimpleNamespace(dashboard=port)))
    command = [word.replace("controlplane.asgi", "echo") for word in part.command]
    process = subprocess.Popen([*command, "--app-dir", str(tmp_path), "--lifespan", "off"])
    try:
        with httpx.Client(trust_env=False, headers={"X-Forwarded-For": "192.0.2.7"}) as client:

            def answer() -> str:
                try:
                    return client.get(f"http://127.0.0.1:{port}/").text
                except httpx.TransportError:
                    return ""

            assert wait_until(lambda: bool(answer()), seconds=20)
            assert answer() == "127.0.0.1"
    finally:
        process.kill()
        process.wait()
