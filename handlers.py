"""What happens when somebody touches the page. Every method here is a Gradio listener or helps one.

Long work is a sync generator that yields at least every half second, so that Gradio can close it.
A run's generator only moves the status card; how it ended is written by :meth:`settle`, which Gradio
calls after success and after failure alike, so that no late yield can overwrite it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

import cards
import engine as engines
import estimate
import forms
import input_preview
import looking
import reopening
import sizes
from errors import BadInput, StudioError
from events import Failed, Finished
from forms import Form
from jobs import Progress, Studio
from modes import MODES
from request import Request

TAKES = 24  # videos the history strip holds


@dataclass(frozen=True)
class Take:
    """One finished video of this visit."""

    request: Request
    final: Finished
    thumb: str
    graph: str  # path of the graph's JSON file; "" where it could not be made
    chosen: bool = False


@dataclass
class Desk:
    """What one visitor has in front of them; lives in a ``gr.State`` of their own."""

    takes: tuple[Take, ...] = ()
    shown: int = -1
    advice: str = ""  # what the error card's button does: "fast", "fetch" or nothing


class Handlers:
    """Listeners of one page over one studio."""

    def __init__(self, studio: Studio, form: Form):
        self.studio, self.form = studio, form

    # ------------------------------------------------------------------ the form

    def check(self, mode: str, *values: Any) -> list[Any]:
        """Look at the whole form: errors, crops, what was heard, the summary, Generate or not."""
        given = self.form.values(mode, values)
        request, errors, missing = forms.collect(mode, given)
        spec = MODES[mode]
        slots = [errors.get(name, "") for name in self.form.errors]
        crops = [
            looking.crop(given[name], given["width"], given["height"], spec.field(name).label)
            if spec.field(name)
            else {}
            for name in self.form.crops
        ]
        heard = ""
        if spec.field("audio") and "audio" not in errors:
            heard = looking.sound_words(given["audio"], given["audio_start"])
        preset = self._preset(spec.presets[given["preset"]], request)
        able = gr.update(interactive=request is not None)
        summary = self._summary(request, missing, bool(errors))
        broken = self.studio.state.status == "failed" or bool(summary.get("missing"))
        ready = gr.update(interactive=request is not None and not broken)
        return [*slots, *crops, heard, gr.update(visible=bool(heard)), preset, summary, ready, able]

    def _preset(self, preset: Any, request: Request | None) -> dict[str, str]:
        cost = ""
        if request is not None:
            fast = request.replace(preset=next(iter(MODES[request.mode].presets)))
            ratio = sampling(request) / max(1e-9, sampling(fast))
            if ratio > 1.05:
                cost = f"{ratio:.1f}× the sampling work of Fast."
        return {"words": preset.summary, "cost": cost}

    def _summary(self, request: Request | None, missing: list[str], wrong: bool) -> dict[str, Any]:
        if request is None:
            if missing:
                needed = " and ".join(f"{forms.article(label)}" for label in missing)
                return {"missing": f"Needs {needed} to begin."}
            return {"missing": "Correct the marked fields to generate." if wrong else ""}
        size = (
            f"{request.width} × {request.height} px · {request.frames} frames · "
            f"{request.duration:.2f} s at {request.fps} fps"
        )
        notes = [note for note in request.notes if " fps becomes " not in note]  # said in size
        try:
            return {"size": size, "time": self._time(request), "notes": notes}
        except StudioError as error:
            return {"size": size, "missing": str(error), "notes": notes}

    def _time(self, request: Request) -> str:
        """How long it will take here, or what ZeroGPU reserves for it.

        Raises:
            BadInput: ZeroGPU has no time for it; the advice names the nearest settings that fit.
        """
        engine = self.studio.engine
        if engine is not None and (reserved := engine.reservation(request)) is not None:
            return f"Reserves about {reserved.quota} s of GPU quota."
        expected = self.studio.expected(request)
        if expected is not None:
            return f"Takes about {cards.about(expected)} here."
        return (
            "The first video measures how fast this machine is; from then on the time stands here."
        )

    def switch(self, mode: str, *values: Any) -> list[Any]:
        """Another mode was chosen: show its fields, keep what was written."""
        given, spec = self.form.values(mode, values), MODES[mode]
        kept: dict[str, Any] = {}
        size = spec.presets[given["preset"]].default_size
        if size:
            kept["width"], kept["height"] = size
        elif given["width"] and given["height"]:
            kept["width"], kept["height"] = given["width"], given["height"]
        updates = self.form.updates(mode, kept)
        return [cards.header(mode), *updates, *examples_of(mode)]

    def preset(self, mode: str, preset: str) -> list[Any]:
        """A preset was chosen; where it brings a size of its own, take that."""
        size = MODES[mode].presets[preset].default_size
        if not size:
            return [gr.skip()] * 4
        return [*size, *sizes.names_for(*size, MODES[mode].size_step)]

    def shape(self, mode: str, aspect: str, resolution: str) -> list[Any]:
        """A shape or resolution was picked: exact numbers follow."""
        if sizes.CUSTOM in (aspect, resolution):
            aspect = "3:2" if aspect == sizes.CUSTOM else aspect
            resolution = "Standard" if resolution == sizes.CUSTOM else resolution
        return [*sizes.size_for(aspect, resolution, MODES[mode].size_step), aspect, resolution]

    def exact(self, mode: str, width: int | None, height: int | None) -> list[Any]:
        """Exact numbers were typed: shape and resolution follow."""
        if not width or not height:
            return [sizes.CUSTOM, sizes.CUSTOM]
        return list(sizes.names_for(width, height, MODES[mode].size_step))

    def fit(self, audio: str | None, start: float | None) -> Any:
        """The clip as long as what is left of the recording."""
        info = forms.info(audio, "audio") if audio else None
        if info is None:
            return gr.skip()
        spec = forms.UNION["seconds"]
        left = info.seconds - (start or 0.0)
        return round(min(spec.maximum, max(spec.minimum, left)), 1)

    def example(self, mode: str, index: int) -> list[Any]:
        """Fill the form with an example of the current mode."""
        from examples import EXAMPLES

        return self.fill(EXAMPLES[mode][index].request())

    def fill(self, request: Request) -> list[Any]:
        """Everything the form shows, from a request; the seed is the request's."""
        values = forms.values_of(request)
        updates = self.form.updates(request.mode, values)
        return [
            request.mode,
            cards.header(request.mode),
            *updates,
            *examples_of(request.mode),
            False,
        ]

    def reopen(self, path: str | None) -> list[Any]:
        """A video made here, or a saved request, was dropped: the form fills itself."""
        if not path:
            return self.unfilled("")
        try:
            request, note = reopening.from_file(Path(path))
        except BadInput as error:
            return self.unfilled(str(error))
        return [*self.fill(request), note]

    def linked(self, text: str) -> list[Any]:
        """The page was opened with a request in its address."""
        if not text:
            return self.unfilled("")
        try:
            request, note = reopening.from_text(text)
        except BadInput as error:
            return self.unfilled(f"The link cannot be used. {error}")
        return [*self.fill(request), note]

    def unfilled(self, note: str) -> list[Any]:
        """Leave the form as it is and say why."""
        count = 2 + len(self.form.outputs()) + len(examples_of(forms.FIRST_MODE)) + 1
        return [*[gr.skip()] * count, note]

    # ------------------------------------------------------------------ a run

    def begin(self, session: gr.Request) -> list[Any]:
        """Generate was pressed: say so at once, and let Cancel work from this moment on."""
        self.studio.visits.of(session.session_hash).arm()
        status = {"phase": "waiting", "title": "Handing in", "dot": "busy", "percent": 0}
        status |= {"unsure": True, "clock": cards.clock(0)}
        hidden, shown = gr.update(visible=False), gr.update(visible=True)
        return [status, {}, hidden, hidden, shown]

    def generate(
        self, session: gr.Request, mode: str, randomise: bool, *values: Any
    ) -> Iterator[list[Any]]:
        """Run the form. Yields the status card, the seed, and what is spoken."""
        given = self.form.values(mode, values)
        if randomise:
            given["seed"] = secrets.randbelow(2**32)
        visit = self.studio.visits.of(session.session_hash)
        request, errors, missing = forms.collect(mode, given)
        if request is None:
            problem = next(iter(errors.values()), f"Needs {', '.join(missing)}.")
            visit.progress = Progress(None, final=Failed("bad_input", problem))
            return
        spoken, picture, shown = "", "", ""
        first = True
        for progress in self.studio.run(request, visit):
            visit.progress = progress
            if progress.final is not None:
                break
            if progress.preview != shown:
                shown, picture = progress.preview, cards.picture(progress.preview)
            value = cards.status(progress, self.studio.state, picture)
            said = gr.skip() if value["title"] == spoken else value["title"]
            spoken = value["title"]
            seed = given["seed"] if first else gr.skip()
            first = False
            yield [value, seed, said]

    def cancel(self, session: gr.Request) -> dict[str, Any]:
        """Stop this visitor's job, queued or running."""
        self.studio.visits.of(session.session_hash).stop()
        return gr.update(value="Stopping", interactive=False)

    def leave(self, session: gr.Request) -> None:
        """The tab was closed: its job stops."""
        self.studio.visits.end(session.session_hash)

    def settle(self, session: gr.Request, desk: Desk) -> list[Any]:
        """Write how the run ended."""
        visit = self.studio.visits.of(session.session_hash)
        progress = visit.progress
        final = progress.final if progress else None
        buttons = [
            gr.update(visible=True),
            gr.update(visible=False, value="Cancel", interactive=True),
        ]
        if progress is None and not visit.stopped:  # Gradio's own queue refused it
            busy = "Too many jobs are waiting already", "", "Try again in a few minutes."
            final = Failed("gpu_busy", *busy)
        elif final is None:
            final = Failed("interrupted", "Cancelled")
        elapsed = progress.elapsed if progress else 0.0
        status = cards.ended(final, elapsed)
        if isinstance(final, Finished):
            self._keep(desk, progress.request, final)
            desk.advice = ""
            spoken = f"Done: {MODES[progress.request.mode].title} in {cards.about(final.seconds)}"
            return [desk, status, spoken, {}, gr.update(visible=False), *buttons, *self.show(desk)]
        failure = {} if final.category == "interrupted" else cards.error(final)
        action = self._action(desk, progress.request if progress else None, final)
        rest = [gr.skip()] * len(self.show(desk))
        spoken = f"{cards.TITLES.get(final.category, 'Failed')}: {final.what}"
        return [desk, status, spoken, failure, action, *buttons, *rest]

    def _keep(self, desk: Desk, request: Request, final: Finished) -> None:
        thumb = looking.video_thumb(final.path)
        take = Take(request, final, thumb, self._graph_file(request, final))
        desk.takes = (*desk.takes, take)[-TAKES:]
        desk.shown = len(desk.takes) - 1

    def _graph_file(self, request: Request, final: Finished) -> str:
        try:
            graph = engines.graph_for(request, self.studio.weights or "fp8")
        except StudioError:
            return ""
        path = Path(final.path).with_suffix(".json")
        path.write_text(json.dumps(graph, indent=2, ensure_ascii=False), encoding="utf-8")
        return str(path)

    def _action(self, desk: Desk, request: Request | None, final: Failed) -> Any:
        """The one button an error card has, where one action helps."""
        desk.advice = ""
        slow = request is not None and request.preset != "fast"
        if slow and final.category in ("out_of_memory", "gpu_timeout"):
            desk.advice = "fast"
            return gr.update(visible=True, value="Try Fast")
        if final.category == "weights":
            desk.advice = "again"
            return gr.update(visible=True, value="Fetch files")
        if final.category in ("gpu_busy", "gpu_lost", "internal", "node"):
            desk.advice = "again"
            return gr.update(visible=True, value="Try again")
        return gr.update(visible=False)

    def act(self, desk: Desk) -> Any:
        """The error card's button was pressed: set what it promises; the run follows."""
        return "fast" if desk.advice == "fast" else gr.skip()

    # ------------------------------------------------------------------ results

    def show(self, desk: Desk) -> list[Any]:
        """The result's player, facts and downloads, the history strip, the comparison, the seed."""
        chosen = [take for take in desk.takes if take.chosen]
        pair = [gr.update(value=take.final.path, label=named(take)) for take in chosen[:2]]
        pair += [gr.update(value=None)] * (2 - len(pair))
        compare = [gr.update(visible=len(chosen) == 2), *pair]
        strip = self.strip(desk)
        if not 0 <= desk.shown < len(desk.takes):
            blank = [gr.update(visible=False), "Your video will play here.", {}]
            return [*blank, *[gr.update(visible=False)] * 2, strip, *compare, gr.update()]
        take = desk.takes[desk.shown]
        return [
            gr.update(value=take.final.path, visible=True, label=named(take)),
            "",
            cards.result(take.request, take.final),
            gr.update(value=take.final.path, visible=True),
            gr.update(value=take.graph or None, visible=bool(take.graph)),
            strip,
            *compare,
            gr.update(interactive=True),
        ]

    def strip(self, desk: Desk) -> dict[str, Any]:
        """The value of :data:`cards.HISTORY`, newest first."""
        rows = []
        for index, take in reversed(list(enumerate(desk.takes))):
            request = take.request
            rows.append(
                {
                    "index": index,
                    "thumb": take.thumb,
                    "tag": MODES[request.mode].tag,
                    "seed": f"seed {request.seed}",
                    "about": f"{request.duration:.1f} s, made in {cards.about(take.final.seconds)}",
                    "label": f"video {index + 1}, {named(take)}",
                    "chosen": take.chosen,
                    "pressed": "true" if take.chosen else "false",
                }
            )
        return {"takes": rows}

    def history(self, desk: Desk, event: gr.EventData) -> list[Any]:
        """A button of the history strip. Returns the desk, :meth:`show`, then the whole form."""
        index, act = int(event._data["index"]), str(event._data["act"])
        form = self.unfilled("")[:-1]
        if not 0 <= index < len(desk.takes):
            return [desk, *self.show(desk), *form]
        if act == "show":
            desk.shown = index
        elif act == "reuse":
            form = self.fill(desk.takes[index].request)
        elif act == "compare":
            desk.takes = toggled(desk.takes, index)
        return [desk, *self.show(desk), *form]

    def last_seed(self, desk: Desk) -> list[Any]:
        """The seed of the last video, held."""
        if not desk.takes:
            return [gr.skip(), gr.skip()]
        return [desk.takes[-1].request.seed, False]

    def preview(self, session: gr.Request, mode: str, *values: Any) -> list[Any]:
        """Compose what the engine would be given. Returns the player, and what went wrong."""
        request, errors, missing = forms.collect(mode, self.form.values(mode, values))
        if request is None:
            problem = next(iter(errors.values()), f"Needs {', '.join(missing)}.")
            return [gr.skip(), cards.error(Failed("bad_input", problem))]
        visit = self.studio.visits.of(session.session_hash)
        try:
            path = input_preview.compose(request, visit.new_preview())
        except StudioError as error:
            return [gr.skip(), cards.error(Failed.of(error))]
        return [gr.update(value=str(path), visible=True), {}]


def sampling(request: Request) -> float:
    """TFLOP of both sampling stages."""
    units = estimate.work(request)
    return units[estimate.FIRST] + units[estimate.SECOND]


def named(take: Take) -> str:
    """A take in a few words."""
    return f"{MODES[take.request.mode].title}, seed {take.request.seed}"


def toggled(takes: tuple[Take, ...], index: int) -> tuple[Take, ...]:
    """The takes with one chosen or unchosen for comparison; at most two stay chosen, the newest."""
    chosen = [i for i, take in enumerate(takes) if take.chosen and i != index]
    if not takes[index].chosen:
        chosen = [*chosen[-1:], index]
    return tuple(replace(take, chosen=i in chosen) for i, take in enumerate(takes))


def examples_of(mode: str) -> list[Any]:
    """Updates of the example buttons."""
    from examples import EXAMPLES, MOST

    own = EXAMPLES[mode]
    return [
        gr.update(visible=i < len(own), value=own[i].title if i < len(own) else "")
        for i in range(MOST)
    ]
