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
from mediafile import open_av, open_image
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
    import numpy as np

    with open_av(path, "audio", name) as container:
        stream = container.streams.audio[0]
        rate = stream.rate if stream.rate in AAC_RATES else 48000
        layout = "mono" if stream.channels == 1 else "stereo"
        origin = None
        if from_video and container.streams.video:
            first = container.streams.video[0]
            origin = float((first.start_time or 0) * first.time_base)
        resampler = av.AudioResampler("fltp", layout, rate)
        need, have = round((start + seconds) * rate), 0
        chunks: list[np.ndarray] = []

        def keep(frames) -> None:
            nonlocal have
            for out in frames:
                chunks.append(out.to_ndarray())
                have += out.samples

        for frame in container.decode(stream):
            if not chunks and origin is not None and frame.time is not None:
                shift = round((frame.time - origin) * rate)
                if shift > 0:
                    chunks.append(np.zeros((1 if layout == "mono" else 2, shift), np.float32))
                    have += shift
                else:
                    start, need = start - shift / rate, need - shift
            keep(resampler.resample(frame))
            if have >= need:
                break
        else:
            keep(resampler.resample(None))
    if not chunks:
        raise BadInput(f"{name}: {path.name[:80]!r} holds no sound", name, "Choose another file.")
    begin = round(start * rate)
    return np.concatenate(chunks, axis=1)[:, begin:need], rate


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

    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    graph = None
    for frame in container.decode(stream):
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
