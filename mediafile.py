"""Opening files that people give: what is it, and can it be used?

Uploads are untrusted. They are opened with PIL or FFmpeg (PyAV) only, as the kind they are meant to
be, and refused with a sentence where that fails.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import BadInput

MIN_SIDE = 64  # pixels; smaller images hold nothing that survives the half-size stage
MAX_PIXELS = 50_000_000  # decoded to float32 inside ComfyUI: 600 MB
# What FFmpeg may take a file for; playlists and scripts (hls, concat, ...) can name other files.
CONTAINERS = frozenset(
    [
        "mov",
        "mp4",
        "m4a",
        "3gp",
        "3g2",
        "mj2",
        "matroska",
        "webm",
        "avi",
        "wav",
        "w64",
        "mp3",
        "flac",
        "ogg",
        "aac",
        "aiff",
        "au",
        "caf",
        "asf",
        "flv",
        "mpeg",
        "mpegts",
        "mpegvideo",
        "amr",
        "ac3",
        "eac3",
        "opus",
        "gif",
        "h264",
        "hevc",
        "ivf",
        "rm",
        "dv",
        "vob",
        "nut",
    ]
)


@dataclass(frozen=True)
class MediaInfo:
    """What a file holds. Sizes in pixels as shown (rotation applied), lengths in seconds."""

    kind: str
    width: int = 0
    height: int = 0
    seconds: float = 0.0
    fps: float = 0.0
    sample_rate: int = 0
    channels: int = 0
    has_audio: bool = False


def probe(path: str | os.PathLike, kind: str, name: str = "") -> MediaInfo:
    """What the file holds, opened as ``kind`` (image, audio or video).

    Args:
        path: the file.
        kind: what it is meant to be.
        name: the request's field, for the error.

    Raises:
        BadInput: it is not there, is empty, or cannot be used as that kind.
    """
    name = name or kind
    path = Path(path)
    shown = path.name[:80]
    if not path.is_file():
        raise BadInput(f"{name}: there is no file {shown!r}", name, "Check the path.")
    if path.stat().st_size == 0:
        raise BadInput(f"{name}: {shown!r} is empty", name, "Choose another file.")
    return _probe_image(path, name) if kind == "image" else _probe_av(path, kind, name)


def _probe_image(path: Path, name: str) -> MediaInfo:
    with open_image(path, name) as image:
        width, height = image.size
        if image.getexif().get(0x0112, 1) >= 5:  # EXIF orientations 5 to 8 lie on their side
            width, height = height, width
    if width * height > MAX_PIXELS:
        raise BadInput(
            f"{name}: {width}x{height} is more than {MAX_PIXELS // 10**6} megapixels",
            name,
            "Scale it down first.",
        )
    if min(width, height) < MIN_SIDE:
        raise BadInput(
            f"{name}: {width}x{height} is too small",
            name,
            f"Choose an image of at least {MIN_SIDE} px a side.",
        )
    return MediaInfo("image", width, height)


@contextmanager
def open_image(path: Path, name: str) -> Iterator[Any]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            yield image
    except BadInput:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise BadInput(
            f"{name}: {path.name[:80]!r} is not an image that can be read",
            name,
            "Choose a PNG, JPEG or WebP file.",
            detail=repr(error),
        ) from None


@contextmanager
def open_av(path: Path, kind: str, name: str) -> Iterator[Any]:
    import av

    try:
        with av.open(str(path), options={"protocol_whitelist": "file"}) as container:
            if not set(container.format.name.split(",")) & CONTAINERS:
                raise BadInput(
                    f"{name}: {path.name[:80]!r} ({container.format.name}) is not {what(kind)}",
                    name,
                    "Choose another file.",
                )
            yield container
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise BadInput(
            f"{name}: {path.name[:80]!r} is not {what(kind)} that can be read",
            name,
            "Choose a WAV, MP3, FLAC or M4A file."
            if kind == "audio"
            else "Choose an MP4, MOV or WebM file.",
            detail=repr(error),
        ) from None


def what(kind: str) -> str:
    return {"audio": "an audio file", "video": "a video file", "image": "an image"}[kind]


def _probe_av(path: Path, kind: str, name: str) -> MediaInfo:
    with open_av(path, kind, name) as container:
        streams = container.streams.audio if kind == "audio" else container.streams.video
        if not streams:
            raise BadInput(
                f"{name}: {path.name[:80]!r} has no {'sound' if kind == 'audio' else 'picture'}",
                name,
                f"Choose {what(kind)}.",
            )
        stream = streams[0]
        seconds = float(container.duration or 0) / 1_000_000
        if stream.duration and stream.time_base:
            seconds = float(stream.duration * stream.time_base)
        sound = container.streams.audio[0] if container.streams.audio else None
        rate, channels = (sound.rate or 0, sound.channels or 0) if sound else (0, 0)
        if kind == "audio":
            if not any(True for _ in container.decode(stream)):
                raise BadInput(
                    f"{name}: {path.name[:80]!r} holds no sound", name, "Choose another file."
                )
            return MediaInfo("audio", 0, 0, seconds, 0.0, rate, channels, True)
        frame = next(container.decode(stream), None)
        if frame is None or min(frame.width, frame.height) < MIN_SIDE:
            size = f"{frame.width}x{frame.height}" if frame else "no picture"
            raise BadInput(
                f"{name}: {path.name[:80]!r} is too small ({size})",
                name,
                f"Choose a video of at least {MIN_SIDE} px a side.",
            )
        width, height = frame.width, frame.height
        if round(frame.rotation / 90) % 2:
            width, height = height, width
        fps = float(stream.average_rate or 0)
        return MediaInfo("video", width, height, seconds, fps, rate, channels, sound is not None)


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A temporary path beside ``target`` that replaces it only when all went well."""
    handle, part = tempfile.mkstemp(prefix=".part-", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    try:
        yield Path(part)
        os.chmod(part, 0o644)
        os.replace(part, target)
    finally:
        Path(part).unlink(missing_ok=True)
