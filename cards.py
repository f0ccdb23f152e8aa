"""What the page says outside its form: status, result, error, engine, models, history.

Each card is a ``gr.HTML`` with a template and a plain dict for a value. In a template ``{{ }}`` is
escaped by Gradio and ``${ }`` is not, so whatever a person, a file or an error wrote only ever goes
through ``{{ }}``. The functions here turn the studio's values into those dicts.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import gradio as gr

from downloads import size_text
from engine import EngineState
from errors import StudioError
from events import Failed, Finished
from jobs import Progress
from modes import MODES
from request import Request

HEADER = """
<header class="studio-head">
  <span class="tag">{{value.tag}}</span>
  <div><h1>{{value.title}}</h1><p>{{value.summary}}</p></div>
</header>"""

ENGINE = """
{{#if value.failed}}
<section class="card bad" role="alert"><h2>The engine did not start</h2>
  <p class="what">{{value.what}}</p>
  {{#if value.where}}<p class="where">Part: <code>{{value.where}}</code></p>{{/if}}
  <p>{{value.advice}}</p>
  <pre class="command">{{value.command}}</pre>
  {{#if value.detail}}<details><summary>Details for a report</summary><pre>{{value.detail}}</pre></details>{{/if}}
</section>
{{else}}{{#if value.booting}}
<section class="card slim"><span class="dot busy"></span>
  <p><b>Engine starting</b> {{value.message}}. The form and the input preview work already.</p>
</section>
{{else}}{{#if value.demo}}
<section class="card slim"><span class="dot demo"></span>
  <p><b>Demo weights: pictures and sound are noise.</b> Everything else is the real thing, so this
  shows that the studio works here. Real videos take about 40 GB of files and a GPU with 24 GB or
  more: start with <code>--weights full</code>.</p>
</section>
{{/if}}{{/if}}{{/if}}"""

STATUS = """
{{#if value.phase}}
<section class="card status {{value.phase}}">
  <div class="line"><span class="dot {{value.dot}}"></span><b>{{value.title}}</b>
    <span class="right mono">{{value.clock}}</span></div>
  <div class="bar {{#if value.unsure}}unsure{{/if}}" role="progressbar" aria-label="Progress"
    aria-valuemin="0" aria-valuemax="100" aria-valuenow="{{value.percent}}">
    <i style="width:{{value.percent}}%"></i></div>
  <div class="line small"><span>{{value.detail}}</span><span class="right mono">{{value.left}}</span></div>
  {{#if value.preview}}<img class="preview" src="{{value.preview}}" alt="Live preview of the sampling" />{{/if}}
  {{#if value.memory}}<p class="small mono">{{value.memory}}</p>{{/if}}
  {{#each value.notes}}<p class="note">{{this}}</p>{{/each}}
</section>
{{/if}}"""

ERROR = """
{{#if value.what}}
<section class="card bad" role="alert"><h2>{{value.title}}</h2>
  <p class="what">{{value.what}}</p>
  {{#if value.advice}}<p>{{value.advice}}</p>{{/if}}
  {{#if value.detail}}<details><summary>Details for a report</summary><pre>{{value.detail}}</pre></details>{{/if}}
</section>
{{/if}}"""

RESULT = """
{{#if value.rows}}
<section class="card facts">
  <div class="line"><span class="tag">{{value.tag}}</span><b>{{value.took}}</b></div>
  <p class="prompt">{{value.prompt}}</p>
  <dl>{{#each value.rows}}<div><dt>{{this.name}}</dt><dd>{{this.value}}</dd></div>{{/each}}</dl>
  <details><summary>Time per stage</summary>
    <dl>{{#each value.stages}}<div><dt>{{this.name}}</dt><dd>{{this.value}}</dd></div>{{/each}}</dl></details>
  <div class="copies">
    <button type="button" class="plain" data-copy="link" data-text="{{value.json}}">Copy link</button>
    <button type="button" class="plain" data-copy="request" data-text="{{value.json}}">Copy request</button>
  </div>
</section>
{{/if}}"""

EMPTY = """
{{#if value}}
<div class="empty" aria-hidden="true"><svg viewBox="0 0 64 40" width="72" height="45"><rect x="1" y="1" width="62" height="38" rx="4"
 fill="none" stroke="currentColor" stroke-width="1.5"/><path d="M27 12l13 8-13 8z" fill="currentColor"/></svg>
<p>{{value}}</p></div>
{{/if}}"""

HISTORY = """
{{#if value.takes}}
<section class="history" aria-label="Videos of this visit"><h2>This visit</h2><p class="hint">Choose two to compare.</p>
<ul>{{#each value.takes}}
 <li class="{{#if this.chosen}}chosen{{/if}}">
  <button type="button" class="thumb" data-act="show" data-index="{{this.index}}" aria-label="Show {{this.label}}">
   <img src="{{this.thumb}}" alt="" /><span class="tag">{{this.tag}}</span></button>
  <p class="mono">{{this.seed}}</p><p class="small">{{this.about}}</p>
  <div class="acts"><button type="button" class="plain" data-act="reuse" data-index="{{this.index}}"
    aria-label="Reuse the settings of {{this.label}}">Reuse</button>
  <button type="button" class="plain" data-act="compare" data-index="{{this.index}}" aria-pressed="{{this.pressed}}"
    aria-label="Compare {{this.label}}">Compare</button></div>
 </li>{{/each}}</ul></section>
{{/if}}"""

# The card's own buttons become one Gradio event with the row and what to do with it.
HISTORY_JS = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-act]');
  if (button) trigger('select', {act: button.dataset.act, index: Number(button.dataset.index)});
});"""

FACTS = """
{{#if value.device}}
<dl class="side"><div><dt>Engine</dt><dd><span class="dot {{value.dot}}"></span>{{value.status}}</dd></div>
<div><dt>Device</dt><dd>{{value.device}}</dd></div>
<div><dt>Weights</dt><dd title="{{value.reason}}">{{value.weights}}</dd></div>
{{#if value.memory}}<div><dt>Memory</dt><dd class="mono">{{value.memory}}</dd></div>{{/if}}</dl>
{{#if value.memory}}<div class="bar side-bar" role="img" aria-label="{{value.memory}} in use"><i style="width:{{value.percent}}%"></i></div>{{/if}}
{{/if}}"""

MODELS = """
<dl class="side models">{{#each value.rows}}<div><dt>{{this.name}}</dt><dd class="{{this.state}}">{{this.text}}</dd></div>{{/each}}</dl>
{{#if value.note}}<p class="small">{{value.note}}</p>{{/if}}"""

SUMMARY = """
<div class="summary">
  {{#if value.size}}<p class="mono">{{value.size}}</p>{{/if}}
  {{#if value.time}}<p>{{value.time}}</p>{{/if}}
  {{#each value.notes}}<p class="note">{{this}}</p>{{/each}}
  {{#if value.missing}}<p class="missing">{{value.missing}}</p>{{/if}}
</div>"""

PRESET = """<p class="preset-words">{{value.words}} <span class="mono">{{value.cost}}</span></p>"""

CROP = """
{{#if value.src}}
<figure class="crop"><div><img src="{{value.src}}" alt="{{value.alt}}" />
<i style="left:{{value.x}}%;top:{{value.y}}%;width:{{value.w}}%;height:{{value.h}}%"></i></div>
<figcaption>{{value.text}}</figcaption></figure>
{{/if}}"""

HEARD = """{{#if value}}<p class="heard">{{value}}</p>{{/if}}"""
FIELD_ERROR = """{{#if value}}<p class="field-error" role="alert">{{value}}</p>{{/if}}"""
SPOKEN = """<p class="visually-hidden" role="status">{{value}}</p>"""

TITLES = {
    "bad_input": "This cannot be made as it is",
    "setup": "The engine is not ready",
    "weights": "A model file is missing",
    "node": "A step of the graph failed",
    "out_of_memory": "The memory was not enough",
    "interrupted": "Cancelled",
    "gpu_quota": "The GPU quota is used up",
    "gpu_busy": "No GPU is free",
    "gpu_timeout": "The time on the GPU ran out",
    "gpu_lost": "The GPU was lost",
    "gpu_session": "The visit has expired",
    "internal": "Something went wrong in the studio",
}
SETUP_COMMAND = "python3 tools/run.py"


def card(template: str, value: Any, name: str, js: str | None = None, **more: Any) -> gr.HTML:
    """A ``gr.HTML`` with one of this module's templates; it takes no room while it shows nothing."""
    classes = ["studio-card", f"studio-{name}"]
    return gr.HTML(
        value,
        html_template=template,
        elem_classes=classes,
        js_on_load=js,
        padding=False,
        apply_default_css=False,
        **more,
    )


def clock(seconds: float) -> str:
    """``0:07``, ``2:31``, ``1:02:03``."""
    whole = int(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def about(seconds: float) -> str:
    """A duration for a sentence: ``8 s``, ``2 min 30 s``."""
    if seconds < 1:
        return "under 1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds / 10) * 10, 60)
    return f"{minutes} min {rest} s" if rest and minutes < 10 else f"{minutes} min"


def picture(path: str | Path) -> str:
    """A small JPEG as a data URI, so that it never lies where another visitor could ask for it."""
    try:
        data = Path(path).read_bytes()
    except OSError:
        return ""
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


def header(mode: str) -> dict[str, str]:
    """The value of :data:`HEADER`."""
    spec = MODES[mode]
    return {"tag": spec.tag, "title": spec.title, "summary": spec.summary}


def engine(state: EngineState, weights: str) -> dict[str, Any]:
    """The value of :data:`ENGINE`."""
    if state.status == "failed":
        error = state.error or StudioError(state.message or "Unknown failure")
        return {
            "failed": True,
            "what": error.what,
            "where": error.where,
            "advice": error.advice
            or "This command checks every part and restores what is missing:",
            "command": SETUP_COMMAND,
            "detail": error.detail,
        }
    if state.status != "ready":
        return {"booting": True, "message": (state.message or "starting").rstrip(".")}
    return {"demo": weights == "demo"}


def facts(state: EngineState, weights: str, reason: str) -> dict[str, Any]:
    """The value of :data:`FACTS`."""
    words = {"ready": "Ready", "failed": "Failed", "booting": "Starting", "off": "Starting"}
    named = {"demo": "demo (noise)", "fp8": "full, fp8", "bf16": "full, bf16"}
    total = state.memory_total
    return {
        "status": "Working" if state.busy else words[state.status],
        "dot": {"ready": "ok", "failed": "bad"}.get(state.status, "busy"),
        "device": state.device or "not known yet",
        "memory": memory(state),
        "percent": round(100 * state.memory_used / total) if total else 0,
        "weights": named.get(weights, "not known yet"),
        "reason": reason,
    }


def memory(state: EngineState) -> str:
    """``3.1 of 24.0 GB``, or nothing while unknown."""
    if not state.memory_total:
        return ""
    return f"{state.memory_used / 1e9:.1f} of {state.memory_total / 1e9:.1f} GB"


def status(progress: Progress, state: EngineState, picture_uri: str) -> dict[str, Any]:
    """The value of :data:`STATUS` while a job waits or runs."""
    p = progress
    left = p.seconds_left
    value = {
        "phase": p.phase,
        "dot": "busy",
        "clock": clock(p.elapsed),
        "percent": round(100 * min(1.0, p.fraction)),
        "unsure": p.phase in ("waiting", "starting") or (p.phase == "running" and not p.count),
        "left": "" if left is None else f"{about(left)} left",
        "notes": p.notes[-4:],
        "preview": picture_uri,
        "memory": "Memory " + memory(state) if memory(state) else "",
        "detail": "",
    }
    if p.phase == "waiting":
        value["title"] = (
            "Waiting for the engine" if not p.ahead else f"Waiting: {p.ahead} ahead of you"
        )
        value["detail"] = f"Position {p.ahead + 1} in the line." if p.ahead else ""
    elif p.phase == "starting":
        value["title"], value["detail"] = "The engine is starting", p.stage
    elif p.phase == "download" and p.download:
        d = p.download
        value["title"] = f"Fetching model files: {d.files_done} of {d.files_total}"
        value["detail"] = f"{d.file}: {size_text(d.done)} of {size_text(d.total)} in all"
        value["left"] = f"{size_text(int(d.speed))}/s"
        if d.seconds_left is not None:
            value["left"] += f", {about(d.seconds_left)} left"
    else:
        value["title"] = p.stage or "Preparing"
        value["detail"] = f"Stage {p.index} of {p.count}" if p.count else "Checking files and graph"
        if p.steps > 1:
            value["detail"] += f", step {p.step} of {p.steps}"
    return value


def ended(final: Finished | Failed | None, elapsed: float) -> dict[str, Any]:
    """The value of :data:`STATUS` once a job has ended; an empty one where another card speaks."""
    if isinstance(final, Failed) and final.category == "interrupted":
        words = "The work was stopped. Nothing was kept."
        return {
            "phase": "cancelled",
            "dot": "off",
            "title": "Cancelled",
            "clock": clock(elapsed),
            "percent": 0,
            "detail": words,
        }
    return {}


def error(failed: Failed) -> dict[str, Any]:
    """The value of :data:`ERROR`."""
    what = failed.what.rstrip(".")
    if failed.where and failed.where not in what and failed.category != "bad_input":
        what += f" ({failed.where})"
    return {
        "title": TITLES.get(failed.category, TITLES["internal"]),
        "what": what + ".",
        "advice": failed.advice,
        "detail": failed.detail,
    }


SHOWN = ("negative_prompt", "preset", "seed", "camera", "detailer", "ic_lora", "pose", "control")


def result(request: Request, final: Finished) -> dict[str, Any]:
    """The value of :data:`RESULT`."""
    mode = MODES[request.mode]
    rows = [("Size", f"{request.width} × {request.height} px")]
    rows.append(
        ("Length", f"{request.duration:.2f} s, {request.frames} frames at {request.fps} fps")
    )
    for name in SHOWN:
        value, spec = getattr(request, name), mode.field(name)
        if spec is None or value in (None, "", "none", False):
            continue
        if name == "negative_prompt" and mode.presets[request.preset].guidance <= 1:
            continue
        if isinstance(value, bool):
            value = "on"
        strength = getattr(request, f"{name.replace('ic_lora', 'ic')}_strength", None)
        if strength is not None:
            value = f"{value}, strength {strength:g}"
        rows.append((spec.label, str(value)))
    cached = f", {final.cached} nodes from the cache" if final.cached else ""
    return {
        "tag": mode.tag,
        "took": f"Made in {about(final.seconds)}{cached}",
        "prompt": request.prompt,
        "rows": [{"name": n, "value": v} for n, v in rows],
        "stages": [{"name": n, "value": f"{s:.1f} s"} for n, s in final.stages],
        "json": portable(request),
    }


def portable(request: Request) -> str:
    """The request as JSON without this machine's paths: a person's files are named, not located."""
    import json

    values = request.to_dict()
    values.update({name: Path(path).name for name, path in request.media.items()})
    return json.dumps(values, ensure_ascii=False)
