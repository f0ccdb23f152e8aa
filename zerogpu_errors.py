"""What ZeroGPU's refusals mean, in words, and what to do now.

The ``spaces`` package raises ``gr.Error`` with a title and a message, ``RuntimeError`` with a message,
or whatever its HTTP client raises. They are told apart by the title first (``spaces`` 0.51.3: the
titles of ``spaces/zero/client.py`` and ``wrappers.py``); messages are only searched for the figures
and for what one title has several of. Nothing here imports ``spaces`` or Gradio.
"""

from __future__ import annotations

import errno
import re

from errors import scrub
from events import Failed

WORKER, ABORTED = "ZeroGPU worker error", "GPU task aborted"
SIGN_IN = "Open the Space on huggingface.co, sign in and try again."
SOON = "Try again in a few minutes."
LATER = "Try again in a few minutes; shorter runs are served first."

_QUOTA = re.compile(r"\((\d+)(?:\.\d+)? ?s requested vs\.? (-?\d+)(?:\.\d+)? ?s left\)")
_WAIT = re.compile(r"[Tt]ry again in (?:(\d+) days?, )?(\d+):(\d\d):(\d\d)")
_NUMBER = re.compile(r"\((\d+)(?:\.\d+)? ?s\)")


class Gone(Exception):
    """The worker's process has ended, and the package has not said so."""

    title, message = WORKER, ABORTED


def aborted(error: BaseException) -> bool:
    """Whether the worker ended without an answer: time-out, kill, segfault and exit look the same."""
    return title_of(error) == WORKER and ABORTED in message_of(error)


def title_of(error: BaseException) -> str:
    """The title of a ``gr.Error``; empty for anything else."""
    return str(getattr(error, "title", "") or "")


def message_of(error: BaseException) -> str:
    """The message; ``gr.Error`` puts quotes around its own text."""
    return str(getattr(error, "message", "") or error)


def explain(error: BaseException) -> Failed:
    """The event that stands for whatever a call of the decorated function raised.

    A worker that was lost is told apart from a time-out by the caller, who knows the time: see
    :func:`timed_out` and :func:`lost`.
    """
    title, message = title_of(error), message_of(error)
    if aborted(error):
        return lost(0.0)
    explained = _BY_TITLE.get(title, _untitled)(message, error)
    return Failed(*explained, detail=_detail(title, message, error)).scrubbed()


def timed_out(seconds: float, retry: str = "") -> Failed:
    """The run reached its deadline of ``seconds``; ``retry`` says why there is no second attempt."""
    return Failed(
        "gpu_timeout",
        f"The run did not end within the {seconds:.0f} s of GPU time reserved for it",
        "",
        f"{retry} Choose the Fast preset, a smaller size or a shorter clip.".strip(),
    )


def lost(seconds: float) -> Failed:
    """The worker ended ``seconds`` into a run, and not because its time was over."""
    after = f" after {seconds:.0f} s" if seconds >= 1 else ""
    return Failed(
        "gpu_lost",
        f"The GPU worker stopped{after} without a word",
        "",
        "Try again. If it stays, memory may have run out: choose a smaller size or a shorter clip.",
    )


def never_started(seconds: float) -> Failed:
    """The GPU was granted, but the worker died before it said anything."""
    return Failed(
        "gpu_lost",
        f"The GPU worker did not start; it was ended after {seconds:.0f} s",
        "",
        "Try again: a new worker will be used.",
    )


def silent() -> Failed:
    """The run's stream ended properly, but without the one final event."""
    return Failed(
        "gpu_lost",
        "The GPU worker ended the run without saying how it went",
        "",
        "Try again; if it stays, choose a smaller size.",
    )


def _detail(title: str, message: str, error: BaseException) -> str:
    return f"{type(error).__name__}: {title}: {message}"[:1500]


def _wait(message: str) -> str:
    found = _WAIT.search(message)
    if not found:
        return ""
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    hours += 24 * days
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes + (seconds > 0)} min" if minutes else f"{seconds} s"


def _quota(message: str, error: BaseException) -> tuple[str, str, str, str]:
    if "No GPU was available" in message:
        return "gpu_busy", "No GPU became free within a minute", "", f"{LATER} {SIGN_IN}"
    if "reached its GPU limit" in message:
        what = "You are not signed in, and what this Space may use without an account is used up"
        return "gpu_session", what, "", SIGN_IN
    wait = _wait(message)
    when = f"Try again in {wait}" if wait else "Try again later"
    if "runs limit" in message:
        return "gpu_quota", "You have used up your number of ZeroGPU runs", "", f"{when}."
    found = _QUOTA.search(message)
    if not found:
        return "gpu_quota", "Your ZeroGPU quota is used up", "", f"{when}."
    asked, left = int(found[1]), max(0, int(found[2]))
    what = f"Your ZeroGPU quota has {left} s left, and this run reserves {asked} s"
    smaller = ", or choose settings that reserve less" if left >= 15 else ""
    return "gpu_quota", what, "", f"{when}, when it is full again{smaller}."


def _illegal(message: str, error: BaseException) -> tuple[str, str, str, str]:
    found = _NUMBER.search(message)
    asked = f"{found[1]} s" if found else "so much time"
    what = f"ZeroGPU does not grant you {asked} in one call"
    advice = (
        "Choose the Fast preset, a smaller size or a shorter clip; a PRO account is granted more. "
        "Waiting does not help."
    )
    return "gpu_quota", what, "", advice


def _busy(message: str, error: BaseException) -> tuple[str, str, str, str]:
    return "gpu_busy", "No GPU became free within a minute", "", LATER


def _pending(message: str, error: BaseException) -> tuple[str, str, str, str]:
    what = "Your other ZeroGPU runs have reserved all your credits"
    return "gpu_quota", what, "", "Wait until one of them has ended, then try again."


def _client(message: str, error: BaseException) -> tuple[str, str, str, str]:
    if "No GPU was available" in message:
        return "gpu_busy", "No GPU is free right now", "", LATER
    if "Expired" in message:
        what = "Your visit has been open for too long: Hugging Face no longer accepts its token"
        return (
            "gpu_session",
            what,
            "",
            "Reload the page and try again; your settings can be reused.",
        )
    what = "Hugging Face could not tell whose visit this is"
    return "gpu_session", what, "", f"Reload the page. {SIGN_IN}"


def _worker(message: str, error: BaseException) -> tuple[str, str, str, str]:
    what = f"The GPU worker failed: {_plain(message, 120)}"
    return "gpu_lost", what, "", "Try again; if it stays, report it."


def _untitled(message: str, error: BaseException) -> tuple[str, str, str, str]:
    """``RuntimeError`` of the package, its HTTP client's errors, what starting a process raises, and
    titles of other versions of the package, whose messages are looked at instead."""
    if "Connection closed by visitor" in message:
        return "interrupted", "Cancelled", "", ""
    if type(error).__module__.partition(".")[0] in ("httpx", "httpcore"):
        what = f"ZeroGPU's scheduler does not answer ({type(error).__name__})"
        return "gpu_busy", what, "", SOON
    if "ZeroGPU API" in message or "end of stream" in message or "queue disconnect" in message:
        what = f"ZeroGPU's scheduler refused the call: {_plain(message)}"
        return "gpu_busy", what, "", SOON
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        what = "The Space has no memory left to start a GPU worker"
        return "out_of_memory", what, "", "Wait until other runs have ended, then try again."
    if any(kind.__module__.startswith("gradio") for kind in type(error).__mro__):
        said = f"{title_of(error)} {message}".lower()
        for words, explained in _BY_WORDS:
            if any(word in said for word in words):
                return explained(message, error)
        if "zerogpu" in said:
            return "gpu_busy", f"ZeroGPU refused the call: {_plain(message)}", "", SOON
    if _asking(error):
        what = f"ZeroGPU's scheduler answered in a way that is not understood ({_plain(message)})"
        return "gpu_busy", what, "", f"{SOON[:-1]}; if it stays, report it."
    what = f"The GPU call failed: {type(error).__name__}: {scrub(message)[:200]}"
    return "internal", what, "", "Try again; if it stays, report it."


def _plain(message: str, length: int = 160) -> str:
    """A message as one short line."""
    return " ".join(message.strip("'\" ").split())[:length].rstrip(". ")


def _asking(error: BaseException) -> bool:
    """Whether an exception was raised while the package spoke with the scheduler."""
    frame = error.__traceback__
    while frame is not None:
        place = frame.tb_frame.f_code.co_filename.replace("\\", "/")
        if place.endswith(("spaces/zero/api.py", "spaces/zero/client.py")):
            return True
        frame = frame.tb_next
    return False


_BY_TITLE = {
    "ZeroGPU quota exceeded": _quota,
    "ZeroGPU illegal duration": _illegal,
    "ZeroGPU queue timeout": _busy,
    "ZeroGPU pending credits exceeded": _pending,
    "ZeroGPU client error": _client,
    WORKER: _worker,
}
# The same for other titles, the more telling words first.
_BY_WORDS = (
    (("illegal duration", "larger than the maximum"), _illegal),
    (("pending credits", "too many zerogpu credits"), _pending),
    (("no gpu was available", "no gpu is available"), _busy),
    (("quota", "runs limit", "gpu limit"), _quota),
    (("expired", "proxy token"), _client),
    (("worker", "aborted"), _worker),
)
