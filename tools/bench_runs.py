"""Runs on demo weights: what the studio adds to its nodes' own time, and against ComfyUI's server."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import backend
import engine as engines
from events import Failed, Finished
from modes import MODES
from presets import PRESETS
from request import Request
from tools.bench_comfy import Answer, Server

SCENARIOS = {
    "cold": "first run, models unloaded",
    "seed": "another seed",
    "word": "one word of the prompt",
    "strength": "only the strength in stage 2",
    "switch": "another mode",
    "back": "back again, another seed",
    "identical": "an identical request",
}


@dataclass
class Ours:
    """One run through the engine, in seconds.

    Attributes:
        seconds: from the call to the finished file. ``nodes``: inside the nodes themselves.
        executor: inside ComfyUI's executor, nodes included.
        executed: nodes that ran.
    """

    seconds: float
    nodes: float
    executor: float
    executed: int

    @property
    def overhead(self) -> float:
        """What is not a node's own time."""
        return self.seconds - self.nodes

    @property
    def around(self) -> float:
        """What is neither a node's nor ComfyUI's executor's."""
        return self.seconds - self.executor


@dataclass
class NodeClock:
    """Adds up the time inside nodes and inside the executor."""

    nodes: float = 0.0
    executor: float = 0.0
    slowest: dict[str, float] = field(default_factory=dict)


@contextmanager
def node_clock() -> Iterator[NodeClock]:
    """Time every node the executor calls, where it calls it; needs the booted engine."""
    import execution

    clock, call = NodeClock(), execution.get_output_data
    executor = backend.HOST.executor
    execute = executor.execute

    async def timed(prompt_id, unique_id, obj, *args, **options):
        begun = time.perf_counter()
        try:
            return await call(prompt_id, unique_id, obj, *args, **options)
        finally:
            spent = time.perf_counter() - begun
            clock.nodes += spent
            name = type(obj).__name__
            clock.slowest[name] = clock.slowest.get(name, 0.0) + spent

    def timed_execute(*args, **options):
        begun = time.perf_counter()
        try:
            return execute(*args, **options)
        finally:
            clock.executor += time.perf_counter() - begun

    execution.get_output_data, executor.execute = timed, timed_execute
    try:
        yield clock
    finally:
        execution.get_output_data = call
        del executor.execute


def ours(engine: engines.Engine, request: Request, out_dir: Path) -> Ours:
    """Run a request through the engine and time it.

    Raises:
        RuntimeError: it failed.
    """
    with node_clock() as clock:
        begun = time.perf_counter()
        for event in engine.run(request, out_dir):
            final = event
        seconds = time.perf_counter() - begun
    if not isinstance(final, Finished):
        raise RuntimeError(f"the bench's run failed: {final if isinstance(final, Failed) else ''}")
    return Ours(seconds, clock.nodes, clock.executor, final.executed)


def scenario_requests(base: Request, other: Request, turn: int) -> dict[str, Request]:
    """The requests of one round, in order; ``turn`` makes them differ from every other round's."""
    base = base.replace(seed=1000 * turn, prompt=f"{base.prompt} number {turn}")
    worded = base.replace(prompt=base.prompt.replace("red", "grey"))
    back = base.replace(seed=1000 * turn + 2)
    return {
        "cold": base,
        "seed": base.replace(seed=1000 * turn + 1),
        "word": worded,
        "strength": worded,  # run within other_strength()
        "switch": other.replace(seed=1000 * turn, prompt=base.prompt),
        "back": back,
        "identical": back,
    }


@contextmanager
def other_strength(strength: float = 0.4) -> Iterator[None]:
    """The Fast preset with another strength of its LoRA in stage 2; no control changes only that."""
    fast = PRESETS["fast"]
    PRESETS["fast"] = replace(fast, distilled_2=strength)
    try:
        yield
    finally:
        PRESETS["fast"] = fast


def alternating(turn: int, sides: list[str]) -> list[str]:
    """The order in which the sides take their turn: every other round the other way round."""
    return sides if turn % 2 == 0 else sides[::-1]


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Median of the rounds' own ratios: noise that lasts longer than a round cancels out."""
    return median(a / b for a, b in zip(ours, theirs, strict=True))


def measure(
    engine: engines.Engine,
    server: Server | None,
    make: Callable[[str, Path], Request],
    rounds: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """All scenarios, ``rounds`` times, against the server where there is one.

    Returns:
        scenario -> figures in seconds: medians, the ratio, and every single measurement.
    """
    taken: dict[str, dict[str, list]] = {name: {"ours": [], "theirs": []} for name in SCENARIOS}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        base, other = make("t2v", Path(folder)), make("i2v", Path(folder))
        for turn in range(rounds):
            requests = scenario_requests(base, other, turn + 1)
            for number, (name, request) in enumerate(requests.items()):
                for side in alternating(turn + number, ["ours", "theirs"]):
                    with other_strength() if name == "strength" else nullcontext():
                        if side == "ours":
                            run = _run_ours(engine, request, Path(folder) / "out", name == "cold")
                        elif server is not None:
                            run = _run_theirs(server, request, name == "cold")
                        else:
                            continue
                    taken[name][side].append(run)
            say(f"round {turn + 1} of {rounds}")
    return {name: _figures(name, *pair.values()) for name, pair in taken.items()}


def _run_ours(engine: engines.Engine, request: Request, out_dir: Path, cold: bool) -> Ours:
    if cold:
        engine.free()
    return ours(engine, request, out_dir)


def _run_theirs(server: Server, request: Request, cold: bool) -> Answer:
    if cold:
        server.free()
    answer = server.run(engines.graph_for(request, "demo"))
    if answer.failed:
        raise RuntimeError(f"ComfyUI's server: {answer.failed}")
    return answer


def _figures(name: str, mine: list[Ours], theirs: list) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "what": SCENARIOS[name],
        "ours": median(run.seconds for run in mine),
        "overhead": median(run.overhead for run in mine),
        "around": median(run.around for run in mine),
        "executed": mine[-1].executed,
        "all_ours": [round(run.seconds, 4) for run in mine],
        "all_overheads": [round(run.overhead, 4) for run in mine],
    }
    if theirs:
        figures["theirs"] = median(run.seconds for run in theirs)
        figures["their_overhead"] = median(run.overhead for run in theirs)
        figures["ratio"] = ratio([r.seconds for r in mine], [r.seconds for r in theirs])
        figures["their_executed"] = theirs[-1].executed
        figures["all_theirs"] = [round(run.seconds, 4) for run in theirs]
        figures["all_their_overheads"] = [round(run.overhead, 4) for run in theirs]
    return figures


def memory(
    engine: engines.Engine,
    make: Callable[[str, Path], Request],
    runs: int,
    settle: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Resident memory over ``runs`` runs through all modes; growth after the first ``settle``.

    Every run has a seed and a prompt of its own, so nothing is answered from the cache.
    """
    import psutil

    process, resident = psutil.Process(), []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for number, mode in zip(range(runs), itertools.cycle(MODES), strict=False):
            request = make(mode, Path(folder))
            request = request.replace(seed=number, prompt=f"{request.prompt} {number}")
            ours(engine, request, Path(folder) / "out")
            resident.append(process.memory_info().rss)
            if number % 10 == 9:
                say(f"run {number + 1} of {runs}: {resident[-1] / 1e6:.0f} MB")
    return memory_figures(resident, settle, peak(process))


def peak(process: Any) -> int:
    """The process's highest resident memory so far, in bytes; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return int(getattr(process.memory_info(), "peak_wset", 0))
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def memory_figures(resident: list[int], settle: int, highest: int) -> dict[str, Any]:
    """Growth between the first and the last six of the runs after ``settle``, as a share.

    Six, one of each mode: a single run's memory depends on its mode.
    """
    after = resident[settle:]
    window = min(len(MODES), len(after))
    first, last = median(after[:window]), median(after[-window:])
    return {
        "runs": len(resident),
        "peak": highest,
        "settled": first,
        "last": last,
        "growth": last / first - 1.0,
        "all": [round(value / 1e6, 1) for value in resident],
    }
