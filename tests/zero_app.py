"""The other end of ``zero_driver.py``: start it, call its endpoints as a visitor, read its events."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

DRIVER = Path(__file__).with_name("zero_driver.py")
LINUX = "ZeroGPU forks, and reads /proc"  # why a test is skipped elsewhere
START = 120.0  # seconds for torch, Gradio and, with ComfyUI, its boot


def token(**payload: Any) -> str:
    """What Hugging Face's proxy sends along as X-IP-Token: a JWT nobody here checks."""
    parts = ({"alg": "none"}, payload, "signature")
    return ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts
    )


VISITOR = token(user="ada", exp=2_000_000_000)


def settled(app: App, seconds: float = 6.0) -> dict[str, Any]:
    """Wait until no thread of ours and no GPU is in use; what is left."""
    end = time.monotonic() + seconds
    while True:
        left = json.loads(app.ask("threads"))
        if not left["threads"] and not app.scheduler.busy:
            return left
        assert time.monotonic() < end, (left, app.scheduler.busy)
        time.sleep(0.1)


class App:
    """A running driver. ``with App(scheduler) as app: app.run("steps")``."""

    def __init__(self, scheduler_url: str, log: Path, *options: str, **environ: str):
        given = {**os.environ, "SPACES_ZERO_DEVICE_API_URL": scheduler_url, **environ}
        given.update(GRADIO_ANALYTICS_ENABLED="False", PYTHONUNBUFFERED="1")
        # Threads that wait for each other crawl as soon as anybody else uses a core.
        given.setdefault("OMP_NUM_THREADS", "1")
        self.log = log
        self._out = log.open("w")
        self._process = subprocess.Popen(
            [sys.executable, str(DRIVER), *options],
            stdout=self._out,
            stderr=subprocess.STDOUT,
            env=given,
            cwd=DRIVER.parents[1],
        )
        self.url = ""

    def __enter__(self) -> App:
        until = time.monotonic() + START
        while not self.url:
            ports = [x for x in self.log.read_text().splitlines() if x.startswith("PORT ")]
            if ports:
                self.url = f"http://127.0.0.1:{ports[0].split()[1]}/gradio_api/call"
            elif self._process.poll() is not None or time.monotonic() > until:
                self._process.kill()
                raise RuntimeError(self.log.read_text()[-3000:])
            else:
                time.sleep(0.1)
        return self

    def __exit__(self, *_: Any) -> None:
        self._process.kill()
        self._process.wait()
        self._out.close()

    def stream(self, endpoint: str, *data: Any, visitor: str = "") -> Iterator[dict[str, Any]]:
        """An endpoint's events as they come; closing the iterator is closing the tab."""
        headers = {"x-ip-token": visitor} if visitor else {}
        with httpx.Client(timeout=60.0) as client:
            answer = client.post(
                f"{self.url}/{endpoint}", json={"data": list(data)}, headers=headers
            )
            answer.raise_for_status()
            event = ""
            address = f"{self.url}/{endpoint}/{answer.json()['event_id']}"
            with client.stream("GET", address, headers=headers) as lines:
                for line in lines.iter_lines():
                    if line.startswith("event: "):
                        event = line[7:]
                    elif line.startswith("data: ") and event == "generating":
                        yield json.loads(json.loads(line[6:])[0])
                    elif line.startswith("data: ") and event == "error":
                        raise RuntimeError(f"the handler raised: {line[6:]}")

    def ask(self, endpoint: str, *data: Any) -> Any:
        """A plain endpoint's one answer."""
        with httpx.Client(timeout=60.0) as client:
            answer = client.post(f"{self.url}/{endpoint}", json={"data": list(data)})
            address = f"{self.url}/{endpoint}/{answer.json()['event_id']}"
            lines = client.get(address).text.splitlines()
        return json.loads(next(line for line in lines if line.startswith("data: "))[6:])[0]

    def fake(self, name: str, seconds: int = 30, visitor: str = "", **settings: Any) -> Fake:
        """Start a scenario; it is read on a thread of its own."""
        return Fake(self.stream("fake", name, seconds, json.dumps(settings), visitor=visitor))


class Fake:
    """A stream that is being read: its events, and when each came."""

    def __init__(self, stream: Iterator[dict[str, Any]]):
        self.events: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.error: Exception | None = None
        self._stream, self._closing = stream, False
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.begun = time.monotonic()
        self.thread.start()

    def _read(self) -> None:
        try:
            for event in self._stream:
                self.events.append(event)
                self.times.append(time.monotonic())
                if self._closing:
                    break
        except (RuntimeError, httpx.HTTPError) as error:
            self.error = error
        finally:
            self._stream.close()

    def close_tab(self) -> None:
        """Hang up at the next event."""
        self._closing = True
        self.thread.join(10)

    def kinds(self) -> list[str]:
        """What has come so far, without ticks."""
        return [e["kind"] for e in self.events if e["kind"] != "Tick"]

    def until(self, kind: str, seconds: float = 10.0) -> dict[str, Any]:
        """Wait for the first event of a kind."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = next((e for e in list(self.events) if e["kind"] == kind), None)
            if found:
                return found
            time.sleep(0.01)
        raise AssertionError(f"no {kind} in {seconds} s: {self.events} {self.error}")

    def end(self, seconds: float = 20.0) -> dict[str, Any]:
        """Wait for the end; the one final event."""
        self.thread.join(seconds)
        assert not self.thread.is_alive(), self.events[-5:]
        assert self.error is None, self.error
        finals = [e for e in self.events if e["kind"] in ("Finished", "Failed")]
        assert len(finals) == 1, finals
        assert self.events[-1] is finals[0]
        return finals[0]

    def notes(self) -> list[str]:
        """The sentences that were said."""
        return [e["text"] for e in self.events if e["kind"] == "Note"]
