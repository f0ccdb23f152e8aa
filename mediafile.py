"""Opening files that people give: what is it, and can it be used?

Uploads are untrusted. They are opened with PIL or FFmpeg (PyAV) only, as the kind they are meant to
be, and refused with a sentence where that fails.
"""

from __future__ import annotations

import errno
import os
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from errors import BadInput

MIN_SIDE = 64  # pixels; smaller images hold nothing that survives the half-size stage
MAX_PIXELS = 50_000_000  # decoded to float32 inside ComfyUI: 600 MB
# Pictures are opened as these and nothing else: EPS would start Ghostscript, WMF and others are
# parsers that nobody's photograph needs.
IMAGE_FORMATS = (
    "PNG",
    "JPEG",
    "WEBP",
    "AVIF",
    "GIF",
    "BMP",
    "TIFF",
    "JPEG2000",
    "PPM",
    "TGA",
)
# What PIL's and FFmpeg's readers raise over damaged bytes. Each is turned into one sentence.
DAMAGED = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
)
# The disk's or the folder's fault while a copy is written, never the file's that is read.
OF_THE_DISK = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EMFILE, errno.ENFILE)
)
# Bytes of an upload, by kind; the page's own limit is the largest of them.
MAX_BYTES = {"image": 200 * 10**6, "audio": 10**9, "video": 4 * 10**9}
PART = ".part-"  # begins the names of files being written; the process's id follows
HDR_TRANSFERS = (16, 18)  # AVCOL_TRC_SMPTE2084 (PQ) and AVCOL_TRC_ARIB_STD_B67 (HLG)
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
    hdr: bool = False


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
    try:
        state = path.stat()
        there, size = path.is_file(), state.st_size
    except (OSError, ValueError):  # a name no file system takes, a folder that may not be entered
        there, size = False, 0
    if not there:
        raise BadInput(f"{name}: there is no file {shown!r}", name, "Check the path.")
    if size == 0:
        raise BadInput(f"{name}: {shown!r} is empty", name, "Choose another file.")
    if size > MAX_BYTES[kind]:
        raise BadInput(
            f"{name}: {shown!r} has {size / 1e9:.1f} GB, more than {MAX_BYTES[kind] / 1e9:g} GB",
            name,
            "Cut or compress it first.",
        )
    return _look(path, kind, name, size, state.st_mtime_ns, state.st_ctime_ns)


@lru_cache(maxsize=256)  # a pure function of what the file was when it was looked at
def _look(path: Path, kind: str, name: str, size: int, mtime: int, ctime: int) -> MediaInfo:
    return _probe_image(path, name) if kind == "image" else _probe_av(path, kind, name)


def _probe_image(path: Path, name: str) -> MediaInfo:
    with open_image(path, name) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise too_large(name, width, height)
        if image.getexif().get(0x0112, 1) >= 5:  # EXIF orientations 5 to 8 lie on their side
            width, height = height, width
        if min(width, height) < MIN_SIDE:
            raise BadInput(
                f"{name}: {width}x{height} is too small",
                name,
                f"Choose an image of at least {MIN_SIDE} px a side.",
            )
        image.draft("RGB", (width // 8, height // 8))  # JPEG only: an eighth of the work
        image.load()  # a file cut short shows only here
    return MediaInfo("image", width, height)


def too_large(name: str, width: int, height: int) -> BadInput:
    """The refusal of a picture with too many pixels."""
    return BadInput(
        f"{name}: {width}x{height} is more than {MAX_PIXELS // 10**6} megapixels",
        name,
        "Scale it down first.",
    )


@contextmanager
def open_image(path: Path, name: str) -> Iterator[Any]:
    """The picture as PIL opens it, lazily; whatever its reader raises inside becomes BadInput."""
    from PIL import Image

    Image.init()
    formats = [known for known in IMAGE_FORMATS if known in Image.OPEN]
    try:
        with Image.open(path, formats=formats) as image:
            yield image
    except BadInput:
        raise
    except Image.DecompressionBombError as error:
        raise BadInput(
            f"{name}: {path.name[:80]!r} is more than {MAX_PIXELS // 10**6} megapixels",
            name,
            "Scale it down first.",
            detail=repr(error),
        ) from None
    except DAMAGED as error:
        raise BadInput(
            f"{name}: {path.name[:80]!r} is not an image that can be read",
            name,
            "Choose a PNG, JPEG or WebP file.",
            detail=repr(error),
        ) from None


@contextmanager
def open_av(path: Path, kind: str, name: str) -> Iterator[Any]:
    """The file as FFmpeg opens it; whatever its readers raise inside becomes BadInput.

    A full disk is no fault of the file: an ``OSError`` that says so passes through.
    """
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
    except BadInput:
        raise
    except (av.error.FFmpegError, *DAMAGED) as error:
        if getattr(error, "errno", None) in OF_THE_DISK:
            raise OSError(error.errno, os.strerror(error.errno)) from error
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


def pictures(container: Any) -> list[Any]:
    """The container's moving pictures; a song's cover is none."""
    from av.stream import Disposition

    return [
        s
        for s in container.streams.video
        if s.codec_context is not None and not s.disposition & Disposition.attached_pic
    ]


def sounds(container: Any) -> list[Any]:
    """The container's sound tracks that there is a decoder for."""
    return [s for s in container.streams.audio if s.codec_context is not None]


def decoded(container: Any, stream: Any) -> Iterator[Any]:
    """The stream's frames; packets that are damaged are passed over, as players do."""
    import av

    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.error.InvalidDataError:
            continue


def _probe_av(path: Path, kind: str, name: str) -> MediaInfo:
    with open_av(path, kind, name) as container:
        found = sounds(container) if kind == "audio" else pictures(container)
        if not found:
            raise BadInput(
                f"{name}: {path.name[:80]!r} has no {'sound' if kind == 'audio' else 'picture'}",
                name,
                f"Choose {what(kind)}.",
            )
        stream = found[0]
        seconds = float(container.duration or 0) / 1_000_000
        if stream.duration and stream.time_base:
            seconds = float(stream.duration * stream.time_base)
        if kind == "audio":
            if next(decoded(container, stream), None) is None:
                raise BadInput(
                    f"{name}: {path.name[:80]!r} holds no sound", name, "Choose another file."
                )
            seconds = _counted(path, name, seconds)
            rate, channels = stream.rate or 0, stream.channels or 0
            return MediaInfo("audio", 0, 0, seconds, 0.0, rate, channels, True)
        frame = next(decoded(container, stream), None)
        if frame is None or min(frame.width, frame.height) < MIN_SIDE:
            size = f"{frame.width}x{frame.height}" if frame else "no picture"
            raise BadInput(
                f"{name}: {path.name[:80]!r} is too small ({size})",
                name,
                f"Choose a video of at least {MIN_SIDE} px a side.",
            )
        width, height = frame.width, frame.height
        if width * height > MAX_PIXELS:
            raise too_large(name, width, height)
        if round(frame.rotation / 90) % 2:
            width, height = height, width
        fps = float(stream.average_rate or 0)
        hdr = getattr(stream.codec_context, "color_trc", 0) in HDR_TRANSFERS
    rate, channels = _sound_of(path)
    return MediaInfo("video", width, height, seconds, fps, rate, channels, channels > 0, hdr)


def _counted(path: Path, name: str, seconds: float) -> float:
    """Seconds of sound that are really in the file: a header survives its file's being cut short."""
    with open_av(path, "audio", name) as container:
        stream = sounds(container)[0]
        ticks = sum(packet.duration or 0 for packet in container.demux(stream))
        counted = float(ticks * stream.time_base) if stream.time_base else 0.0
    return min(seconds, counted) if seconds and counted else seconds or counted


def _sound_of(path: Path) -> tuple[int, int]:
    """Sample rate and channels of a video's sound; (0, 0) where none can be read from it."""
    try:
        with open_av(path, "video", "video") as container:
            for stream in sounds(container)[:1]:
                if next(decoded(container, stream), None) is not None:
                    return stream.rate or 0, stream.channels or 0
    except BadInput:  # the picture can be read, so the video is used, without its sound
        pass
    return 0, 0


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A temporary path beside ``target`` that replaces it only when all went well."""
    handle, part = tempfile.mkstemp(
        prefix=f"{PART}{os.getpid()}-", suffix=target.suffix, dir=target.parent
    )
    os.close(handle)
    try:
        yield Path(part)
        os.chmod(part, 0o644)
        os.replace(part, target)
    finally:
        Path(part).unlink(missing_ok=True)
