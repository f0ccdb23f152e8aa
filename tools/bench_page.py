"""The page in a real browser: how soon it can be used, how heavy it is, how fast a field answers."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import bootstrap
from tools.bench_comfy import child_environment, free_port

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
LIMIT_MS = 120_000
# Resolves with the milliseconds from a change of the seconds field to the next change of the page.
ANSWER = """
async () => {
  const field = [...document.querySelectorAll('#form input[type=number]')]
      .find(e => e.offsetParent && !e.disabled);
  const form = document.querySelector('#form');
  const value = Number(field.value) + Number(field.step || 1);
  const set = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set;
  const begun = performance.now();
  const answered = new Promise(done => {
    const seen = new MutationObserver(() => { seen.disconnect(); done(performance.now() - begun); });
    seen.observe(form, {subtree: true, childList: true, characterData: true});
  });
  set.call(field, value);
  field.dispatchEvent(new Event('input', {bubbles: true}));
  field.dispatchEvent(new Event('change', {bubbles: true}));
  field.blur();
  return Promise.race([answered, new Promise(done => setTimeout(() => done(null), 10000))]);
}
"""


# The least that Gradio can serve: what the studio's page is held against.
SMALLEST = """
import sys
import gradio as gr
with gr.Blocks(analytics_enabled=False) as page:
    text, button = gr.Textbox(), gr.Button("Generate", elem_id="generate")
    button.click(lambda words: words, text, text)
page.launch(server_port=int(sys.argv[-1]), quiet=True, ssr_mode=False)
"""
STUDIO = ("app.py", "--weights", "demo", "--no-browser", "--port")


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[tuple[str, float]]:
    """A page served by Python with these arguments and a port behind them, in a process of its own;
    yields its address and when it started."""
    port = free_port()
    command = [sys.executable, *arguments, str(port)]
    with (folder / "studio.log").open("w", encoding="utf-8") as log:
        begun = time.monotonic()
        process = subprocess.Popen(
            command, cwd=bootstrap.REPO, env=child_environment(), stdout=log, stderr=log
        )
    try:
        yield f"http://127.0.0.1:{port}", begun
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium, started before anything is timed."""
    from playwright.sync_api import sync_playwright

    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    with sync_playwright() as driver:
        options = {"executable_path": found} if found else {}
        chromium = driver.chromium.launch(args=["--no-sandbox"], **options)
        try:
            yield chromium
        finally:
            chromium.close()


def open_page(chromium: Any, address: str, begun: float) -> tuple[Any, list[Any], float]:
    """Open the page as soon as somebody listens.

    Returns:
        the page, its finished requests (the list grows), and seconds from ``begun`` until the form
        and its button are there.
    """
    port = int(address.rsplit(":", 1)[1])
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            if time.monotonic() - begun > LIMIT_MS / 1e3:
                raise
            time.sleep(0.02)
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    requests: list[Any] = []
    page.on("requestfinished", lambda request: requests.append(request))
    page.goto(address, wait_until="commit", timeout=LIMIT_MS)
    page.wait_for_selector("button#generate:visible, #generate button:visible", timeout=LIMIT_MS)
    return page, requests, time.monotonic() - begun


def measure(rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Start the studio ``rounds`` times with a browser waiting.

    Returns:
        seconds until the page can be used (``usable``), until the smallest page of Gradio can
        (``smallest``), until the engine is ready (``ready``), seconds a changed field waits for its
        answer, bytes and requests of the page at 1280 px.
    """
    taken: dict[str, list[float]] = {"usable": [], "smallest": [], "ready": [], "answer": []}
    weight, count = 0, 0
    with browser() as chromium, tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for turn in range(rounds + 1):
            with serving(Path(folder), "-c", SMALLEST) as (address, begun):
                page, _, smallest = open_page(chromium, address, begun)
                page.close()
            with serving(Path(folder), *STUDIO) as (address, begun):
                page, requests, usable = open_page(chromium, address, begun)
                page.wait_for_selector(
                    ".studio-engine .dot.demo", state="attached", timeout=LIMIT_MS
                )
                ready = time.monotonic() - begun
                answers = [page.evaluate(ANSWER) for _ in range(5)] if turn else []
                if turn:  # the first round only fills the system's file cache
                    taken["usable"].append(usable)
                    taken["smallest"].append(smallest)
                    taken["ready"].append(ready)
                    taken["answer"] += [a / 1e3 for a in answers if a is not None]
                sizes = [request.sizes() for request in requests]
                weight = sum(s["responseBodySize"] + s["responseHeadersSize"] for s in sizes)
                count = len(requests)
                page.close()
            say(f"page {turn} of {rounds}: usable after {usable:.1f} s, ready after {ready:.1f} s")
    return {
        **{name: median(values) if values else 0.0 for name, values in taken.items()},
        "bytes": weight,
        "requests": count,
        "all": taken,
    }
