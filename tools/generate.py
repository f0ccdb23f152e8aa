"""Make one video from the command line.

Every control of every mode is a flag, built from the modes' own fields. On a terminal a progress bar
is drawn, elsewhere plain lines are printed, all on stderr; the last line on stdout is the video's
path, or one JSON object with ``--json``. Exit status: 0 done, 2 bad input, 1 the run failed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

REPO = Path(__file__).resolve().parents[1]
if str(REPO) not in sys.path:
    sys.path.insert(0, str(REPO))

from errors import BadInput, SetupError, StudioError  # noqa: E402
from events import Failed, Finished  # noqa: E402
from fields import Field  # noqa: E402
from modes import MODES  # noqa: E402
from request import Request  # noqa: E402

WEIGHTS = ("auto", "demo", "full")


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one sentence, without the usage text above it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def all_fields() -> dict[str, Field]:
    """Every field of any mode, by name; a field that modes share is taken from the first."""
    return {f.name: f for mode in reversed(MODES.values()) for f in reversed(mode.fields)}


def build_parser() -> Parser:
    """The command line, one flag per field plus those about the run itself."""
    parser = Parser(
        prog="generate.py",
        description="Make a video with sound. Modes: "
        + "; ".join(f"{m.key} ({m.summary.rstrip('.')})" for m in MODES.values()),
    )
    parser.add_argument("mode", nargs="?", metavar="MODE", help=", ".join(MODES))
    known = all_fields()
    for spec in sorted(known.values(), key=lambda f: f.advanced):
        has = [m.key for m in MODES.values() if m.field(spec.name)]
        where = "" if len(has) == len(MODES) else f" [{', '.join(has)}]"
        limits = f" ({spec.minimum:g} to {spec.maximum:g})" if spec.minimum is not None else ""
        text = (spec.help + limits + where).replace("%", "%%")
        if spec.name == "metadata":
            parser.add_argument(
                "--no-metadata", action="store_true", help="Leave the settings out of the mp4."
            )
        elif spec.kind == "toggle":
            parser.add_argument(
                spec.flag,
                nargs="?",
                const="on",
                metavar="on|off|STRENGTH",
                help=text,
                dest=spec.name,
            )
        else:
            shown = "|".join(spec.choices) if spec.choices else spec.kind.upper()
            parser.add_argument(spec.flag, metavar=shown, help=text, dest=spec.name)
    run = parser.add_argument_group("the run")
    run.add_argument(
        "--weights",
        choices=WEIGHTS,
        default="auto",
        help="full weights, the tiny demo ones (noise, any machine), or what fits this machine",
    )
    run.add_argument(
        "--request", metavar="FILE", help="replay a saved request, or the one inside an mp4"
    )
    run.add_argument(
        "-o", "--output", metavar="FILE", help="where the mp4 goes (outputs/ by default)"
    )
    run.add_argument("--json", action="store_true", help="print the result as one JSON object")
    run.add_argument(
        "--dry-run", action="store_true", help="print the graph that would run, and stop"
    )
    return parser


def request_from(args: argparse.Namespace) -> Request:
    """The request the flags describe, on top of a saved one if there is one.

    Raises:
        BadInput: a flag's value cannot be used.
    """
    values: dict[str, Any] = {}
    if args.request:
        import tags

        saved = tags.read_request(args.request)
        values = tags.with_found_files(saved, args.request).to_dict()
        if args.mode and args.mode != saved.mode:
            raise BadInput(
                f"The saved request is for {saved.mode}, not {args.mode}", "mode", "Leave MODE out."
            )
    elif not args.mode:
        raise BadInput("No mode is given", "mode", "Choose one of: " + ", ".join(MODES) + ".")
    values["mode"] = values.get("mode", args.mode)
    for name, spec in all_fields().items():
        given = getattr(args, name, None)
        if given is not None:
            values.update(_parsed(spec, given))
    if args.no_metadata:
        values["metadata"] = False
    return Request.from_dict(values)


def _parsed(spec: Field, text: str) -> dict[str, Any]:
    """A flag's text as the field's type; a toggle's number also sets its strength."""
    if spec.kind in ("integer", "number"):
        return {spec.name: _number(spec.name, text)}
    if spec.kind != "toggle":
        return {spec.name: text}
    word = text.strip().lower()
    if word in ("on", "true", "yes"):
        return {spec.name: True}
    if word in ("off", "false", "no", "none"):
        return {spec.name: False}
    strength = _number(spec.name, text)
    return {spec.name: strength != 0, f"{spec.name}_strength": strength}


def _number(name: str, text: str) -> float | int:
    try:
        value = float(text)
    except ValueError:
        raise BadInput(f"{name} must be a number, not {text[:40]!r}", name) from None
    return int(value) if value.is_integer() else value


def dry_run(request: Request, weights: str) -> str:
    """The patched graph as JSON; needs neither ComfyUI nor torch."""
    import engine

    variant = "demo" if weights == "demo" else "fp8"
    return json.dumps(engine.graph_for(request, variant), indent=2, ensure_ascii=False)


class Progress:
    """Renders events on stderr: a bar on a terminal, a line per change elsewhere."""

    def __init__(self, stream: Any = sys.stderr):
        self.stream, self.bar = stream, stream.isatty()
        self.stage, self.last = "", ""

    def show(self, event: Any) -> None:
        """Draw one event."""
        kind = type(event).__name__
        if kind == "Note":
            self.line(event.text)
        elif kind == "Stage":
            self.stage = f"[{event.index}/{event.count}] {event.name}"
            self.draw(self.stage + _left(event.seconds_left))
        elif kind == "Step" and self.stage:
            done = f" {event.step}/{event.steps}"
            self.draw(
                self.stage + done + _left(event.seconds_left), event.step / max(1, event.steps)
            )
        elif kind == "Download":
            gb = f"{event.done / 1e9:.2f} of {event.total / 1e9:.2f} GB"
            speed = f", {event.speed / 1e6:.0f} MB/s" if event.speed else ""
            self.draw(
                f"Fetching {event.file}: {gb}{speed}{_left(event.seconds_left)}",
                event.done / max(1, event.total),
            )

    def draw(self, text: str, fraction: float | None = None) -> None:
        """The current state: redrawn in place, or printed where it differs from the last line."""
        if self.bar:
            width = shutil.get_terminal_size().columns - 1
            cells = 24
            filled = round(cells * fraction) if fraction is not None else 0
            bar = "#" * filled + "-" * (cells - filled)
            self.stream.write("\r" + f"{bar} {text}"[:width].ljust(width))
            self.stream.flush()
        elif text != self.last:
            print(text, file=self.stream, flush=True)
        self.last = text

    def line(self, text: str) -> None:
        """A sentence of its own."""
        if self.bar:
            self.stream.write("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r")
        print(text, file=self.stream, flush=True)

    def close(self) -> None:
        """Leave the bar's line."""
        if self.bar and self.last:
            print(file=self.stream)


def _left(seconds: float | None) -> str:
    return f", {seconds:.0f} s left" if seconds is not None else ""


def generate(
    request: Request, weights: str, output: Path | None, progress: Progress
) -> Finished | Failed:
    """Run the request to its end; Ctrl-C interrupts it cleanly.

    Returns:
        the final event; a finished one's path is the output's.
    """
    import engine

    variant, reason = engine.choose_weights(weights)
    progress.line(reason)
    cancel = threading.Event()
    previous = signal.signal(signal.SIGINT, lambda *_: cancel.set())
    final: Finished | Failed | None = None
    try:
        folder = output.parent if output else REPO / "outputs"
        for event in engine.Engine(variant).run(request, folder, cancel):
            progress.show(event)
            if isinstance(event, (Finished, Failed)):
                final = event
    finally:
        signal.signal(signal.SIGINT, previous)
        progress.close()
    if isinstance(final, Finished) and output:
        Path(final.path).replace(output)
        final = Finished(str(output), final.seconds, final.stages, final.executed, final.cached)
    return final


def in_own_environment(argv: list[str]) -> int | None:
    """Where this Python lacks the packages, the exit status of the same command in ``.venv``.

    Returns:
        None when this Python has them.

    Raises:
        SetupError: there is no ``.venv`` yet.
    """
    if importlib.util.find_spec("av") and importlib.util.find_spec("torch"):
        return None
    python = REPO / ".venv" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not python.exists() or Path(sys.prefix).resolve() == python.parents[1].resolve():
        raise SetupError(
            "The studio is not set up in this folder",
            ".venv",
            "Run python3 tools/run.py once; it installs everything here.",
        )
    return subprocess.run([str(python), str(Path(__file__).resolve()), *argv]).returncode


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if hasattr(sys.stdout, "reconfigure"):  # a file's name need not be valid text
        sys.stdout.reconfigure(errors="surrogateescape")
    args = build_parser().parse_args(argv)
    try:
        if args.request and (status := in_own_environment(argv)) is not None:
            return status
        request = request_from(args)
        output = _output(args.output)
        if not args.dry_run and (status := in_own_environment(argv)) is not None:
            return status
        if args.dry_run:
            print(dry_run(request, args.weights))
            return 0
        import logs
        import media

        media.plan(request)
        logs.setup()
        final = generate(request, args.weights, output, Progress())
    except StudioError as error:
        return _fail(Failed.of(error), args.json)
    if isinstance(final, Failed):
        return _fail(final, args.json)
    path = str(Path(final.path).resolve())
    if args.json:
        result = {"ok": True, "path": path, "seconds": round(final.seconds, 3)}
        result["stages"] = [[name, round(seconds, 3)] for name, seconds in final.stages]
        result |= {"executed": final.executed, "cached": final.cached, "request": request.to_dict()}
        print(json.dumps(result, ensure_ascii=False))
    else:
        print(path)
    return 0


def _output(text: str | None) -> Path | None:
    if text is None:
        return None
    path = Path(text).expanduser()
    if path.is_dir():
        raise BadInput(f"{text[:80]!r} is a folder", "output", "Name a file: -o video.mp4")
    if path.suffix.lower() != ".mp4":
        raise BadInput(f"{path.name[:80]!r} does not end in .mp4", "output", "Only mp4 is written.")
    return path


def _fail(failed: Failed, as_json: bool) -> int:
    if as_json:
        error = {"category": failed.category, "what": failed.what, "where": failed.where}
        print(json.dumps({"ok": False, **error, "advice": failed.advice}, ensure_ascii=False))
    print(f"generate.py: {failed}", file=sys.stderr)
    return 2 if failed.category == "bad_input" else 1


if __name__ == "__main__":
    sys.exit(main())
