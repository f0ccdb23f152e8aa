"""Measure the studio on demo weights: ``python tools/bench.py [--only SECTION] [--out FILE.json]``.

Sections: boot (to a ready engine, against ComfyUI's main.py), runs (what is added to the nodes' own
time, and the same graphs on main.py's server), memory (50 runs over all modes), files (encoding and
a 500 MB upload), page (to a page that can be used; weight; a changed field's answer). Every ratio is
between neighbours of one run, in alternating order; figures are medians. One table goes to stdout,
everything measured into the JSON file.

``--gpu`` measures full-size random weights instead, on a machine with a card: see bench_gpu.py.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]
if str(REPO) not in sys.path:
    sys.path.insert(0, str(REPO))

Row = tuple[str, str, str, str]  # what, figure, beside it, target and whether it is met
SECTIONS = ("boot", "runs", "memory", "files", "page")
TARGETS = {
    "overhead": 0.050,  # seconds added to the nodes' own time
    "identical": 0.100,  # seconds for an identical request
    "growth": 0.01,  # of resident memory over the last 40 of 50 runs
    "page": 3.0,  # seconds from the process's start to a page that can be used
    "noise": 1.05,  # a ratio up to here is the machine's noise
}


def machine() -> dict[str, Any]:
    """What was measured on: processor, cores, memory, versions, load before the start."""
    import psutil

    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), name)
    return {
        "processor": name,
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "load": [round(value, 2) for value in psutil.getloadavg()],
        "date": time.strftime("%Y-%m-%d"),
    }


def small(mode: str, folder: Path):
    """A small request of a mode, so that what is not sampling shows: 25 frames of 256x192 px."""
    sys.path.append(str(REPO / "tests"))
    import samples

    return samples.request_for(mode, folder, prompt="a red fox in the snow")


# ------------------------------------------------------------------ sections


def run_boot(rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """See :func:`bench_parts.boot`."""
    import bootstrap
    from tools import bench_parts

    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        return bench_parts.boot(bootstrap.comfy_dir(), Path(folder), rounds, say)


def ready_engine():
    """The engine with demo weights, booted."""
    from engine import Engine

    engine = Engine("demo")
    engine.boot(lambda message: None)
    return engine


def run_runs(rounds: int, say: Callable[[str], None], server: bool = True) -> dict[str, Any]:
    """See :func:`bench_runs.measure`."""
    from tools import bench_comfy, bench_runs

    engine = ready_engine()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, contextlib.ExitStack() as stack:
        theirs = (
            stack.enter_context(bench_comfy.Server(engine.comfy, Path(folder))) if server else None
        )
        return bench_runs.measure(engine, theirs, small, rounds, say)


def run_memory(rounds: int, say: Callable[[str], None], runs: int = 50) -> dict[str, Any]:
    """See :func:`bench_runs.memory`; ``rounds`` does not matter here."""
    from tools import bench_runs

    return bench_runs.memory(ready_engine(), small, runs, min(10, runs // 2), say)


def run_files(rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Encoding and staging; see :mod:`bench_parts`."""
    from tools import bench_parts

    ready_engine()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        say("encoding")
        encoded = bench_parts.frames_per_second(Path(folder), rounds)
        say("staging")
        return {"encode": encoded, "stage": bench_parts.staging(Path(folder), rounds)}


def run_page(rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """See :mod:`bench_page`."""
    from tools import bench_page

    return bench_page.measure(rounds, say)


# ------------------------------------------------------------------ the table


def judged(figure: float, limit: float, words: str) -> str:
    """A target with its verdict."""
    return f"{words}: {'met' if figure <= limit else 'MISSED'}"


def rows(results: dict[str, Any]) -> list[Row]:
    """The table's rows, of whatever sections were measured."""
    makers = {
        "boot": _boot_rows,
        "runs": _run_rows,
        "memory": _memory_rows,
        "files": _file_rows,
        "page": _page_rows,
    }
    return [row for name, make in makers.items() if name in results for row in make(results[name])]


def _boot_rows(r: dict[str, Any]) -> list[Row]:
    limit = judged(r["ratio"], TARGETS["noise"], "no slower")
    beside = f"main.py {r['theirs']:.1f} s, {r['ratio']:.2f}x"
    return [("process start to engine ready", f"{r['ours']:.1f} s", beside, limit)]


def _run_rows(r: dict[str, Any]) -> list[Row]:
    found = []
    for figures in r.values():
        ms = f"{figures['overhead'] * 1e3:.0f} ms around the nodes"
        target = judged(figures["overhead"], TARGETS["overhead"], "< 50 ms")
        if not figures["executed"]:
            ms = f"{figures['ours'] * 1e3:.0f} ms in all"
            target = judged(figures["ours"], TARGETS["identical"], "< 100 ms")
        beside = f"{figures['executed']} nodes"
        if "theirs" in figures:
            beside += (
                f"; ComfyUI {figures['their_overhead'] * 1e3:.0f} ms, "
                f"{figures['their_executed']} nodes; whole run {figures['ratio']:.2f}x"
            )
        found.append((figures["what"], ms, beside, target))
    return found


def _memory_rows(r: dict[str, Any]) -> list[Row]:
    target = judged(r["growth"], TARGETS["growth"], "< 1 %")
    after = f"{r['settled'] / 1e6:.0f} to {r['last'] / 1e6:.0f} MB"
    return [
        (f"growth after settling, {r['runs']} runs", f"{r['growth']:+.2%}", after, target),
        ("peak memory", f"{r['peak'] / 1e6:.0f} MB", "", ""),
    ]


def _file_rows(r: dict[str, Any]) -> list[Row]:
    e, s = r["encode"], r["stage"]
    return [
        (
            "encoding 768x512",
            f"{e['ours_fps']:.0f} frames/s",
            f"FFmpeg {e['theirs_fps']:.0f}, {e['ratio']:.2f}x the time",
            "",
        ),
        (
            f"staging a {s['megabytes']:.0f} MB video",
            f"{s['first']:.2f} s, again {s['again'] * 1e3:.1f} ms",
            f"copying it {s['copy']:.2f} s; written {s['written_megabytes']:.0f} MB",
            "no second copy: "
            + ("met" if s["written_megabytes"] < s["megabytes"] / 2 else "MISSED"),
        ),
    ]


def _page_rows(r: dict[str, Any]) -> list[Row]:
    target = judged(r["usable"], TARGETS["page"], "< 3 s")
    return [
        (
            "process start to a page that can be used",
            f"{r['usable']:.1f} s",
            f"Gradio's smallest page: {r['smallest']:.1f} s",
            target,
        ),
        ("process start to engine ready, page open", f"{r['ready']:.1f} s", "", ""),
        ("a changed field's answer", f"{r['answer'] * 1e3:.0f} ms", "", ""),
        ("page weight at 1280 px", f"{r['bytes'] / 1e6:.2f} MB", f"{r['requests']} requests", ""),
    ]


def table(found: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| what | figure | beside it | target |", "|---|---|---|---|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in found])


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if everything asked for was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=SECTIONS, metavar="SECTION")
    parser.add_argument("--rounds", type=int, default=5, help="of which medians are taken")
    parser.add_argument("--runs", type=int, default=50, help="runs of the memory section")
    parser.add_argument("--no-server", action="store_true", help="without ComfyUI's main.py")
    parser.add_argument("--gpu", action="store_true", help="full-size random weights on a card")
    parser.add_argument("--out", type=Path, default=Path("bench.json"), metavar="FILE")
    options, rest = parser.parse_known_args(arguments)
    if options.gpu:
        from tools import bench_gpu

        return bench_gpu.main(rest, options.out)
    if rest:
        parser.error(f"unknown: {' '.join(rest)}")
    logging.disable(logging.WARNING)

    def say(message: str) -> None:
        print(message, file=sys.stderr, flush=True)

    about, results = machine(), {}
    work = {
        "boot": lambda: run_boot(options.rounds, say),
        "runs": lambda: run_runs(options.rounds, say, not options.no_server),
        "memory": lambda: run_memory(options.rounds, say, options.runs),
        "files": lambda: run_files(options.rounds, say),
        "page": lambda: run_page(options.rounds, say),
    }
    for name in options.only or SECTIONS:
        say(f"{name} ...")
        results[name] = work[name]()
    options.out.write_text(json.dumps({"machine": about, **results}, indent=1), encoding="utf-8")
    print(table(rows(results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
