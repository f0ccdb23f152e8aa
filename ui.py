"""The page: what lies where, and which touch calls which handler.

The parts come from elsewhere: controls from :mod:`forms`, cards from :mod:`cards`, listeners from
:mod:`handlers`, the look from :mod:`theme`, API and MCP from :mod:`endpoints`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

import cards
import endpoints
import forms
import theme
from examples import EXAMPLES, MOST
from forms import FIRST_MODE, Form
from handlers import Desk, Handlers
from jobs import Studio
from weights_panel import WeightsPanel

FAST_POLL, SLOW_POLL = 1.0, 6.0  # seconds between looks at the engine, while it boots and after
WAITING = 32  # jobs that may wait at once; their place in the line is shown to each
KEEP_FILES = 24 * 3600  # seconds an upload or a result stays on the server: longer than a visit
MAX_UPLOAD = "512mb"


@dataclass
class Result:
    """The right-hand column."""

    status: Any
    spoken: Any
    error: Any
    action: Any
    video: Any
    empty: Any
    facts: Any
    download: Any
    graph: Any
    history: Any
    compare: Any
    left: Any
    right: Any


def build(studio: Studio) -> gr.Blocks:
    """The whole page over a studio; serve it with :func:`launch_arguments`."""
    with gr.Blocks(
        title="LTX 2.3 Studio",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(3600, KEEP_FILES),
    ) as page:
        desk = gr.State(Desk())
        side = _sidebar()
        with gr.Column(elem_id="studio"):
            header = cards.card(cards.HEADER, cards.header(FIRST_MODE), "header")
            engine = cards.card(cards.ENGINE, {}, "engine")
            retry = gr.Button("Try again", visible=False, size="sm", elem_id="retry")
            with gr.Row(elem_id="desk", equal_height=False):
                with gr.Column(elem_id="form", min_width=0):
                    reopen, note, tries = _openers()
                    form = forms.build()
                    buttons = _buttons()
                with gr.Column(elem_id="stage", min_width=0):
                    result = _stage()
            result.history = cards.card(cards.HISTORY, {"takes": []}, "history", cards.HISTORY_JS)
            with gr.Row(visible=False, elem_id="compare", equal_height=False) as result.compare:
                result.left = gr.Video(show_label=True, loop=True, elem_id="left", buttons=[])
                result.right = gr.Video(show_label=True, loop=True, elem_id="right", buttons=[])
        link = gr.Textbox(visible="hidden")  # there, so that it can tell of a change, but not seen
        handlers = Handlers(studio, form)
        wires = _Wires(page, studio, handlers, desk, side, header, engine, retry, result)
        wires.form(form, buttons, reopen, note, tries, link)
        wires.run(form, buttons)
        wires.engine(buttons)
        endpoints.add(studio)
    page.queue(max_size=WAITING, default_concurrency_limit=None)
    return page


def launch_arguments() -> dict[str, Any]:
    """What ``launch`` needs to know about this page."""
    assets = theme.ROUTE.lstrip("/")
    # A link, not the css argument: Gradio confines that to its innermost container, below the drawer.
    head = (
        f'<link rel="stylesheet" href="{assets}/{theme.CSS.name}">'
        f'<script defer src="{assets}/{theme.SCRIPT.name}"></script>'
        f'<link rel="preload" href="{assets}/fonts/ibm-plex-sans-latin-400-normal.woff2" '
        'as="font" type="font/woff2" crossorigin>'
    )
    return {
        "theme": theme.theme(),
        "head": head,
        "favicon_path": str(theme.ICON),
        "app_kwargs": {"routes": theme.routes()},
        "mcp_server": True,
        "run_history": False,
        "footer_links": ["api"],
        "max_file_size": MAX_UPLOAD,
        "show_error": True,
        "ssr_mode": False,
    }


# ---------------------------------------------------------------------------------- parts


@dataclass
class _Side:
    mode: Any
    facts: Any
    models: Any
    fetch: Any
    unload: Any
    refresh: Any


def _sidebar() -> _Side:
    with gr.Sidebar(width=220, open=False, elem_id="drawer", label="Modes and engine"):
        gr.HTML('<p class="brand">LTX 2.3 <b>Studio</b></p>', padding=False)
        mode = gr.Radio(
            forms.MODE_CHOICES, value=FIRST_MODE, label="Mode", elem_id="mode", container=False
        )
        gr.HTML('<h2 class="side-title">Engine</h2>', padding=False)
        facts = cards.card(cards.FACTS, {}, "facts")
        gr.HTML('<h2 class="side-title">Model files</h2>', padding=False)
        models = cards.card(cards.MODELS, {"rows": []}, "models")
        with gr.Row(elem_classes="side-buttons"):
            refresh = gr.Button("Refresh", size="sm", min_width=60)
            unload = gr.Button("Unload", size="sm", min_width=60)
        fetch = gr.Button("Fetch files", size="sm", visible=False)
    return _Side(mode, facts, models, fetch, unload, refresh)


def _openers() -> tuple[Any, Any, list[Any]]:
    """The examples, and the door for a video made here."""
    with gr.Row(elem_id="openers"):
        gr.HTML('<span class="hint">Try</span>', padding=False, min_width=0, scale=0)
        own = EXAMPLES[FIRST_MODE]
        tries = [
            gr.Button(
                own[i].title if i < len(own) else "",
                visible=i < len(own),
                size="sm",
                min_width=0,
                scale=0,
                elem_classes="example",
            )
            for i in range(MOST)
        ]
        reopen = gr.UploadButton(
            "Reopen a video",
            file_types=[".mp4", ".json"],
            size="sm",
            min_width=0,
            scale=0,
            elem_id="reopen",
        )
    note = cards.card(cards.HEARD, "", "note")
    return reopen, note, tries


@dataclass
class _Buttons:
    summary: Any
    generate: Any
    cancel: Any
    preview: Any


def _buttons() -> _Buttons:
    with gr.Column(elem_id="actions"):
        summary = cards.card(cards.SUMMARY, {}, "summary")
        with gr.Row():
            generate = gr.Button(
                "Generate", variant="primary", size="lg", elem_id="generate", scale=2
            )
            cancel = gr.Button(
                "Cancel", variant="stop", size="lg", elem_id="cancel", visible=False, scale=2
            )
            preview = gr.Button("Preview inputs", size="lg", elem_id="preview", scale=1)
    return _Buttons(summary, generate, cancel, preview)


def _stage() -> Result:
    status = cards.card(cards.STATUS, {}, "status")
    error = cards.card(cards.ERROR, {}, "error")
    action = gr.Button("Try again", visible=False, elem_id="action")
    spoken = cards.card(cards.SPOKEN, "", "spoken")
    empty = cards.card(cards.EMPTY, "Your video will play here.", "empty")
    video = gr.Video(
        visible=False,
        autoplay=True,
        loop=True,
        elem_id="result",
        label="Result",
        show_label=True,
        buttons=[],
    )
    with gr.Row(elem_id="downloads"):
        download = gr.DownloadButton("Download video", visible=False, size="sm")
        graph = gr.DownloadButton("Download graph", visible=False, size="sm")
    facts = cards.card(cards.RESULT, {}, "result")
    return Result(status, spoken, error, action, video, empty, facts, download, graph, *[None] * 4)


# ---------------------------------------------------------------------------------- listeners

QUIET = {"show_progress": "hidden", "api_visibility": "private"}
# Reads the request in the page's address; a fragment never reaches a server's log.
READ_LINK = "() => decodeURIComponent((location.hash.match(/#request=(.*)/) || ['', ''])[1])"


# On a narrow page the stage lies below the form: bring it into view when a run begins.
TO_STAGE = (
    "() => { if (innerWidth < 860) document.querySelector('#stage').scrollIntoView(); return []; }"
)


class _Wires:
    """Connects touches to handlers; holds what several of them write to."""

    def __init__(self, page, studio, handlers, desk, side, header, engine, retry, result: Result):
        self.page, self.studio, self.do, self.desk = page, studio, handlers, desk
        self.side, self.header, self.card, self.retry = side, header, engine, retry
        self.result = result
        self.panel = WeightsPanel(studio)
        self.timer = gr.Timer(FAST_POLL)
        seen = [engine, retry, side.facts, self.timer]
        self.look = {"fn": self._look, "inputs": None, "outputs": seen, "queue": False, **QUIET}

    def _look(self) -> list[Any]:
        """The engine's card, its button, the sidebar's facts, and when to look again."""
        state, studio = self.studio.state, self.studio
        studio.opened.set()
        calm = state.status == "failed" or (state.status == "ready" and not state.busy)
        return [
            cards.engine(state, studio.weights),
            gr.update(visible=state.status == "failed"),
            cards.facts(state, studio.weights, studio.reason),
            gr.Timer(SLOW_POLL if calm else FAST_POLL),
        ]

    def form(self, form: Form, buttons: _Buttons, reopen, note, tries, link) -> None:
        """Everything that only changes the form."""
        do, mode, whole = self.do, self.side.mode, form.inputs()
        fast = {**QUIET, "queue": False, "trigger_mode": "always_last"}
        shown = [*form.errors.values(), *form.crops.values(), form.heard]
        shown += [form.rows[("audio", "audio_start")], form.preset_words, buttons.summary]
        shown += [buttons.generate, buttons.preview]
        check = {"fn": do.check, "inputs": [mode, *whole], "outputs": shown, **fast}
        typed = [part for part in whole if isinstance(part, gr.Textbox)]
        touched = [part.change for part in whole if part not in typed]
        gr.on([*touched, *[part.blur for part in typed]], **check)
        self.page.load(**check)
        self.card.change(**check)  # a set-up that failed, or was mended, decides on Generate too
        filled = [mode, self.header, *form.outputs(), *tries, form.randomise]
        self.filled, self.check = filled, check
        mode.input(do.switch, [mode, *whole], [self.header, *form.outputs(), *tries], **fast).then(
            **check
        )
        size = [form.parts["width"], form.parts["height"]]
        names = [form.aspect, form.resolution]
        form.parts["preset"].input(do.preset, [mode, form.parts["preset"]], [*size, *names], **fast)
        gr.on([part.input for part in names], do.shape, [mode, *names], [*size, *names], **fast)
        gr.on([part.input for part in size], do.exact, [mode, *size], names, **fast)
        heard = [form.parts["audio"], form.parts["audio_start"]]
        form.fit.click(do.fit, heard, form.parts["seconds"], **fast)
        seed = [form.parts["seed"], form.randomise]
        form.reuse_seed.click(do.last_seed, self.desk, seed, **fast)
        for index, button in enumerate(tries):
            button.click(
                lambda chosen, at=index: do.example(chosen, at), mode, filled, **fast
            ).then(**check)
        reopen.upload(do.reopen, reopen, [*filled, note], **fast).then(**check)
        self.page.load(None, None, link, js=READ_LINK, **fast)
        link.change(do.linked, link, [*filled, note], **fast).then(**check)
        buttons.preview.click(
            do.preview,
            [mode, *whole],
            [self.result.video, self.result.error],
            concurrency_limit=4,
            show_progress="minimal",
            show_progress_on=self.result.video,
            api_visibility="private",
        ).then(lambda: "", None, self.result.empty, **fast)

    def run(self, form: Form, buttons: _Buttons) -> None:
        """Generate, cancel, results and history."""
        do, result = self.do, self.result
        shown = [result.video, result.empty, result.facts, result.download, result.graph]
        shown += [result.history, result.compare, result.left, result.right, form.reuse_seed]
        settled = [self.desk, result.status, result.spoken, result.error, result.action]
        settled += [buttons.generate, buttons.cancel, *shown]
        running = [result.status, form.parts["seed"], result.spoken]
        begun = [result.status, result.error, result.action, buttons.generate, buttons.cancel]
        settle = {"fn": do.settle, "inputs": self.desk, "outputs": settled, "queue": False, **QUIET}
        generate = {
            "fn": do.generate,
            "inputs": [self.side.mode, form.randomise, *form.inputs()],
            "outputs": running,
            "concurrency_limit": WAITING,
            **QUIET,
        }

        def listen(event: Any) -> None:
            for after in (event.then, event.failure):
                after(**settle).then(**self.check).then(**self.look)

        begin = {"fn": do.begin, "inputs": None, "outputs": begun, "queue": False, **QUIET}
        listen(buttons.generate.click(js=TO_STAGE, **begin).then(**generate))
        mend = result.action.click(do.act, self.desk, form.parts["preset"], queue=False, **QUIET)
        listen(mend.then(js=TO_STAGE, **begin).then(**generate))
        buttons.cancel.click(do.cancel, None, buttons.cancel, queue=False, **QUIET)
        self.page.unload(do.leave)
        result.history.select(
            do.history,
            self.desk,
            [self.desk, *shown, *self.filled],
            queue=False,
            trigger_mode="multiple",
            **QUIET,
        ).then(**self.check)

    def engine(self, buttons: _Buttons) -> None:
        """The engine's card, the sidebar, and the clock that keeps both true."""
        side, studio = self.side, self.studio
        fast = {**QUIET, "queue": False}

        self.timer.tick(**self.look)
        self.page.load(**self.look)
        self.retry.click(lambda: studio.start() and None, None, None, **fast).then(**self.look)
        models = [side.models, side.fetch]
        files = {"fn": self.panel.show, "inputs": side.mode, "outputs": models, **fast}
        # The engine's card changes when it is ready: only then it is known which weights it has.
        gr.on([self.page.load, side.refresh.click, side.mode.change, self.card.change], **files)
        side.unload.click(self.panel.unload, side.mode, models, **QUIET).then(**self.look)
        side.fetch.click(self.panel.fetch, side.mode, models, **QUIET).then(**files)
