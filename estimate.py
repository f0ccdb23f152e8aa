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
    PROMPT: 0.3,
    PREPARE: 0.1,
    FIRST: 0.02,
    UPSCALE: 0.2,
    SECOND: 0.02,
    PICTURE: 0.1,
    SOUND: 0.1,
    WRITE: 0.03,
}


@dataclass
class Speeds:
    """Seconds per unit of each stage on this machine, corrected by finished runs. Thread-safe."""

    per_unit: dict[str, float]
    measured: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def learn(self, request: Request, stages: Iterable[tuple[str, float]]) -> None:
        """Take a finished run's (stage, seconds) into account; cached stages are not in it."""
        units = work(request)
        with self._lock:
            for name, seconds in stages:
                if units.get(name):
                    speed = seconds / units[name]
                    if name in self.measured and name != LOAD:
                        speed = 0.5 * speed + 0.5 * self.per_unit[name]
                    self.per_unit[name] = speed
                    self.measured.add(name)

    def seconds(self, request: Request, warm: bool) -> dict[str, float]:
        """Expected seconds of every stage; ``warm`` when the models are already loaded."""
        with self._lock:
            result = {name: units * self.per_unit[name] for name, units in work(request).items()}
        if warm:
            result[LOAD] = 0.0
        return result

    @property
    def known(self) -> bool:
        """Whether a run has been measured here, so that the figures mean something."""
        return FIRST in self.measured


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
