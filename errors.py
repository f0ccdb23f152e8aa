"""What can go wrong, in three parts a person can act on: what happened, where, what to do.

Every failure the studio expects is a :class:`StudioError`. Its text is the message; a traceback is
never part of it. Anything else that escapes is a defect of ours and is shown as one.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

CATEGORIES = (
    "bad_input",  # the request or a file in it; nothing was started
    "setup",  # ComfyUI, a pack, Python packages
    "weights",  # a model file is missing, refused, damaged, or does not fit the disk
    "node",  # a node of the graph raised
    "out_of_memory",
    "interrupted",  # a person pressed cancel, or Ctrl-C
    "gpu_quota",  # ZeroGPU refused: quota
    "gpu_busy",  # ZeroGPU refused: no GPU free in time
    "gpu_timeout",  # ZeroGPU ended the run at its deadline
    "gpu_lost",  # ZeroGPU's worker died
    "gpu_session",  # ZeroGPU: expired or signed-out visitor
    "internal",  # a defect of ours
)


class StudioError(Exception):
    """A failure with its three parts.

    Args:
        what: one sentence, what happened.
        where: the input, file, node or repository it happened to; may be empty.
        advice: one sentence, what to do now; may be empty.
        category: one of :data:`CATEGORIES`.
        detail: a traceback or log excerpt, for whoever asks; never part of the message.
    """

    category = "internal"

    def __init__(
        self,
        what: str,
        where: str = "",
        advice: str = "",
        *,
        category: str | None = None,
        detail: str = "",
    ):
        self.what, self.where, self.advice, self.detail = what, where, advice, detail
        if category is not None:
            self.category = category
        super().__init__(str(self))

    def __str__(self) -> str:
        where = f" ({self.where})" if self.where and self.where not in self.what else ""
        what = self.what.rstrip(".") + where + "."
        return f"{what} {self.advice}".strip()

    def __reduce__(self):
        return _rebuild, (
            type(self),
            self.what,
            self.where,
            self.advice,
            self.category,
            self.detail,
        )


class BadInput(StudioError):
    """A request or a file that cannot be used; raised before any work is done.

    ``where`` is the name of the request's field.
    """

    category = "bad_input"


class SetupError(StudioError):
    """ComfyUI, a pack or a Python package is not as it has to be."""

    category = "setup"


class WeightsError(StudioError):
    """A model file cannot be had or cannot be used."""

    category = "weights"


# Names of environment variables whose values are nobody else's business.
SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|CREDENTIAL", re.I)
_SECRETS = (
    (re.compile(r"\bhf_[A-Za-z0-9]{16,}"), "hf_***"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), r"\1 ***"),
    (re.compile(r"(://)[^/\s:@]+:[^/\s@]+@"), r"\1***@"),
    (
        re.compile(
            r"(?i)([?&](?:[\w-]*(?:token|signature|key|credential|secret)[\w-]*)=)[^&\s\"']+"
        ),
        r"\1***",
    ),
)
_HOMES = re.compile(r"(?<![\w.~-])(?:/home/[^/\s\"']+|/Users/[^/\s\"']+|/root)(?=[/\s\"':,;)]|$)")
_WINDOWS_HOMES = re.compile(r"(?i)\b[a-z]:\\+users\\+[^\\\s\"']+")
_STUDIO = str(Path(__file__).resolve().parent)


def scrub(text: str) -> str:
    """The text without what nobody else should read: secrets, and where people's folders lie.

    The studio's own folder becomes ``studio``, a home folder ``~``; tokens, passwords in addresses
    and the values of environment variables named like secrets become ``***``.
    """
    if not text:
        return text
    for name, value in os.environ.items():
        if len(value) >= 8 and SECRET_NAME.search(name) and not value.startswith(("/", "~")):
            text = text.replace(value, "***")
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    text = text.replace(_STUDIO + os.sep, "studio" + os.sep).replace(_STUDIO, "studio")
    home = str(Path.home())
    if len(home) > 1:
        text = re.sub(r"(?<![\w.~-])" + re.escape(home) + r"(?![\w.-])", "~", text)
    return _WINDOWS_HOMES.sub("~", _HOMES.sub("~", text))


def _rebuild(kind, what, where, advice, category, detail):
    """Unpickle a StudioError: exceptions cross ZeroGPU's process boundary by pickle."""
    return kind(what, where, advice, category=category, detail=detail)
