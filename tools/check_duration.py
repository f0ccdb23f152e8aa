"""Hold what a run reserves on ZeroGPU against what it took: ``python tools/check_duration.py``.

Starts the studio as a Space with demo weights, the real ``spaces`` package and the test suite's
scheduler on loopback, makes videos of several sizes and presets, and prints for each the estimate
(before it is rounded up to the least that is ever reserved), the seconds from the grant of the GPU to
its release as the scheduler saw them, and their ratio. Exit status 0 when every ratio lies between 1
and 1.6; the first run has nothing to go by, and may be estimated higher. On a machine with other work
the figures mean little: the load is printed with them.

What it cannot show: a real card. ``duration.LARGE`` is assumed, until a run was measured there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPO), str(REPO / "tests")]

import bootstrap  # noqa: E402
from modes import MODES  # noqa: E402
from request import Request  # noqa: E402

LEAST, MOST = 1.0, 1.6
RUNS = (  # preset, width, height, seconds
    ("fast", 256, 192, 1.0),
    ("fast", 256, 192, 1.0),
    ("fast", 384, 256, 2.0),
    ("fast", 384, 256, 2.0),
    ("balanced", 256, 192, 1.0),
    ("balanced", 384, 256, 2.0),
    ("quality", 256, 192, 1.0),
    ("fast", 512, 320, 3.0),
    ("fast", 256, 192, 2.0),
    ("balanced", 512, 320, 3.0),
)


def measure(app, scheduler, request: Request, out: Path) -> tuple[float, float, str, str]:
    """Run once: (estimated, measured) seconds, the error's words or nothing, and the stages'
    estimated and measured seconds as a line."""
    from zero_app import Fake, token

    said = json.loads(app.ask("reserved", request.to_json()))
    if "refused" in said:
        return 0.0, 0.0, said["refused"], ""
    before = len(scheduler.spans)
    visitor = token(user="check", exp=2_000_000_000)
    stream = app.stream("make", request.to_json(), str(out), "check", False, visitor=visitor)
    final = Fake(stream).end(600)
    words = "" if final["kind"] == "Finished" else final["what"]
    took = dict(final.get("stages", ()))
    stages = {name: (said["stages"].get(name, 0.0), took.get(name, 0.0)) for name in said["stages"]}
    line = ", ".join(f"{name} {one:.2f}/{other:.2f}" for name, (one, other) in stages.items())
    return said["needed"], sum(scheduler.spans[before:]), words, line


def main(argv: list[str] | None = None) -> int:
    """Print the table; 0 when every ratio is within the bounds, the first one above the lower."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--mode", default="t2v", choices=tuple(MODES))
    parser.add_argument("--rounds", type=int, default=1, help="how often the list is run")
    parser.add_argument("--new-workers", action="store_true", help="a new worker for every run")
    parser.add_argument("--stages", action="store_true", help="estimated/measured of every stage")
    given = parser.parse_args(argv)
    import samples
    from zero_app import App
    from zero_scheduler import Scheduler

    place = {"LTX23_AIO_COMFY_DIR": str(bootstrap.comfy_dir()), "SPACE_ID": "somebody/studio"}
    bad = 0
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, demo weights, {given.mode}")
    print(f"{'preset':10}{'size':>10}{'clip':>7}{'estimate':>10}{'measured':>10}{'ratio':>7}")
    with tempfile.TemporaryDirectory() as name, Scheduler() as scheduler:
        folder = Path(name)
        scheduler.keep_warm = not given.new_workers
        with App(scheduler.url, folder / "space.log", "--comfy", **place) as app:
            for number, (preset, width, height, seconds) in enumerate(RUNS * given.rounds):
                size = {"width": width, "height": height, "seconds": seconds}
                about = {"preset": preset, "seed": 500 + number, "prompt": f"scene {number}"}
                request = samples.request_for(given.mode, folder, **size, **about)
                needed, took, words, stages = measure(app, scheduler, request, folder / "out")
                ratio = needed / took if took else 0.0
                fits = not words and ratio >= LEAST and (not number or ratio <= MOST)
                bad += not fits
                row = f"{preset:10}{f'{width}x{height}':>10}{seconds:>5.0f} s"
                row += f"{needed:>8.2f} s{took:>8.2f} s{ratio:>7.2f}"
                note = words or ("" if fits else "OUTSIDE") or ("" if number else "the first run")
                print(f"{row}  {note} (load {os.getloadavg()[0]:.1f})", flush=True)
                if given.stages:
                    print(f"    {stages}", flush=True)
    print("All within the bounds." if not bad else f"{bad} outside {LEAST:g} to {MOST:g}.")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
