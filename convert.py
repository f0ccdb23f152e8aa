"""Turning a usable file into what the engine takes: upright, cropped, re-timed, padded.

- image: turned upright (EXIF), first frame of an animation, transparency over white, cover-cropped
  to the video's size;
- audio: from ``audio_start`` on, at its own sample rate, at most two channels, padded with silence
  to the clip's length;
- video: re-timed to a constant frame rate, cover-cropped, cut (or its last frame held) to exactly
  the clip's frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from errors import BadInput
from mediafile import decoded, open_av, open_image, pictures, sounds
from request import Request

if TYPE_CHECKING:
    import numpy as np

# ComfyUI's audio VAE wrapper crops its input at both ends to a multiple of this, at this rate
# (comfy.sd.VAE.vae_encode_crop_pixels); a staged file that already is one loses nothing.
VAE_RATE, VAE_BLOCK = 44100, 4096
AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)


def fit_image(path: Path, width: int, height: int, name: str = "image"):
    """The image as the engine gets it: upright, RGB, cover-cropped around its centre to the size.

    Returns:
        a ``PIL.Image`` of mode RGB, ``width`` x ``height``.
    """
    from PIL import Image, ImageOps

    with open_image(path, name) as image:
        image.seek(0)
        image.load()
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16") or image.mode == "I":
            image = image.point(lambda v: v / 256).convert("L")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            ground = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(ground, image)
        return ImageOps.fit(image.convert("RGB"), (width, height), Image.Resampling.LANCZOS)


def read_sound(
    path: Path, start: float, seconds: float, *, from_video: bool = False, name: str = "audio"
) -> tuple[np.ndarray, int]:
    """Samples from ``start`` on, at most ``seconds`` of them.

    The file's own sample rate is kept where AAC knows it; more than two channels are mixed down.
    ``from_video`` counts time from the picture's first frame instead of the first sample.

    Returns:
        (float32 array [channels, samples], sample rate in Hz)
    """
    import av

    with open_av(path, "audio", name) as container:
        stream = sounds(container)[0]
        rate = stream.rate if stream.rate in AAC_RATES else 48000
        layout = "mono" if stream.channels == 1 else "stereo"
        origin = None
        if from_video and pictures(container):
            first = pictures(container)[0]
            origin = float((first.start_time or 0) * first.time_base)
        wanted = _Wanted(1 if layout == "mono" else 2, round(start * rate), round(seconds * rate))
        resampler, heard, begun = None, None, False
        for frame in decoded(container, stream):
            if not begun and origin is not None and frame.time is not None:
                wanted.shift(round((frame.time - origin) * rate))
            begun = True
            if (frame.format.name, frame.sample_rate, frame.layout.name) != heard:  # joined files
                heard = (frame.format.name, frame.sample_rate, frame.layout.name)
                wanted.take(resampler.resample(None) if resampler else ())
                resampler = av.AudioResampler("fltp", layout, rate)
            wanted.take(resampler.resample(frame))
            if wanted.full:
                break
        else:
            wanted.take(resampler.resample(None) if resampler else ())
    if not begun:
        raise BadInput(f"{name}: {path.name[:80]!r} holds no sound", name, "Choose another file.")
    return wanted.samples(), rate


class _Wanted:
    """The samples between two moments, out of a stream of frames; the rest is not kept."""

    def __init__(self, channels: int, begin: int, count: int):
        self.channels, self.begin, self.end, self.position = channels, begin, begin + count, 0
        self.chunks: list[np.ndarray] = []

    def shift(self, samples: int) -> None:
        """The sound begins so many samples after (or, negative, before) the moment time is 0."""
        import numpy as np

        if samples > 0:
            silence = max(0, min(samples, self.end) - self.begin)
            self.chunks.append(np.zeros((self.channels, silence), np.float32))
        self.position = samples

    def take(self, frames) -> None:
        """The part of each frame that lies between the two moments."""
        for frame in frames:
            low, high = self.begin - self.position, self.end - self.position
            self.position += frame.samples
            if high > 0 and low < frame.samples:
                self.chunks.append(frame.to_ndarray()[:, max(0, low) : high].copy())

    @property
    def full(self) -> bool:
        """Whether the last moment was reached."""
        return self.position >= self.end

    def samples(self) -> np.ndarray:
        """All of it [channels, samples]; what is no number is silence, what is too loud is 1."""
        import numpy as np

        empty = np.zeros((self.channels, 0), np.float32)
        found = np.concatenate([empty, *self.chunks], axis=1)
        return np.clip(np.nan_to_num(found, nan=0.0, posinf=1.0, neginf=-1.0), -1.0, 1.0)


def write_sound(source: Path, target: Path, request: Request, from_video: bool) -> None:
    import numpy as np
    from scipy.io import wavfile

    blocks = -(-round(request.duration * VAE_RATE) // VAE_BLOCK)
    seconds = blocks * VAE_BLOCK / VAE_RATE
    start = 0.0 if from_video else request.audio_start or 0.0
    samples, rate = read_sound(source, start, seconds + 1.0, from_video=from_video)
    length = -(-blocks * VAE_BLOCK * rate // VAE_RATE)
    samples = samples[:, :length]
    samples = np.pad(samples, ((0, 0), (0, length - samples.shape[1])))
    wavfile.write(target, rate, np.ascontiguousarray(samples.T, dtype=np.float32))


def write_video(source: Path, target: Path, request: Request) -> None:
    import av

    with open_av(source, "video", "video") as container, av.open(str(target), "w") as output:
        out = output.add_stream(
            "libx264", rate=request.fps, options={"crf": "12", "preset": "veryfast"}
        )
        out.width, out.height, out.pix_fmt = request.width, request.height, "yuv420p"
        count = 0
        frame = None
        for frame in retimed(container, request.width, request.height, request.fps):
            frame.pts = None
            output.mux(out.encode(frame))
            count += 1
            if count == request.frames:
                break
        if frame is None:
            raise BadInput("video: no picture could be read", "video", "Choose another file.")
        while count < request.frames:
            frame.pts = None
            output.mux(out.encode(frame))
            count += 1
        output.mux(out.encode(None))


def retimed(container: Any, width: int, height: int, fps: int) -> Iterator[Any]:
    """The container's picture, upright, at a constant frame rate, cover-cropped to the size.

    Yields:
        ``av.VideoFrame`` in yuv420p, ``width`` x ``height``.
    """
    import av

    stream = pictures(container)[0]
    stream.thread_type = "AUTO"
    graph = None
    for frame in decoded(container, stream):
        if graph is None:
            graph = av.filter.Graph()
            nodes = [graph.add_buffer(template=stream)]
            turn = round(frame.rotation / 90) % 4  # counter-clockwise quarter turns
            nodes += [graph.add("transpose", "cclock") for _ in range(turn)]
            nodes += [
                graph.add("fps", f"fps={fps}:start_time={float(frame.time or 0)}"),
                graph.add("scale", f"{width}:{height}:force_original_aspect_ratio=increase"),
                graph.add("crop", f"{width}:{height}"),
                graph.add("setsar", "1"),
                graph.add("format", "yuv420p"),
                graph.add("buffersink"),
            ]
            graph.link_nodes(*nodes).configure()
        graph.push(frame)
        yield from _drain(graph)
    if graph is not None:
        graph.push(None)
        yield from _drain(graph)


def _drain(graph: Any) -> Iterator[Any]:
    import av

    while True:
        try:
            yield graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
