"""Other doors to the same house: one typed API endpoint per mode, the same as MCP tools.

An endpoint's signature is made from the mode's fields, so a field added there appears here. It
streams ``(status, video)``: the status says where the job stands, the video comes with the last one.
Nothing else of the page is exposed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import gradio as gr
from gradio.data_classes import FileData
from gradio.utils import get_upload_folder

import cards
from errors import BadInput
from events import Failed, Finished
from fields import Field
from jobs import Progress, Studio
from modes import MODES, Mode
from request import Request

WAITING = 32  # jobs of one endpoint that may wait at once


def add(studio: Studio) -> None:
    """Declare every mode's endpoint in the current ``gr.Blocks``."""
    for mode in MODES.values():
        gr.api(endpoint(studio, mode), api_name=mode.key, concurrency_limit=WAITING)


def endpoint(studio: Studio, mode: Mode) -> Callable[..., Iterator[tuple[dict, Any]]]:
    """The generator function behind one endpoint, with the signature its mode's fields describe."""

    def call(*args: Any) -> Iterator[tuple[dict, Any]]:
        values = dict(zip(names, args, strict=True))
        try:
            request = Request(mode=mode.key, **located(mode, values))
        except BadInput as error:
            raise gr.Error(str(error), title="Bad input", print_exception=False) from None
        visit = studio.visits.of(
            None
        )  # a client may run several at once: each is a visit of its own
        bar = gr.Progress()
        for progress in studio.run(request, visit):
            if progress.final is None:
                status = said(progress)
                bar((progress.index, progress.count or None), desc=status["message"])
                yield status, None
            else:
                yield said(progress), outcome(progress.final)

    order = sorted(
        mode.fields, key=lambda spec: not spec.required
    )  # what has no default goes first
    names = [spec.name for spec in order]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = []
    for spec in order:
        default = inspect.Parameter.empty if spec.required else default_of(spec)
        parameters.append(
            inspect.Parameter(spec.name, kind, default=default, annotation=hint(spec))
        )
    returns = tuple[dict, FileData]
    call.__signature__ = inspect.Signature(parameters, return_annotation=returns)
    call.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": returns}
    call.__name__ = mode.key
    call.__doc__ = described(mode, order)
    return call


def hint(spec: Field) -> Any:
    """A field's type for the API: Literal for a choice, FileData for a file."""
    if spec.is_media:
        return FileData if spec.required else FileData | None
    if spec.kind == "choice":
        return Literal[spec.choices]
    plain = {"text": str, "integer": int, "number": float, "toggle": bool}[spec.kind]
    # A size that is left out is the preset's.
    return plain | None if spec.name in ("width", "height") else plain


def default_of(spec: Field) -> Any:
    return None if spec.is_media or spec.name in ("width", "height") else spec.default


def described(mode: Mode, order: list[Field]) -> str:
    """The docstring: its first line describes the tool, ``Args:`` the parameters."""
    lines = [f"{mode.summary} ({mode.title}, LTX-2.3.)", "", "Args:"]
    for spec in order:
        limits = ""
        if spec.kind in ("integer", "number"):
            limits = f" {spec.minimum:.10g} to {spec.maximum:.10g} {spec.unit}".rstrip() + "."
        lines.append(f"    {spec.name}: {spec.help or spec.label + '.'}{limits}")
    lines += ["", "Returns:", "    The status of the job, and the mp4 once it is done."]
    return "\n".join(lines)


def located(mode: Mode, values: dict[str, Any]) -> dict[str, Any]:
    """The values with uploads as paths; only files that came through Gradio's own upload.

    Raises:
        BadInput: a file is given by a path of this machine, or not as a file.
    """
    found = {}
    for name, value in values.items():
        if value is None:
            continue
        if mode.field(name).is_media:
            value = _uploaded(name, value)
        found[name] = value
    return found


def _uploaded(name: str, value: Any) -> str:
    path = value.get("path") if isinstance(value, dict) else getattr(value, "path", None)
    folder = Path(get_upload_folder()).resolve()
    if not isinstance(path, str) or folder not in Path(path).resolve().parents:
        raise BadInput(
            f"{name} is not an uploaded file", name, "Upload it first (handle_file in the client)."
        )
    return path


def said(progress: Progress) -> dict[str, Any]:
    """A job's status as plain values."""
    status = {
        "phase": progress.phase,
        "message": message(progress),
        "stage": progress.index,
        "stages": progress.count,
        "step": progress.step,
        "steps": progress.steps,
        "ahead": progress.ahead,
        "elapsed": round(progress.elapsed, 2),
        "seconds_left": progress.seconds_left,
        "notes": list(progress.notes),
    }
    if progress.phase == "done":
        status["seed"] = progress.request.seed
        status["seconds"] = round(progress.final.seconds, 2)
        status["request"] = cards.portable(progress.request)
    return status


def message(progress: Progress) -> str:
    """One sentence on where a job stands."""
    if progress.phase == "waiting":
        return f"Waiting: {progress.ahead} ahead" if progress.ahead else "Waiting"
    if progress.phase == "starting":
        return f"The engine is starting: {progress.stage}"
    if progress.phase == "download" and progress.download:
        return f"Fetching {progress.download.file}"
    if progress.phase == "running":
        step = f", step {progress.step} of {progress.steps}" if progress.steps > 1 else ""
        return (progress.stage or "Preparing") + step
    return "Done" if progress.phase == "done" else "Failed"


def outcome(final: Finished | Failed) -> dict[str, Any]:
    """The video as Gradio's file data.

    Raises:
        gr.Error: the job failed; its three parts are the message.
    """
    if isinstance(final, Failed):
        title = cards.TITLES.get(final.category, cards.TITLES["internal"])
        raise gr.Error(str(final), title=title, print_exception=False)
    return FileData(path=final.path, orig_name=Path(final.path).name).model_dump()
