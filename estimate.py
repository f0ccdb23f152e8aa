"""How long a run takes: work counted from the request, speed learned from this process's own runs.

Work is counted in units that do not depend on the machine (TFLOP of the transformer, megapixels
decoded); seconds per unit start from a table and are corrected by every finished run. Nothing is
stored between sessions.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from modes import MODES, STAGES
from request import Request

# TFLOP of one forward of the 22 B transformer over T tokens: fitted to the dimensions' own figures
# (1,536 tokens: 48; 6,144: 199; 14,080: 537; 32,640: 1,714), within 5 % of each.
LINEAR, SQUARE = 0.0302, 6.84e-7

STAGE_NAMES = tuple(name for name, _ in STAGES)
LOAD, PROMPT, PREPARE, FIRST, UPSCALE, SECOND, PICTURE, SOUND, WRITE = STAGE_NAMES


def tokens(width: int, height: int, frames: int) -> int:
    """Video latent tokens: one per 32x32 pixels and 8 frames (plus the first)."""
    return (width // 32) * (height // 32) * ((frames - 1) // 8 + 1)


def forward_tflop(width: int, height: int, frames: int) -> float:
    """TFLOP of one model forward at that size."""
    count = tokens(width, height, frames)
    return LINEAR * count + SQUARE * count * count


def work(request: Request) -> dict[str, float]:
    """Units of work per stage: TFLOP where the transformer runs, megapixels or seconds elsewhere."""
    preset = MODES[request.mode].presets[request.preset]
    first, second = preset.forwards
    half = forward_tflop(request.width // 2, request.height // 2, request.frames)
    full = forward_tflop(request.width, request.height, request.frames)
    pixels = request.width * request.height * request.frames / 1e6
    files = len(request.media)
    return {
        LOAD: 1.0,
        PROMPT: 2.0,
        PREPARE: 1.0
        + files * request.width * request.height / 1e6
        + (pixels if request.video else 0),
        FIRST: first * half,
        UPSCALE: pixels / 32 + 0.2 * files,
        SECOND: second * full,
        PICTURE: pixels,
        SOUND: request.duration,
        WRITE: pixels,
    }


# Seconds per unit before anything was measured here. CUDA: 0.65 of 790 TFLOP/s for the transformer
# (H200, bf16), the rest assumed; a slower card is corrected by its first run. CPU: demo weights on
# two cores, measured. They only order the stages against each other until a run has finished.
SPEED_CUDA = {
    LOAD: 10.0,
    PROMPT: 0.5,
    PREPARE: 0.2,
    FIRST: 0.002,
    UPSCALE: 0.05,
    SECOND: 0.002,
    PICTURE: 0.02,
    SOUND: 0.1,
    WRITE: 0.01,
}
SPEED_DEMO = {
    LOAD: 1.0,
    PROMPT: 0.4,
    PREPARE: 0.05,
    FIRST: 0.0017,
    UPSCALE: 0.1,
    SECOND: 0.004,
    PICTURE: 0.08,
    SOUND: 0.12,
    WRITE: 0.1,
}
# Seconds that do not depend on the size: of handing out one forward's work, of starting a sampler, a
# decoder, a file. Demo weights on two cores, measured (tools/check_duration.py); assumed for a card.
FORWARD = 0.011
FIXED = {FIRST: 0.21, SECOND: 0.2, PICTURE: 0.35, SOUND: 0.05, WRITE: 0.05}

RECENT = 5  # finished runs that are remembered of every stage
NEAR = 1.15  # what differs by less is the same work


@dataclass
class Speeds:
    """Seconds of each stage on this machine, corrected by finished runs. Thread-safe.

    ``per_unit`` is what is assumed. A stage that was measured takes its assumed time, multiplied as
    in the runs most like it: one odd run among them changes nothing, and two sizes tell how much of
    the time depends on the size at all. Runs of the same mode count first: guides add tokens.
    """

    per_unit: dict[str, float]
    measured: set[str] = field(default_factory=set)
    _seen: dict[tuple[str, str], list[tuple[float, float]]] = field(
        default_factory=dict, repr=False
    )
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def learn(self, request: Request, stages: Iterable[tuple[str, float]]) -> None:
        """Take a finished run's (stage, seconds) into account; cached stages are not in it.

        Of the first one only the sampling counts: the rest is slowed by what is loaded on the way.
        """
        assumed = self._assumed(request)
        with self._lock:
            first = not self.measured
            for name, seconds in stages:
                if assumed.get(name) and (name in (FIRST, SECOND) or not first):
                    self.measured.add(name)
                    for mode in (request.mode, ""):
                        remember(self._seen.setdefault((mode, name), []), assumed[name], seconds)

    def seconds(self, request: Request, warm: bool) -> dict[str, float]:
        """Expected seconds of every stage; ``warm`` when the models are already loaded."""
        assumed = self._assumed(request)
        with self._lock:
            result = {
                name: predicted(
                    self._seen.get((request.mode, name)) or self._seen.get(("", name)), one
                )
                for name, one in assumed.items()
            }
        if warm:
            result[LOAD] = 0.0
        return result

    def _assumed(self, request: Request) -> dict[str, float]:
        first, second = MODES[request.mode].presets[request.preset].forwards
        fixed = dict(FIXED)
        fixed[FIRST] += first * FORWARD
        fixed[SECOND] += second * FORWARD
        units = work(request).items()
        return {name: fixed.get(name, 0.0) + one * self.per_unit[name] for name, one in units}

    @property
    def known(self) -> bool:
        """Whether a run has been measured here, so that the figures mean something."""
        return FIRST in self.measured

    def knows(self, mode: str) -> bool:
        """Whether a run of that mode has been measured here."""
        return (mode, FIRST) in self._seen


def remember(seen: list[tuple[float, float]], assumed: float, took: float) -> None:
    """Append a measured run; of many alike, and of very many, the oldest is forgotten."""
    seen.append((assumed, took))
    alike = [pair for pair in seen if near(pair[0], assumed)]
    if len(alike) > RECENT:
        seen.remove(alike[0])
    del seen[: -4 * RECENT]


def near(one: float, other: float) -> bool:
    """Whether two amounts of work are about the same."""
    return one <= other * NEAR and other <= one * NEAR


def predicted(seen: list[tuple[float, float]] | None, assumed: float) -> float:
    """Seconds of a stage that is assumed to take ``assumed``.

    Args:
        seen: (assumed, measured) seconds of earlier runs, the oldest first.
    """
    if not seen:
        return assumed
    if alike := [pair for pair in seen if near(pair[0], assumed)]:
        return assumed * _middle(took / guess for guess, took in alike)
    groups: list[list[tuple[float, float]]] = []
    for pair in sorted(seen):
        if groups and near(groups[-1][0][0], pair[0]):
            groups[-1].append(pair)
        else:
            groups.append([pair])
    points = [(_middle(g for g, _ in group), _middle(t for _, t in group)) for group in groups]
    # Between the two sizes around this one, or beyond the two nearest, on a straight line.
    points.sort(key=lambda point: abs(point[0] - assumed))
    below = [p for p in points if p[0] < assumed][:1]
    above = [p for p in points if p[0] > assumed][:1]
    pair = below + above if below and above else points[:2]
    shares = [took / guess for guess, took in pair]
    if len(pair) < 2:
        return assumed * shares[0]
    (x, low), (y, high) = sorted(pair)
    line = low + (high - low) / (y - x) * (assumed - x)
    # Two points close together, and noise, make any line.
    return min(max(line, assumed * min(shares)), assumed * max(shares))


def _middle(values: Iterable[float]) -> float:
    """The median; of two the smaller, as a first run is slowed by what is loaded on the way."""
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2]


class Clock:
    """Seconds left of one running job.

    The expectation for the stages to come is scaled by how this run compares with it so far; the
    current stage's own steps, once two are done, replace its expectation. Moments are
    ``time.monotonic()`` seconds.
    """

    def __init__(self, expected: dict[str, float], known: bool):
        self.expected, self.known = expected, known
        self.entered: dict[str, float] = {}  # seconds spent in each stage so far
        self.current: str | None = None
        self._since = 0.0
        self._first_step: tuple[float, int] | None = None
        self._left: tuple[float, float] | None = None  # seconds, and when that was said

    def enter(self, stage: str, when: float) -> None:
        """A stage begins or goes on; the one before it rests."""
        self._leave(when)
        self.current, self._since = stage, when
        self.entered.setdefault(stage, 0.0)
        self._first_step = self._left = None

    def _leave(self, when: float) -> None:
        if self.current is not None:
            self.entered[self.current] += when - self._since

    def step(self, step: int, steps: int, when: float) -> None:
        """The sampler finished ``step`` of ``steps``."""
        if self._first_step is None or step <= self._first_step[1]:
            self._first_step = (when, step)
            return
        begun, first = self._first_step
        self._left = ((when - begun) / (step - first) * (steps - step), when)

    def finish(self, when: float) -> tuple[tuple[str, float], ...]:
        """Close the current stage; (stage, seconds) of all that ran."""
        self._leave(when)
        self.current = None
        return tuple(self.entered.items())

    def seconds_left(self) -> float | None:
        """Expected seconds to the end; None while nothing is known about this machine."""
        if self.current is None or not self.known:
            return None
        now = time.monotonic()
        if self._left is not None:
            here = max(0.0, self._left[0] - (now - self._left[1]))
        else:
            spent = self.entered[self.current] + now - self._since
            here = max(0.0, self.expected.get(self.current, 0.0) * self._pace() - spent)
        later = [name for name in self.expected if name not in self.entered]
        return here + self._pace() * sum(self.expected[name] for name in later)

    def _pace(self) -> float:
        """How much slower than expected this run has been, from its finished sampling stages."""
        done = [n for n in (FIRST, SECOND) if n in self.entered and n != self.current]
        expected = sum(self.expected.get(n, 0.0) for n in done)
        return sum(self.entered[n] for n in done) / expected if expected > 0 else 1.0
