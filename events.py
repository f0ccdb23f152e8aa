"""The events of a job: one union of small frozen dataclasses, whatever they come from.

Downloads, ComfyUI's executor, a ZeroGPU worker and failures all speak this language; the page and
the command line only render it. A job's stream ends with exactly one :class:`Finished` or
:class:`Failed`; a stream that just stops is a crash. Every event pickles to less than 4 KB, so that
it can cross ZeroGPU's process boundary (pictures travel as file paths).
"""

from __future__ import annotations

from dataclasses import dataclass

from errors import StudioError, scrub


@dataclass(frozen=True)
class Note:
    """One sentence for the person: a snapped value, a choice and its reason, a retry."""

    text: str


@dataclass(frozen=True)
class Download:
    """Progress of the files a graph needs. Bytes, bytes per second, seconds."""

    file: str
    done: int
    total: int
    speed: float
    seconds_left: float | None
    files_done: int = 0
    files_total: int = 0


@dataclass(frozen=True)
class Stage:
    """The job entered stage ``index`` (from 1) of ``count``; ``name`` is the mode's own word."""

    index: int
    count: int
    name: str
    seconds_left: float | None = None


@dataclass(frozen=True)
class Step:
    """Step ``step`` of ``steps`` inside the current stage. ``seconds_left`` is for the whole job."""

    step: int
    steps: int
    seconds_left: float | None = None


@dataclass(frozen=True)
class Preview:
    """A JPEG of what is being sampled, as a path on this machine."""

    path: str


@dataclass(frozen=True)
class Tick:
    """Nothing new; sent at least every 250 ms so that a stream can be closed promptly."""

    elapsed: float


@dataclass(frozen=True)
class Finished:
    """The job is done. ``path`` is the finished mp4; ``seconds`` what it took.

    ``stages`` are (name, seconds) in the order they ran, ``sampling`` those of the samplers' steps
    alone (:meth:`estimate.Clock.sampling`); ``executed`` counts the nodes that ran and ``cached``
    those answered from the executor's cache. ``fresh``: no earlier run had left its models loaded.
    """

    path: str
    seconds: float
    stages: tuple[tuple[str, float], ...] = ()
    executed: int = 0
    cached: int = 0
    sampling: tuple[tuple[str, float], ...] = ()
    fresh: bool = False


@dataclass(frozen=True)
class Failed:
    """The job ended without a video. See :mod:`errors` for the categories."""

    category: str
    what: str
    where: str = ""
    advice: str = ""
    detail: str = ""

    @classmethod
    def of(cls, error: StudioError) -> Failed:
        """The event that stands for an expected failure; the detail is cut to 2,500 characters."""
        return cls(
            error.category, error.what, error.where, error.advice, error.detail[-2500:]
        ).scrubbed()

    def scrubbed(self) -> Failed:
        """The same without secrets and home folders; see :func:`errors.scrub`."""
        texts = (scrub(t) for t in (self.what, self.where, self.advice, self.detail))
        return Failed(self.category, *texts)

    def error(self) -> StudioError:
        """The exception that stands for this event."""
        return StudioError(
            self.what, self.where, self.advice, category=self.category, detail=self.detail
        )

    def __str__(self) -> str:
        return str(self.error())


Event = Note | Download | Stage | Step | Preview | Tick | Finished | Failed
