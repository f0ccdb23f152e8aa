"""Photograph the page in every mode at three widths into ``docs/screenshots``.

    python tools/screenshots.py [mode ...] [--into FOLDER]

The real studio is started with demo weights and used as a person uses it, in headless Chromium: the
mode's first example, then a video, an input preview or a run on its way, as the mode's SCENE says.
Needs ``chromium`` on PATH and ``pip install playwright``.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from PIL import Image

REPO = Path(__file__).resolve().parent.parent
if str(REPO) not in sys.path:
    sys.path.insert(0, str(REPO))

import theme  # noqa: E402
from modes import MODES  # noqa: E402

INTO = REPO / "docs" / "screenshots"
WIDTHS = {1280: 900, 900: 900, 380: 860}  # px: width and height of the window
SCENE = {"t2v": "video", "lipsync": "preview", "i2v": "preview", "keyframe": "running"}
BOOT = 300.0  # seconds for the page to come up
LONG = 300_000  # milliseconds for a run on demo weights
COLOURS = 256  # of the palette the pictures are reduced to; a third of the bytes
READY = "#7FB58A"  # the engine's dot in style.css
SWATCH = 40  # px of height each of the theme's colours counts for


def serve(folder: Path) -> tuple[subprocess.Popen, str]:
    """Start the studio on a free port with its files in ``folder``; its process and address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {**os.environ, "LTX23_AIO_OUTPUTS": str(folder), "GRADIO_TEMP_DIR": str(folder / "t")}
    command = [sys.executable, str(REPO / "app.py"), "--port", str(port), "--weights", "demo"]
    process = subprocess.Popen([*command, "--no-browser"], env=environ)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + BOOT
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.2)
        else:
            return process, url
    process.kill()
    sys.exit("The studio did not start.")


def play(page, mode: str) -> None:
    """Bring an open page of 1280 px into the mode's scene."""
    page.wait_for_selector("#generate:visible", timeout=LONG)
    page.wait_for_function(
        "document.querySelector('.studio-engine').innerText.includes('noise')", timeout=LONG
    )
    page.click(f'#mode label:has(input[value="{mode}"])')
    page.wait_for_function(
        "tag => document.querySelector('.studio-head .tag').innerText === tag", arg=MODES[mode].tag
    )
    page.click("button.example >> visible=true >> nth=0")
    page.wait_for_timeout(1500)
    scene = SCENE.get(mode, "video")
    if scene == "running":  # long enough for a picture at every width
        page.click('#field-preset label:has(input[value="quality"])')
        page.wait_for_timeout(500)
    page.click("#preview" if scene == "preview" else "#generate")
    if scene == "running":
        page.wait_for_selector(".card.status img", timeout=LONG)
    else:
        page.wait_for_selector("#result video", timeout=LONG)
    page.wait_for_timeout(1500)


def save(picture: bytes, path: Path) -> None:
    """A screenshot as a PNG with a palette, in which the theme's own colours have their place: a
    noisy video would otherwise take them all, and a green dot turn grey."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    colours = sorted({c for c in (*theme.VARIABLES.values(), READY) if len(c) == 7 and c[0] == "#"})
    swatched = Image.new("RGB", (image.width, image.height + SWATCH * len(colours)))
    swatched.paste(image)
    for number, colour in enumerate(colours):
        top = image.height + SWATCH * number
        swatched.paste(colour, (0, top, image.width, top + SWATCH))
    palette = swatched.quantize(COLOURS)
    image.quantize(palette=palette, dither=Image.Dither.NONE).save(path, optimize=True)


def main(arguments: list[str] | None = None) -> int:
    """Write the pictures; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("modes", nargs="*", help="all of them unless named")
    parser.add_argument("--into", type=Path, default=INTO)
    options = parser.parse_args(arguments)
    unknown = set(options.modes) - set(MODES)
    if unknown:
        parser.error(f"no such mode: {', '.join(sorted(unknown))}; choose from {', '.join(MODES)}")
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("Needs Chromium on PATH: apt install chromium")
    options.into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        process, url = serve(Path(folder))
        try:
            with sync_playwright() as driver:
                browser = driver.chromium.launch(
                    executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
                )
                for mode in options.modes or MODES:
                    page = browser.new_page(viewport={"width": 1280, "height": 900})
                    page.goto(url)
                    play(page, mode)
                    for width, height in WIDTHS.items():
                        page.set_viewport_size({"width": width, "height": height})
                        page.wait_for_timeout(500)
                        # As tall as its content: what sticks to an edge then lies where it belongs.
                        tall = page.evaluate("document.documentElement.scrollHeight")
                        page.set_viewport_size({"width": width, "height": max(height, tall)})
                        page.wait_for_timeout(500)
                        path = options.into / f"{mode}_{width}.png"
                        save(page.screenshot(), path)
                        print(path.relative_to(REPO) if path.is_relative_to(REPO) else path)
                    page.close()
        finally:
            process.terminate()
            process.wait(20)
    return 0


if __name__ == "__main__":
    sys.exit(main())
