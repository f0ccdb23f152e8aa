"""How much GPU time a run reserves on ZeroGPU, what that costs, and which settings would fit.

Everything counts in *seconds of the card it runs on*, by the clock. What :func:`Reservation.declared`
tells ``spaces.GPU`` differs by ZeroGPU's own factor, what the visitor pays by the card's price.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import estimate
from errors import BadInput, SetupError
from estimate import FIRST, LOAD, PICTURE, PREPARE, PROMPT, SECOND, SOUND, UPSCALE, WRITE
from fields import SIZE_MIN
from modes import MODES
from request import Request

SETTING = "LTX23_AIO_MAX_GPU_SECONDS"
MINIMUM = 15  # a hiccup of the disk must not cost a run; shorter calls are no longer served sooner
# A free account's whole day (Hugging Face's documentation, August 2026). No run may take more; the
# owner of a Space for PRO accounts can raise it. Hugging Face has limits of its own, undocumented.
MAXIMUM = 300

# ZeroGPU multiplies what is declared for `large` (spaces 0.51.3, configs.json, RTX PRO 6000), and
# charges `xlarge` twice (documentation, August 2026).
FACTOR = {"large": 1.5, "xlarge": 1.0}
PRICE = {"large": 1, "xlarge": 2}

# Of `large`, half an RTX PRO 6000 Blackwell. Nobody has measured LTX-2.3 on that card for this table:
# every figure is an assumption on the slow side, and the first finished runs of a process replace it
# (estimate.Speeds).
# Sampling: 4,000 TOPS of sparse FP4 (NVIDIA) are 500 TFLOP/s of dense bf16, half a card has 250, and
# 45 % of that is taken to be reached. The rest is scaled from what Fast takes on an H200.
LARGE = replace(
    estimate.CUDA,
    unit={
        LOAD: 0.0,  # LOADING below
        PROMPT: 1.0,
        PREPARE: 0.5,
        FIRST: 1 / 112,
        UPSCALE: 0.5,
        SECOND: 1 / 112,
        PICTURE: 0.06,
        SOUND: 0.2,
        WRITE: 0.03,
    },
)
ON_GPU = (PROMPT, FIRST, UPSCALE, SECOND, PICTURE, SOUND)  # twice as fast on the whole card

# Seconds until the weights are on the card in a new worker: read before (page cache), which the first
# such runs replace, or never. 39 and 70 GB; 46 GB took 7 to 15 s from the page cache (Lightricks'
# all-in-one file), and a Space's disk is taken to read 1 GB a second.
LOADING = {"demo": (0.05, 2.5), "fp8": (13.0, 39.0), "bf16": (22.0, 70.0)}
# Seconds to fork, to be let onto the card and to make a CUDA context.
STARTING = {"demo": 0.1, "fp8": 3.0, "bf16": 3.0}
# On top of what is expected: a time-out costs the whole run. The same run twice differs by a tenth and
# more, so that the first figure is the middle of what lies between 1 and 1.6 times too much; the
# second is for a mode of which no run was measured here.
MARGIN_MEASURED, MARGIN_ASSUMED = 1.28, 1.4


@dataclass(frozen=True)
class Reservation:
    """GPU time set aside for one run.

    Attributes:
        seconds: until the worker is ended, by the clock.
        size: ``large`` or ``xlarge``.
        factor: what ZeroGPU multiplies a declared duration by.
        needed: seconds wanted before they were clamped.
    """

    seconds: int
    size: str = "large"
    factor: float = 1.5
    needed: float = 0.0

    @property
    def declared(self) -> int:
        """What ``spaces.GPU`` is told; times the factor it is at least ``seconds``."""
        return declared(self.seconds, self.factor)

    @property
    def granted(self) -> int:
        """Seconds until ZeroGPU ends the worker: the declared ones times the factor."""
        return round(self.declared * self.factor)

    @property
    def quota(self) -> int:
        """Seconds of the visitor's daily quota that are reserved."""
        return self.granted * PRICE[self.size]

    @property
    def sentence(self) -> str:
        """For the form."""
        if self.size == "xlarge":
            how = f"{self.granted} s on the whole card, which counts twice"
        else:
            how = f"{self.declared} s declared, times {self.factor:g} on half a card"
        return f"Reserves about {self.quota} s of GPU quota ({how})."

    def doubled(self, most: int) -> Reservation | None:
        """Twice the time for a second attempt; None where the maximum makes it no longer."""
        seconds = min(2 * self.seconds, most)
        if seconds <= self.granted:
            return None
        return Reservation(seconds, self.size, self.factor, self.needed)


def declared(seconds: float, factor: float) -> int:
    """Whole seconds to declare so that at least ``seconds`` are granted."""
    return max(1, math.ceil(seconds / factor - 1e-9))


def maximum(environ: Mapping[str, str] = os.environ) -> int:
    """The most GPU seconds one run may reserve.

    Raises:
        SetupError: the setting is not a whole number of seconds, or below the minimum.
    """
    text = environ.get(SETTING, "").strip()
    if not text:
        return MAXIMUM
    if not text.isascii() or not text.isdigit() or not MINIMUM <= int(text) <= 3600:
        raise SetupError(
            f"{SETTING} is {text[:20]!r}", SETTING, f"Use whole seconds, {MINIMUM} to 3600."
        )
    return int(text)


def costs(weights: str, size: str) -> estimate.Costs:
    """What a run is taken to need on that card, until one was measured there."""
    if weights == "demo":
        return estimate.DEMO
    share = 0.5 if size == "xlarge" else 1.0
    unit = {name: one * (share if name in ON_GPU else 1.0) for name, one in LARGE.unit.items()}
    return replace(LARGE, unit=unit)


def expected(request: Request, weights: str, known: estimate.Speeds, warm: bool) -> float:
    """Seconds from the grant of a GPU to the video, in a new worker.

    Args:
        weights: ``demo``, ``fp8`` or ``bf16``.
        warm: whether the weights have been read since this machine started.
    """
    stages = known.seconds(request, warm=True)
    load = known.loading(LOADING[weights][0]) if warm else LOADING[weights][1]
    return STARTING[weights] + load + sum(stages.values())


def reserve(
    request: Request,
    weights: str,
    known: estimate.Speeds,
    warm: bool,
    *,
    size: str = "large",
    factor: float | None = None,
    most: int | None = None,
) -> Reservation:
    """The reservation of a run.

    Raises:
        BadInput: not even the expected time, without any margin, fits the maximum; the advice names
            the nearest settings that do.
        SetupError: see :func:`maximum`.
    """
    most = maximum() if most is None else most

    def needs(other: Request) -> float:
        return expected(other, weights, known, warm)

    wanted = needs(request)
    if wanted > most:
        raise BadInput(
            f"This needs about {wanted:.0f} s on the GPU, and a run may take {most} s here",
            "seconds",
            nearest(request, lambda other: needs(other) <= most),
        )
    needed = wanted * (MARGIN_MEASURED if known.knows(request.mode) else MARGIN_ASSUMED)
    seconds = min(most, max(MINIMUM, math.ceil(needed)))
    return Reservation(seconds, size, FACTOR[size] if factor is None else factor, needed)


def nearest(request: Request, fits: Callable[[Request], bool]) -> str:
    """A sentence with the smallest changes of one setting that fit, or of all of them together."""
    found = []
    for preset in reversed(_faster(request)):
        if fits(request.replace(preset=preset)):
            found.append(f"the {MODES[request.mode].presets[preset].title} preset")
            break
    size = _smaller(request, fits)
    if size is not None:
        found.append(f"{size.width}x{size.height}")
    clip = _shorter(request, fits)
    if clip is not None:
        found.append(f"{clip.seconds:g} s of video")
    if found:
        return f"Nearest that fits: {_or(found)}."
    for preset in _faster(request)[:1] or [request.preset]:
        fast = request.replace(preset=preset)
        both = _smaller(fast, fits) or _shorter(fast, fits) or _smallest(fast, fits)
        if both is not None:
            title = MODES[both.mode].presets[both.preset].title
            return f"Nearest that fits: {title}, {both.width}x{both.height}, {both.seconds:g} s."
    return f"Nothing fits: the owner of this Space has to raise {SETTING}."


def _faster(request: Request) -> list[str]:
    """Presets with less work than the request's, the fastest first."""
    names = list(MODES[request.mode].presets)
    return names[: names.index(request.preset)]


def _smaller(request: Request, fits: Callable[[Request], bool]) -> Request | None:
    """The largest size of the same shape that fits."""
    step = MODES[request.mode].size_step
    long, short = max(request.width, request.height), min(request.width, request.height)
    for side in range(long - step, SIZE_MIN - 1, -step):
        other = max(SIZE_MIN, round(side * short / long / step) * step)
        width, height = (side, other) if request.width >= request.height else (other, side)
        if other <= short and fits(smaller := request.replace(width=width, height=height)):
            return smaller
    return None


def _shorter(request: Request, fits: Callable[[Request], bool]) -> Request | None:
    """The longest clip that fits, in half seconds, at least one."""
    halves = range(math.ceil(request.seconds * 2) - 1, 1, -1)
    clips = (request.replace(seconds=half / 2) for half in halves)
    return next((clip for clip in clips if fits(clip)), None)


def _smallest(request: Request, fits: Callable[[Request], bool]) -> Request | None:
    """Smaller and shorter at once: the largest size at which two seconds fit."""
    clip = request.replace(seconds=min(request.seconds, 2.0))
    smaller = _smaller(clip, fits)
    return smaller and (_shorter(smaller.replace(seconds=request.seconds), fits) or smaller)


def _or(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]
