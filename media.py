"""A request's files on their way into ComfyUI's input folder.

Each is copied, normalised (see :mod:`convert`), under a name of our own: the hash of its content and
of what was done to it. So two people's ``image.png`` never meet, and an identical request finds
identical inputs.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from convert import VAE_BLOCK, VAE_RATE, fit_image, write_sound, write_video
from errors import BadInput, StudioError
from mediafile import MediaInfo, probe, whole
from modes import MODES
from request import Request

__all__ = ["MediaInfo", "Staged", "fit_image", "plan", "probe", "stage"]

MIN_AUDIO = 0.1  # seconds
STAGED_NAME = re.compile(r"studio_[0-9a-f]{32}\.(png|wav)")


@dataclass(frozen=True)
class Staged:
    """A request's files inside ComfyUI's input folder.

    ``names``: field -> file name; a source video's sound is under ``audio``.
    ``notes``: sentences about what was done that a person should know.
    """

    names: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def plan(request: Request) -> Staged:
    """Check a request's files and name them as :func:`stage` will, without writing anything.

    Raises:
        BadInput: a file cannot be used.
    """
    names, notes = {}, list(request.notes)
    for name, path in request.media.items():
        kind = MODES[request.mode].field(name).kind
        info = probe(path, kind, name)
        if kind == "audio":
            left = info.seconds - (request.audio_start or 0.0)
            if left < MIN_AUDIO:
                raise BadInput(
                    f"audio: only {max(left, 0):.2f} s of sound are left after audio_start {request.audio_start:g} s"
                    if request.audio_start
                    else f"audio: {info.seconds:.2f} s is too short",
                    "audio",
                    f"Choose a recording of at least {MIN_AUDIO} s, or start earlier.",
                )
            if left < request.duration - 0.05:
                notes.append(
                    f"The sound ends after {left:.2f} s; silence follows to {request.duration:.2f} s."
                )
        if kind == "video" and info.seconds and info.seconds < request.duration - 0.05:
            notes.append(f"The source ends after {info.seconds:.2f} s; its last frame is held.")
        if info.hdr:
            notes.append(
                "The source is HDR; its colours are taken as ordinary ones and look paler."
            )
        names[name] = _staged_name(request, name, path, kind)
        if kind == "video" and info.has_audio:
            names["audio"] = _staged_name(request, "audio", path, "audio")
    return Staged(names, tuple(notes))


def _staged_name(request: Request, name: str, path: str, kind: str) -> str:
    if STAGED_NAME.fullmatch(Path(path).name) and _fits(request, path, kind):
        return Path(path).name  # a replay that found the copy made for it
    try:
        state = os.stat(path)
        content = _content(str(path), state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    except OSError as error:
        raise BadInput(
            f"{name}: {Path(path).name[:80]!r} cannot be read: {error.strerror}",
            name,
            "Choose another file.",
        ) from None
    digest = hashlib.sha256(content)
    if kind == "audio":
        made = ("audio-1", request.frames, request.fps, request.audio_start or 0.0)
    elif kind == "image":
        made = ("image-1", request.width, request.height)
    else:
        made = ("video-1", request.width, request.height, request.frames, request.fps)
    digest.update(repr(made).encode())
    suffix = {"audio": "wav", "image": "png", "video": "mp4"}[kind]
    return f"studio_{digest.hexdigest()[:32]}.{suffix}"


@lru_cache(maxsize=256)  # a pure function of what the file was when it was looked at
def _content(path: str, size: int, mtime: int, ctime: int) -> bytes:
    """The sha256 of a file. Large videos are named at every run, and once more for their sound."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.digest()


def _fits(request: Request, path: str, kind: str) -> bool:
    """Whether an already staged file is exactly what this request needs."""
    info = probe(path, kind)
    if kind == "image":
        return (info.width, info.height) == (request.width, request.height)
    return (
        not request.audio_start and 0 <= info.seconds - request.duration < 2 * VAE_BLOCK / VAE_RATE
    )


def stage(request: Request, input_dir: Path, staged: Staged | None = None) -> Staged:
    """Write a request's files into ``input_dir``, normalised; files already there are kept.

    ``staged`` is what :func:`plan` said of this request, where it was asked already: naming reads
    every file whole.

    Raises:
        BadInput: a file cannot be used.
        StudioError: the folder cannot be written.
    """
    staged = staged or plan(request)
    sources = {name: request.media.get(name) or request.media.get("video") for name in staged.names}
    try:
        input_dir.mkdir(parents=True, exist_ok=True)
        for name, target in staged.names.items():
            if (input_dir / target).exists():
                os.utime(input_dir / target)  # in use: the oldest are the first to be cleared away
                continue
            with whole(input_dir / target) as part:
                source = Path(sources[name])
                if target.endswith(".png"):
                    fit_image(source, request.width, request.height, name).save(
                        part, "PNG", compress_level=3
                    )
                elif target.endswith(".wav"):
                    write_sound(source, part, request, from_video=name not in request.media)
                else:
                    write_video(source, part, request)
    except OSError as error:
        raise StudioError(
            f"The input folder cannot be written: {error.strerror or error}",
            str(input_dir.name),
            "Make room on the disk or correct the folder's rights.",
            category="setup",
        ) from None
    return staged
