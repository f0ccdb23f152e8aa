"""Show which model files are here, repair links to them, and fetch what is missing on request.

    python tools/refresh_models.py                             what is present, missing, how large
    python tools/refresh_models.py --fetch t2v --preset fast   get what that form needs
    python tools/refresh_models.py --fetch all --controls      everything, optional LoRAs included

Looking needs no network. Fetching goes on where an earlier attempt stopped.
"""

from __future__ import annotations

import argparse
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import bootstrap
import hub_cache
import models
import places
from downloads import size_text
from errors import StudioError
from events import Download, Note
from modes import MODES
from registry import ModelFile
from tools import _forms


def repair(found: dict[ModelFile, Path | None], finder: places.Finder) -> list[str]:
    """Lead every link below comfyui/models to a file that is there; returns what was done.

    A link whose target is gone and of which no other copy exists is removed: ComfyUI would list it.
    """
    done = []
    for file, path in found.items():
        at = places.target(file, finder.comfy_dir, finder.environ)
        dangling = at.is_symlink() and not at.exists()
        if path is not None and path != at:
            how = places.place(path, at)
            if how != "kept":
                done.append(f"{'repaired' if dangling else how}: {file.place} -> {path}")
        elif path is None and dangling:
            at.unlink()
            done.append(f"removed a link to nothing: {file.place}")
    return done


def show(found: dict[ModelFile, Path | None], weights: str, asked: dict[ModelFile, str]) -> None:
    """Print the table of modes and presets, then the files."""
    print(f"Weights: {weights}. Hugging Face cache: {hub_cache.cache_dir()}\n")
    print(f"{'mode':<10}{'preset':<10}{'files':>6}{'size':>10}  missing")
    for mode in MODES.values():
        for preset in mode.presets:
            files = _forms.default_files(mode.key, preset, weights)
            gone = [f for f in files if found[f] is None]
            text = f"{len(gone)} files, {size_text(_size(gone))}" if gone else "nothing"
            print(f"{mode.key:<10}{preset:<10}{len(files):>6}{size_text(_size(files)):>10}  {text}")
    print("\nFiles (LTX-2.0 LoRAs run on 2.3, but were not trained for it)")
    for file in sorted(found, key=lambda f: (f in asked, -f.size)):
        state = "here" if found[file] else "missing"
        about = "~" if file.approximate else ""
        base = f" [{file.base}]" if file.base != "-" else ""
        why = f", for {asked[file]}" if file in asked else ""
        print(f"  {state:<8}{about + size_text(file.size):>9}  {file.place}{base}{why}")
        if found[file]:
            print(f"{'':<21}{found[file]}")


def _size(files) -> int:
    return sum(file.size for file in files)


def fetch(files: list[ModelFile], comfy: Path) -> None:
    """Ensure the files, telling about it on stderr."""
    bar = sys.stderr.isatty()
    last = ""
    for event in models.ensure(files, comfy, cancel=threading.Event()):
        if isinstance(event, Note):
            print(("\n" if bar and last else "") + event.text, file=sys.stderr)
        elif isinstance(event, Download):
            share = int(100 * event.done / max(1, event.total))
            left = f", {event.seconds_left:.0f} s left" if event.seconds_left else ""
            line = (
                f"{share:3d} %  {size_text(event.done)} of {size_text(event.total)}, "
                f"{size_text(int(event.speed))}/s{left}  {event.file}"
            )
            if bar:
                print(f"\r\033[K{line[:118]}", end="", file=sys.stderr, flush=True)
            elif line[:3] != last[:3]:
                print(line, file=sys.stderr)
            last = line
    if bar and last:
        print(file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--weights", choices=("fp8", "bf16"), default="fp8")
    parser.add_argument("--fetch", metavar="MODE", choices=(*MODES, "all"), help="Get its files.")
    parser.add_argument("--preset", help="Only this preset's; default all.")
    parser.add_argument("--controls", action="store_true", help="Also what optional controls need.")
    parser.add_argument("--comfy", type=Path, default=None, help="ComfyUI's folder.")
    given = parser.parse_args(argv)
    presets = {preset for mode in MODES.values() for preset in mode.presets}
    if given.preset and given.preset not in presets:
        parser.error(f"--preset is one of {', '.join(sorted(presets))}")
    comfy = given.comfy or bootstrap.comfy_dir()

    asked: dict[ModelFile, str] = {}
    wanted: list[ModelFile] = []
    everything: dict[ModelFile, None] = {}
    for mode in MODES.values():
        fetched = given.fetch in (mode.key, "all")
        for preset in mode.presets:
            files = _forms.default_files(mode.key, preset, given.weights)
            everything.update(dict.fromkeys(files))
            if fetched and given.preset in (None, preset):
                wanted += files
        optional = _forms.control_files(mode.key, given.weights)
        asked = {**optional, **asked}
        if fetched and given.controls:
            wanted += optional
    asked = {file: why for file, why in asked.items() if file not in everything}
    everything.update(dict.fromkeys(asked))

    installed = (comfy / "nodes.py").is_file()
    try:
        if given.fetch and not installed:
            raise StudioError(
                f"There is no ComfyUI at {comfy}",
                "comfyui",
                "Run python3 tools/run.py once, or name its folder with --comfy.",
                category="setup",
            )
        if given.fetch:
            fetch(wanted, comfy)
        finder = models.finder(comfy)
        found = {file: finder.find(file) for file in everything}
        done = repair(found, finder) if installed else []
        show(found, given.weights, asked)
    except StudioError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. The next run goes on from here.", file=sys.stderr)
        return 1
    for path, why in dict.fromkeys(finder.damaged):
        print(f"Not used: {path} {why}.", file=sys.stderr)
    for line in done:
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
