"""The page in real headless Chromium, over the real engine with demo weights."""

from __future__ import annotations

import json
import re
import time
import urllib.parse
from pathlib import Path

import pytest
import samples
import studio_app

pytest.importorskip("playwright")

from playwright.sync_api import Page, expect, sync_playwright

import cards
from modes import MODES

pytestmark = [pytest.mark.comfy, pytest.mark.browser, pytest.mark.alone]

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--autoplay-policy=no-user-gesture-required",
]
WIDTHS = (380, 900, 1280)
SHORT, LONG = 60_000, 240_000  # milliseconds


@pytest.fixture(scope="session")
def app(comfy_path):
    return studio_app.running()


@pytest.fixture(scope="session")
def browser(chromium):
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        yield opened
        opened.close()


class Visitor:
    """One visitor: a browser context of their own, with everything it complained about."""

    def __init__(self, browser, app, width: int = 1280, request: dict | None = None, **options):
        self.app, self.complaints, self.abroad = app, [], []
        self.context = browser.new_context(viewport={"width": width, "height": 860}, **options)
        self.page: Page = self.context.new_page()
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._request)
        fragment = "#request=" + urllib.parse.quote(json.dumps(request)) if request else ""
        self.page.goto(app.url + "/" + fragment)
        self.page.wait_for_selector("#generate:visible", timeout=SHORT)
        if request:  # a filled form keeps its seed
            expect(self.page.locator("#randomise input")).not_to_be_checked(timeout=SHORT)

    def _console(self, message) -> None:
        if message.type == "error":
            self.complaints.append(f"{message.text} {message.location.get('url', '')}")

    def _request(self, request) -> None:
        if not request.url.startswith((self.app.url, "data:", "blob:")):
            self.abroad.append(request.url)

    def give(self, field: str, path: str | Path) -> None:
        self.page.locator(f"#field-{field} input[type=file]").set_input_files(str(path))

    def generate(self) -> None:
        expect(self.page.locator("#generate")).to_be_enabled(timeout=SHORT)
        self.page.click("#generate")

    def video(self) -> dict:
        """The result's own word on itself, once it can be played."""
        self.page.wait_for_selector("#result video", timeout=LONG)
        return self.page.evaluate(
            """async () => {
              const v = document.querySelector('#result video');
              for (let i = 0; i < 200 && !(v.readyState >= 2); i++) await new Promise(r => setTimeout(r, 50));
              return {seconds: v.duration, width: v.videoWidth, height: v.videoHeight, src: v.currentSrc};
            }"""
        )

    def title(self) -> str:
        return self.page.locator(".card.status b").first.inner_text(timeout=SHORT)

    def close(self) -> None:
        """Leave; a page that complained or asked another machine for something has failed."""
        self.context.close()
        assert self.complaints == []
        assert self.abroad == []


def small(mode: str, **values) -> dict:
    size = {"width": 256, "height": 256} if mode == "style" else {"width": 256, "height": 192}
    named = {f.name: "given.file" for f in MODES[mode].fields if f.required}
    made = {"mode": mode, "prompt": "A test.", "seconds": 1.0, "fps": 24, "seed": 5}
    return {**made, **named, **size, **values}


LONG_JOB = {"width": 768, "height": 512, "seconds": 10.0}


# ---------------------------------------------------------------------------------- the page


def test_page_is_there_before_the_engine_and_says_that_it_starts(browser, comfy_path):
    app = studio_app.running()
    visitor = Visitor(browser, app)
    first = time.monotonic()
    expect(visitor.page.locator("#generate")).to_be_visible()
    assert time.monotonic() - first < 3
    expect(visitor.page.locator(".block.studio-engine .card").first).to_contain_text(
        re.compile("Engine starting|Demo weights"), timeout=SHORT
    )
    expect(visitor.page.locator(".block.studio-engine")).to_contain_text(
        "pictures and sound are noise", timeout=LONG
    )
    visitor.close()


@pytest.mark.parametrize("mode", MODES)
def test_mode_is_filled_generated_and_played(browser, app, mode, tmp_path):
    request = small(mode)
    visitor = Visitor(browser, app, request=request)
    expect(visitor.page.locator(".studio-head .tag")).to_have_text(MODES[mode].tag, timeout=SHORT)
    sample = samples.request_for(mode, tmp_path)
    for field, path in sample.media.items():
        visitor.give(field, path)
    visitor.generate()
    video = visitor.video()
    assert video["seconds"] == pytest.approx(25 / 24, abs=0.1)
    assert (video["width"], video["height"]) == (request["width"], request["height"])
    page = visitor.page
    expect(page.locator(".facts")).to_contain_text("Seed")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download graph").or_(
            page.get_by_role("button", name="Download graph")
        ).first.click()
    graph = json.loads(Path(download.value.path()).read_text())
    assert any(node["class_type"] == "SaveVideo" for node in graph.values())
    visitor.close()


def test_video_dropped_on_the_page_fills_the_form(browser, app):
    made = Visitor(browser, app, request=small("t2v", prompt="Dropped on the page", seed=77))
    made.generate()
    made.video()
    with made.page.expect_download() as download:
        made.page.get_by_text("Download video").first.click()
    path = Path(download.value.path())
    made.page.wait_for_timeout(300)
    other = Visitor(browser, app)
    other.page.evaluate(
        """async (bytes) => {
          const file = new File([new Uint8Array(bytes)], 'made.mp4', {type: 'video/mp4'});
          const data = new DataTransfer();
          data.items.add(file);
          for (const type of ['dragover', 'drop'])
            document.querySelector('.studio-head').dispatchEvent(
              new DragEvent(type, {bubbles: true, cancelable: true, dataTransfer: data}));
        }""",
        list(path.read_bytes()),
    )
    expect(other.page.locator("#field-prompt textarea")).to_have_value(
        "Dropped on the page", timeout=SHORT
    )
    expect(other.page.locator("#field-seed input")).to_have_value("77")
    expect(other.page.locator("#randomise input")).not_to_be_checked()
    made.close()
    other.close()


def test_history_reuses_and_compares_two(browser, app):
    visitor = Visitor(browser, app, request=small("t2v", seed=1))
    page = visitor.page
    for seed in ("1", "2"):
        page.locator("#field-seed input").fill(seed)
        page.locator("#field-seed input").press("Tab")
        visitor.generate()
        expect(page.locator(".history li")).to_have_count(int(seed), timeout=LONG)
    page.get_by_role("button", name=re.compile("^Compare video 1")).click()
    page.get_by_role("button", name=re.compile("^Compare video 2")).click()
    page.wait_for_selector("#left video", timeout=SHORT)
    page.wait_for_selector("#right video", timeout=SHORT)
    page.get_by_role("button", name=re.compile("^Reuse the settings of video 1")).click()
    expect(page.locator("#field-seed input")).to_have_value("1", timeout=SHORT)
    visitor.close()


def test_reload_leaves_a_page_that_works(browser, app):
    visitor = Visitor(browser, app, request=small("t2v", **LONG_JOB))
    visitor.generate()
    visitor.page.locator(".card.status").wait_for(timeout=SHORT)
    visitor.page.goto("about:blank")
    visitor.complaints.clear()  # Gradio's streams complain of being cut off by leaving
    other = Visitor(browser, app, request=small("t2v", seed=9))
    began = time.monotonic()
    other.generate()
    other.video()
    assert time.monotonic() - began < 60, "the job of the closed page went on"
    other.close()
    visitor.close()


# ---------------------------------------------------------------------------------- cancelling


def test_cancel_while_running_stops_within_a_second(browser, app):
    visitor = Visitor(browser, app, request=small("t2v", **LONG_JOB))
    visitor.generate()
    expect(visitor.page.locator(".card.status")).to_contain_text("Stage", timeout=SHORT)
    visitor.page.wait_for_timeout(1500)
    visitor.page.evaluate("window.pressed = performance.now()")
    visitor.page.click("#cancel")
    visitor.page.wait_for_selector(".card.status.cancelled", timeout=SHORT)
    took = visitor.page.evaluate("performance.now() - window.pressed") / 1000
    assert took < 2.5, f"{took:.1f} s"  # a step of this size takes over a second on two cores
    expect(visitor.page.locator("#generate")).to_be_visible(timeout=SHORT)
    visitor.close()


def test_cancel_while_waiting_in_line_and_two_visitors_stay_apart(browser, app):
    first = Visitor(browser, app, request=small("t2v", prompt="Mine alone", **LONG_JOB))
    second = Visitor(browser, app, request=small("t2v", prompt="Other", seed=8))
    first.generate()
    expect(first.page.locator(".card.status")).to_contain_text("Stage", timeout=SHORT)
    second.generate()
    expect(second.page.locator(".card.status")).to_contain_text("1 ahead of you", timeout=SHORT)
    second.page.evaluate("window.pressed = performance.now()")
    second.page.click("#cancel")
    second.page.wait_for_selector(".card.status.cancelled", timeout=SHORT)
    assert second.page.evaluate("performance.now() - window.pressed") < 1000
    expect(first.page.locator(".card.status")).to_contain_text("Stage", timeout=SHORT)
    second.generate()
    first.page.click("#cancel")
    video = second.video()
    first.page.wait_for_selector(".card.status.cancelled", timeout=SHORT)
    seen = first.page.content()
    assert "Other" not in seen
    assert Path(urllib.parse.urlparse(video["src"]).path).name not in seen
    expect(first.page.locator(".history li")).to_have_count(0)
    folders = [path for path in app.outputs.iterdir() if path.is_dir()]
    assert all(len(path.name) > 36 for path in folders)
    first.close()
    second.close()


# ---------------------------------------------------------------------------------- errors


def test_errors_are_inline_and_block_generate(browser, app, tmp_path):
    visitor = Visitor(browser, app, request=small("i2v"))
    page = visitor.page
    expect(page.locator(".summary .missing")).to_contain_text("Needs an image", timeout=SHORT)
    expect(page.locator("#generate")).to_be_disabled()
    visitor.give("image", samples.image(tmp_path / "tiny.png", 20, 20))
    expect(page.locator(".field-error")).to_contain_text("too small", timeout=SHORT)
    expect(page.locator("#generate")).to_be_disabled()
    page.get_by_role("button", name="Remove Image").click()
    visitor.give("image", samples.image(tmp_path / "fine.png", 320, 240))
    expect(page.locator(".field-error")).to_have_count(0, timeout=SHORT)
    expect(page.locator(".crop figcaption")).to_contain_text("320 × 240")
    expect(page.locator("#generate")).to_be_enabled()
    visitor.close()


def test_refused_control_shows_a_card_with_what_to_do(browser, app, tmp_path):
    visitor = Visitor(browser, app, request=small("style", control="pose"))
    visitor.give("video", samples.video(tmp_path / "a.mp4", seconds=1.2))
    visitor.generate()
    card = visitor.page.locator(".card.bad")
    expect(card).to_contain_text("demo weights do not include", timeout=SHORT)
    expect(card).to_contain_text("Choose canny")
    expect(visitor.page.locator("#generate")).to_be_visible()
    visitor.close()


def test_failed_setup_shows_the_part_the_command_and_another_try(browser, tmp_path, comfy_path):
    (tmp_path / "empty").mkdir()
    broken = studio_app.start(
        LTX23_AIO_COMFY_DIR=str(tmp_path / "empty"), PATH="", HF_HUB_OFFLINE="1"
    )
    visitor = Visitor(browser, broken)
    page = visitor.page
    card = page.locator(".block.studio-engine .card.bad")
    expect(card).to_contain_text("The engine did not start", timeout=LONG)
    expect(card.locator(".command")).to_have_text(cards.SETUP_COMMAND)
    page.click("button.example >> nth=0")
    page.click("#preview")
    page.wait_for_selector("#result video", timeout=SHORT)  # works without an engine
    expect(page.locator("#retry")).to_be_visible()
    expect(page.locator("#generate")).to_be_disabled()
    visitor.close()
    broken.process.kill()


# ---------------------------------------------------------------------------------- for everyone


@pytest.mark.parametrize("width", WIDTHS)
def test_page_has_no_overflow_and_nothing_lies_on_top_of_another(browser, app, width):
    visitor = Visitor(browser, app, width)
    page = visitor.page
    for mode in MODES:
        if width < 1024:
            page.click("#drawer .toggle-button")
            expect(page.locator("#drawer .toggle-button")).to_have_attribute(
                "aria-expanded", "true"
            )
        page.click(f'#mode label:has(input[value="{mode}"])')
        expect(page.locator(".studio-head .tag")).to_have_text(MODES[mode].tag, timeout=SHORT)
        if width < 1024:
            expect(page.locator("#drawer .toggle-button")).to_have_attribute(
                "aria-expanded", "false"
            )
        page.wait_for_timeout(250)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, mode
        crossing = page.evaluate(
            """() => {
              const boxes = [...document.querySelectorAll('#form .block, #form button')]
                .filter(e => e.offsetParent && !e.closest('#actions') && e.getClientRects().length)
                .map(e => [e, e.getBoundingClientRect()]);
              const found = [];
              for (const [a, r] of boxes) for (const [b, s] of boxes)
                if (a !== b && !a.contains(b) && !b.contains(a) && r.left < s.right - 2 && s.left < r.right - 2
                    && r.top < s.bottom - 2 && s.top < r.bottom - 2) found.push(a.id + ' x ' + b.id);
              return found;
            }"""
        )
        assert crossing == [], mode
    visitor.close()


def test_drawer_opens_closes_and_keeps_the_focus(browser, app):
    visitor = Visitor(browser, app, 380)
    page = visitor.page
    toggle = page.locator("#drawer .toggle-button")
    expect(toggle).to_have_attribute("aria-expanded", "false")
    toggle.focus()
    page.keyboard.press("Enter")
    expect(toggle).to_have_attribute("aria-expanded", "true")
    for _ in range(12):
        page.keyboard.press("Tab")
        assert page.evaluate("!!document.activeElement.closest('#drawer')")
    page.keyboard.press("Escape")
    expect(toggle).to_have_attribute("aria-expanded", "false")
    expect(toggle).to_be_focused()
    page.wait_for_timeout(400)
    toggle.click()
    page.mouse.click(360, 500)  # the scrim
    expect(toggle).to_have_attribute("aria-expanded", "false")
    visitor.close()


def test_keyboard_alone_makes_a_video(browser, app):
    visitor = Visitor(browser, app, request=small("t2v", seed=21))
    page = visitor.page
    expect(page.locator("#generate")).to_be_enabled(timeout=SHORT)
    for _ in range(40):
        if page.evaluate(
            "document.activeElement === document.querySelector('#field-prompt textarea')"
        ):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Control+A")
    page.keyboard.type("Typed by keyboard")
    page.keyboard.press("Control+Enter")
    visitor.video()
    expect(page.locator(".facts .prompt")).to_have_text("Typed by keyboard")
    visitor.close()


def test_page_has_no_accessibility_violations(browser, app):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    for width in (380, 1280):
        visitor = Visitor(browser, app, width, request=small("lipsync"))
        page = visitor.page
        for fold in ("#advanced", "#loras"):
            page.click(f"{fold} > button")
        page.wait_for_timeout(400)
        found = axe.Axe().run(page).response["violations"]
        said = [(v["id"], [node["html"][:120] for node in v["nodes"]]) for v in found]
        assert said == []
        visitor.close()


def test_reduced_motion_is_honoured(browser, app):
    visitor = Visitor(browser, app, reduced_motion="reduce", request=small("t2v", **LONG_JOB))
    visitor.generate()
    visitor.page.wait_for_selector(".card.status .dot", timeout=SHORT)
    names = visitor.page.evaluate(
        "[...document.querySelectorAll('*')].map(e => getComputedStyle(e).animationName)"
        ".filter(name => name !== 'none')"
    )
    assert names == []
    visitor.page.click("#cancel")
    visitor.page.wait_for_selector(".card.status.cancelled", timeout=SHORT)
    visitor.close()
