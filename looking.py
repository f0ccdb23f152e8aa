"""What the page tells about a file before it is used: the crop of a picture, the kind of a sound.

Needs PIL, PyAV and numpy; neither torch nor ComfyUI.
"""

from __future__ import annotations

import base64
import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import forms
from convert import fit_image, read_sound
from errors import BadInput

THUMB = 300  # pixels, longest side
SILENT = -50.0  # dBFS; quieter 20 ms frames count as silence
HEARD = 60.0  # seconds of a recording that are listened to


def crop(path: str | None, width: int | None, height: int | None, label: str) -> dict[str, Any]:
    """The value of :data:`cards.CROP`: the whole picture and the part of it that will be used."""
    if not path or not width or not height:
        return {}
    info = forms.info(path, "image")
    if info is None:
        return {}
    wide = info.width / info.height > width / height
    w = 100.0 if not wide else 100 * (width / height) / (info.width / info.height)
    h = 100.0 if wide else 100 * (info.width / info.height) / (width / height)
    lost = round(100 - w * h / 100)
    if lost:
        sides = "left and right" if wide else "top and bottom"
        text = f"{info.width} × {info.height}: {lost} % is cut off {sides}."
    else:
        text = f"{info.width} × {info.height}: used whole."
    if info.width * info.height < 0.6 * width * height:
        text += " It is enlarged, so it may look soft."
    return {
        "src": thumbnail(path, Path(path).stat().st_mtime_ns, info.width, info.height),
        "alt": f"{label}: the framed part is used",
        "x": round((100 - w) / 2, 2),
        "y": round((100 - h) / 2, 2),
        "w": round(w, 2),
        "h": round(h, 2),
        "text": text,
    }


@lru_cache(maxsize=64)
def thumbnail(path: str, stamp: int, width: int, height: int) -> str:
    """The whole picture, small, upright, as a data URI."""
    scale = THUMB / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return data_uri(fit_image(Path(path), *size))


def data_uri(image: Any, quality: int = 80) -> str:
    """A ``PIL.Image`` as a JPEG in a data URI."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def video_thumb(path: str | Path, width: int = 192, height: int = 120) -> str:
    """A picture from a tenth into a video, as a data URI; empty when it cannot be read."""
    import av
    from PIL import Image, ImageOps

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            wanted = float(stream.duration * stream.time_base) * 0.1 if stream.duration else 0.0
            image = None
            for frame in container.decode(stream):
                image = frame
                if frame.time is None or frame.time >= wanted:
                    break
            if image is None:
                return ""
            fitted = ImageOps.fit(image.to_image(), (width, height), Image.Resampling.BILINEAR)
            return data_uri(fitted, 72)
    except (OSError, av.error.FFmpegError, IndexError):
        return ""


def sound_words(path: str | None, start: float) -> str:
    """Length, channels and kind of a recording in one sentence; empty when it cannot be used."""
    info = forms.info(path, "audio") if path else None
    if info is None:
        return ""
    channels = {1: "mono", 2: "stereo"}.get(info.channels, f"{info.channels} channels, mixed down")
    text = f"{info.seconds:.1f} s, {channels}, {info.sample_rate / 1000:g} kHz"
    kind = sound_kind(path, Path(path).stat().st_mtime_ns, max(0.0, start or 0.0))
    return f"{text}: {kind}." if kind else f"{text}."


@lru_cache(maxsize=64)
def sound_kind(path: str, stamp: int, start: float) -> str:
    """``silence``, ``probably speech`` or ``sound``, with the share of silence where it matters."""
    import numpy as np

    try:
        samples, rate = read_sound(Path(path), start, HEARD)
    except BadInput:
        return ""
    mono = samples.mean(axis=0)
    size = rate // 50
    count = len(mono) // size
    if count < 5:
        return ""
    frames = mono[: count * size].reshape(count, size)
    power = np.sqrt((frames**2).mean(axis=1))
    loud = 20 * np.log10(np.maximum(power, 1e-9)) > SILENT
    quiet = 1 - loud.mean()
    if quiet > 0.97:
        return "silence"
    kind = "probably speech" if _speaks(frames, power, loud, rate) else "sound"
    return f"{kind}, {quiet:.0%} silence" if quiet >= 0.15 else kind


def _speaks(frames: Any, power: Any, loud: Any, rate: int) -> bool:
    """Whether it moves like speech: syllables at 2-8 Hz, gaps, vowels and hisses in turn.

    The share of low-energy frames and the spread of zero crossings are the classic features of
    Saunders (1996) and Scheirer and Slaney (1997); music and steady noise lack at least one.
    """
    import numpy as np

    envelope = power - power.mean()
    spectrum = np.abs(np.fft.rfft(envelope)) ** 2
    pace = np.fft.rfftfreq(len(envelope), 0.02)
    band = spectrum[(pace >= 2) & (pace <= 8)].sum() / max(spectrum[pace >= 0.4].sum(), 1e-12)
    voiced = frames[loud]
    crossings = (np.diff(np.signbit(voiced), axis=1) != 0).mean(axis=1) * rate / 2
    uneven = np.percentile(crossings, 90) / max(np.percentile(crossings, 30), 1.0)
    gaps = (power < 0.5 * power.mean()).mean()
    return bool(band > 0.4 and uneven > 2.2 and gaps > 0.25 and np.median(crossings) < 3000)
