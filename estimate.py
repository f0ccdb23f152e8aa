"""How long a run takes: work counted from the request, speed learned from this process's own runs.

Work is counted in units that do not depend on the machine (TFLOP of the transformer, megapixels
decoded). What a kind of machine is taken to need for it (:class:`Costs`) is corrected by every finished
run (:class:`Speeds`). Nothing is stored between sessions.
"""

from __future__ import annotations

import bisect
import itertools
import math
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


def forward_tflop(width: int, height: int, frames: int, square: float = SQUARE) -> float:
    """TFLOP of one model forward at that size."""
    count = tokens(width, height, frames)
    return LINEAR * count + square * count * count


def work(request: Request, square: float = SQUARE) -> dict[str, float]:
    """Units of work per stage: TFLOP where the transformer runs, megapixels or seconds elsewhere."""
    preset = MODES[request.mode].presets[request.preset]
    first, second = preset.forwards
    half = forward_tflop(request.width // 2, request.height // 2, request.frames, square)
    full = forward_tflop(request.width, request.height, request.frames, square)
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
        SOUND: 0.0 if request.audio else request.duration,  # a given sound is played as it is
        WRITE: pixels,
    }


@dataclass(frozen=True)
class Costs:
    """What a kind of machine is taken to need until it was measured. All in seconds.

    Attributes:
        unit: per unit of :func:`work`, for each stage.
        fixed: of a stage, whatever the size: starting a sampler, a decoder, a file.
        forward: of handing out one forward's operations.
        control: per megapixel of a source video whose edges, depth or pose are found.
        square: TFLOP per token squared; see :func:`forward_tflop`.
    """

    unit: dict[str, float]
    fixed: dict[str, float] = field(default_factory=dict)
    forward: float = 0.0
    control: float = 0.0
    square: float = SQUARE

    def seconds(self, request: Request) -> dict[str, float]:
        """Seconds of every stage, the models not yet loaded."""
        units = work(request, self.square)
        result = {
            name: self.fixed.get(name, 0.0) + one * self.unit[name] if one else 0.0
            for name, one in units.items()
        }
        preset = MODES[request.mode].presets[request.preset]
        for name, count in zip((FIRST, SECOND), preset.forwards, strict=True):
            result[name] += count * self.forward
        if request.video:
            result[PREPARE] += units[PICTURE] * preset.control_scale**2 * self.control
        return result


# 0.65 of 790 TFLOP/s for the transformer (H200, bf16), the rest assumed; a slower card is corrected
# by its first run.
CUDA = Costs(
    unit={
        LOAD: 10.0,
        PROMPT: 0.5,
        PREPARE: 0.2,
        FIRST: 0.002,
        UPSCALE: 0.05,
        SECOND: 0.002,
        PICTURE: 0.02,
        SOUND: 0.1,
        WRITE: 0.01,
    },
    fixed={FIRST: 0.2, SECOND: 0.2, PICTURE: 0.3, SOUND: 0.05, WRITE: 0.05},
    forward=0.01,
    control=0.3,
)
# Demo weights on two cores, measured (tools/check_duration.py --stages). Their transformer is so
# narrow that attention, which grows with the square, is most of it.
DEMO = Costs(
    unit={
        LOAD: 1.0,
        PROMPT: 0.19,
        PREPARE: 0.03,
        FIRST: 0.0015,
        UPSCALE: 0.06,
        SECOND: 0.0015,
        PICTURE: 0.115,
        SOUND: 0.06,
        WRITE: 0.095,
    },
    fixed={FIRST: 0.21, SECOND: 0.2, PICTURE: 0.3, SOUND: 0.06, WRITE: 0.05},
    forward=0.01,
    control=0.75,
    square=4.8e-5,
)

RECENT = 5  # finished runs that are remembered of every stage
NEAR = 1.15  # what differs by less is the same work
# Logarithm of the ratio of two amounts of work at which a run counts half. Fitted to 130 demo runs of
# all sizes, each estimated from those before it.
WIDTH = 0.2


@dataclass
class Speeds:
    """Seconds of each stage on this machine, corrected by finished runs. Thread-safe.

    ``costs`` are what is assumed of a stage until it was measured. Runs of the same mode are asked
    first: guides add tokens.
    """

    costs: Costs
    measured: set[str] = field(default_factory=set)
    _loads: list[float] = field(default_factory=list, repr=False)
    _seen: dict[tuple[str, str], list[tuple[float, float]]] = field(
        default_factory=dict, repr=False
    )
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def learn(
        self,
        request: Request,
        stages: Iterable[tuple[str, float]],
        sampling: Iterable[tuple[str, float]] = (),
        fresh: bool = False,
    ) -> None:
        """Take a finished run into account.

        The first run of all is slowed everywhere by what it reads from disk: only its ``sampling``
        counts.

        Args:
            stages: (stage, seconds) of those that ran; cached ones are not in it.
            sampling: (stage, seconds) of its steps alone; see :meth:`Clock.sampling`.
            fresh: it brought its models to the device, on the way: reading the prompt and before the
                samplers' first steps. That counts as loading, and not as theirs.
        """
        assumed = self.costs.seconds(request)
        took = dict(stages)
        steps = {name: self.costs.fixed.get(name, 0.0) + one for name, one in sampling}
        with self._lock:
            if not self.measured:
                took = steps
            elif fresh:
                prompt = predicted(self._runs(request.mode, PROMPT), assumed[PROMPT])
                load = took.pop(LOAD, 0.0) + max(0.0, took.pop(PROMPT, 0.0) - prompt)
                load += sum(max(0.0, took[name] - one) for name, one in steps.items())
                self._loads = [*self._loads, load][-RECENT:]
                took.update(steps)
            for name, one in took.items():
                if assumed.get(name):
                    self.measured.add(name)
                    for mode in (request.mode, ""):
                        remember(self._seen.setdefault((mode, name), []), assumed[name], one)

    def loading(self, assumed: float) -> float:
        """Seconds a fresh run needs on top of the others: the median, or ``assumed`` without any."""
        with self._lock:
            return sorted(self._loads)[len(self._loads) // 2] if self._loads else assumed

    def _runs(self, mode: str, stage: str) -> list[tuple[float, float]] | None:
        return self._seen.get((mode, stage)) or self._seen.get(("", stage))

    def seconds(self, request: Request, warm: bool) -> dict[str, float]:
        """Expected seconds of every stage; ``warm`` when the models are already loaded.

        A machine that samples slower than assumed is taken to do what was not measured slower, too.
        """
        assumed = self.costs.seconds(request)
        with self._lock:
            seen = {name: self._runs(request.mode, name) for name in assumed}
            result = {name: predicted(seen[name], one) for name, one in assumed.items()}
        slower = max(1.0, result[FIRST] / assumed[FIRST])
        result.update({name: slower * one for name, one in result.items() if not seen[name]})
        if warm:
            result[LOAD] = 0.0
        return result

    @property
    def known(self) -> bool:
        """Whether a run has been measured here, so that the figures mean something."""
        return FIRST in self.measured

    def knows(self, mode: str) -> bool:
        """Whether a whole run of that mode has been measured here, not only the first one's steps."""
        return (mode, WRITE) in self._seen


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

    Multiplied as in earlier runs: the median of measured / assumed, in which a run counts the more the
    nearer its own work was. So a stage's time need not grow as assumed, and one odd run changes
    nothing. Of two runs alike the shorter is believed: a hiccup only makes longer.

    Args:
        seen: (assumed, measured) seconds of earlier runs.
    """
    if not seen or assumed <= 0.0:
        return assumed
    shares = []
    for guess, took in seen:
        apart = math.log(guess / assumed) / WIDTH
        shares.append((took / guess, 1 / (1 + apart * apart)))
    shares.sort()
    passed = list(itertools.accumulate(weight for _, weight in shares))
    return assumed * shares[bisect.bisect_left(passed, passed[-1] / 2)][0]


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
        self._sampling: dict[str, float] = {}

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
        pace = (when - begun) / (step - first)
        self._left = (pace * (steps - step), when)
        self._sampling[self.current] = pace * steps

    def finish(self, when: float) -> None:
        """Close the current stage."""
        self._leave(when)
        self.current = None

    def stages(self) -> tuple[tuple[str, float], ...]:
        """(stage, seconds) of all that ran, in that order."""
        return tuple(self.entered.items())

    def sampling(self) -> tuple[tuple[str, float], ...]:
        """(stage, seconds) of all its steps at the pace between the first and the last.

        Without what comes before the first one ends: models that are moved, kernels that are chosen.
        """
        return tuple(self._sampling.items())

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
