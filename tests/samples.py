"""Small media files made on the spot, and requests for every mode that use them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import wavfile

from modes import MODES
from request import Request

SIZE = {"style": (256, 256)}


def image(path: Path, width: int = 320, height: int = 240, seed: int = 0) -> Path:
    """A smooth colour picture."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path


def noise(seconds: float, rate: int = 48000, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Low-passed noise [samples, channels], float32 within +-0.5: aligns at one place only."""
    rng = np.random.default_rng(seed)
    raw = rng.standard_normal((int(seconds * rate) + 16, channels))
    smooth = np.cumsum(raw, axis=0)
    smooth = smooth[16:] - smooth[:-16]
    return (0.5 * smooth / np.abs(smooth).max()).astype(np.float32)


def audio(path: Path, seconds: float = 2.0, rate: int = 48000, channels: int = 1) -> Path:
    """A WAV of :func:`noise`."""
    wavfile.write(path, rate, noise(seconds, rate, channels))
    return path


def video(
    path: Path,
    seconds: float = 2.0,
    fps: int = 30,
    size: tuple[int, int] = (320, 240),
    sound: bool = True,
) -> Path:
    """An MP4 with a moving bright square on grey, and sound."""
    import av

    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        track = out.add_stream("aac", rate=44100, layout="mono") if sound else None
        count = round(seconds * fps)
        for i in range(count):
            frame = np.full((size[1], size[0], 3), 90, np.uint8)
            x = round((size[0] - 40) * i / max(1, count - 1))
            frame[40:80, x : x + 40] = (250, 200, 40)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode(None))
        if track is not None:
            samples = np.ascontiguousarray(noise(seconds, 44100).T)
            chunk = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            chunk.sample_rate = 44100
            out.mux(track.encode(chunk))
            out.mux(track.encode(None))
    return path


MAKERS = {"image": (image, "png"), "audio": (audio, "wav"), "video": (video, "mp4")}


def files_for(mode: str, folder: Path, optional: bool = False) -> dict[str, str]:
    """Files for a mode's media fields: field -> path."""
    files = {}
    for number, spec in enumerate(MODES[mode].fields):
        if spec.is_media and (spec.required or optional):
            make, suffix = MAKERS[spec.kind]
            path = folder / f"{spec.name}.{suffix}"
            if not path.exists():
                make(path, seed=number) if spec.kind == "image" else make(path)
            files[spec.name] = str(path)
    return files


def request_for(mode: str, folder: Path, *, optional: bool = False, **values) -> Request:
    """A small valid request of a mode: 256x192 (style 256x256), 25 frames at 24 fps."""
    width, height = SIZE.get(mode, (256, 192))
    base = {
        "prompt": "a red fox in the snow",
        "width": width,
        "height": height,
        "seconds": 1.0,
        "fps": 24,
    }
    return Request(mode=mode, **{**base, **files_for(mode, folder, optional), **values})
