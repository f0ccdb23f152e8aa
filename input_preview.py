"""*Preview before paying*: what the engine will be given, as a small mp4, in a second or two.

The cropped picture held for the clip's length, two keyframes dissolving, the sound's waveform under
a play-head, the edges of the source video: a wrong crop, length or file is seen before any GPU time
is spent. Needs PIL, PyAV, numpy and OpenCV; neither torch nor ComfyUI.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import workflow
from convert import fit_image, read_sound, retimed
from errors import BadInput
from mediafile import open_av, probe, whole
from modes import MODES
from request import Request

if TYPE_CHECKING:
    import numpy as np

LONGEST = 512  # pixels, the longer side of the preview
FPS = 12  # pictures a second at most: nothing in it moves faster than it is read
MARK = "INPUT PREVIEW"
AMBER, SLATE, TEXT, SUBDUED = (224, 164, 88), (18, 22, 27), (230, 232, 235), (154, 164, 176)


def compose(request: Request, target: Path) -> Path:
    """Write the preview of a request's inputs; returns ``target``.

    The clip has the request's shape and its real length; sound is what the engine would be given.

    Raises:
        BadInput: one of the files cannot be used.
    """
    width, height = small(request.width, request.height)
    fps = min(FPS, request.fps)
    count = max(2, round(request.duration * fps))
    pictures = _pictures(request, width, height, fps, count)
    samples, rate = _sound(request)
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole(target) as part:
        _write(part, pictures, (width, height), fps, count, samples, rate)
    return target


def small(width: int, height: int) -> tuple[int, int]:
    """The preview's size: the same shape, even numbers, at most :data:`LONGEST`."""
    scale = min(1.0, LONGEST / max(width, height))
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


# ---------------------------------------------------------------------------------- pictures


def _pictures(request: Request, width: int, height: int, fps: int, count: int) -> Iterator[Any]:
    """The frames, as ``PIL.Image`` of the preview's size, each with its mark."""
    from PIL import Image

    media = request.media
    if "video" in media:
        frames = _video(request, width, height, fps, count)
    elif "first_frame" in media:
        first, last = (_fit(request, name, width, height) for name in ("first_frame", "last_frame"))
        frames = (Image.blend(first, last, _ease(i / (count - 1))) for i in range(count))
    elif "image" in media:
        still = _fit(request, "image", width, height)
        frames = (still.copy() for _ in range(count))
    else:
        slate = _slate(request, width, height)
        frames = (slate.copy() for _ in range(count))
    wave = _wave(request, width) if "audio" in media else None
    note = _note(request)
    for index, frame in enumerate(frames):
        if wave is not None:
            _draw_wave(frame, wave, index / max(1, count - 1), request)
        yield _marked(frame, note)


def _fit(request: Request, name: str, width: int, height: int) -> Any:
    """The crop as the engine gets it, made small: cut at the real size first, then scaled."""
    from PIL import Image

    real = fit_image(Path(request.media[name]), request.width, request.height, name)
    return real.resize((width, height), Image.Resampling.BILINEAR)


def _ease(t: float) -> float:
    return t * t * (3 - 2 * t)


def _video(request: Request, width: int, height: int, fps: int, count: int) -> Iterator[Any]:
    """The source's edges where they are the control; else its picture, beside the style image."""
    from PIL import Image

    edges = request.control == "canny"
    style = _fit(request, "image", width, height) if "image" in request.media else None
    last = None
    with open_av(Path(request.media["video"]), "video", "video") as container:
        for index, frame in enumerate(retimed(container, width, height, fps)):
            if index == count:
                break
            pixels = frame.to_ndarray(format="rgb24")
            last = Image.fromarray(canny(pixels) if edges else pixels)
            if style is not None:
                small = style.resize((width // 3, height // 3))
                last.paste(small, (width - width // 3 - 8, 8))
            yield last.copy()
    if last is None:
        raise BadInput("video: no picture could be read", "video", "Choose another file.")
    for _ in range(index + 1, count):
        yield last.copy()


def canny(pixels: np.ndarray) -> np.ndarray:
    """Edges of an RGB picture, white on black, with the thresholds of the style graph's own node."""
    import cv2
    import numpy as np

    low, high = _thresholds()
    grey = cv2.GaussianBlur(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (5, 5), 1.0)
    # The node's thresholds are for pixels of 0..1, these pixels go to 255.
    found = cv2.Canny(grey, low * 255, high * 255, L2gradient=True)
    return np.repeat(found[..., None], 3, axis=2)


@lru_cache(maxsize=1)
def _thresholds() -> tuple[float, float]:
    graph = workflow.load("style")
    inputs = graph[workflow.find(graph, "Control: edges")]["inputs"]
    return float(inputs["low_threshold"]), float(inputs["high_threshold"])


def _slate(request: Request, width: int, height: int) -> Any:
    """A dark card with the prompt, for a mode that is given words or sound only."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (width, height), SLATE)
    draw = ImageDraw.Draw(image)
    font = _font(max(11, height // 24))
    lines = _wrapped(request.prompt or "No prompt.", font, width * 0.84)
    y = height * 0.2
    for line in lines[: max(2, int(height * 0.34 / (font.size * 1.35)))]:
        draw.text((width * 0.08, y), line, TEXT, font)
        y += font.size * 1.35
    return image


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _wrapped(text: str, font: Any, width: float) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and font.getlength(longer) > width:
            lines.append(line)
            line = word
        else:
            line = longer
    return [*lines, line]


def _note(request: Request) -> str:
    return (
        f"{MODES[request.mode].tag}  {request.width}x{request.height}  "
        f"{request.frames} frames  {request.duration:.2f} s"
    )


def _marked(image: Any, note: str) -> Any:
    """The frame with the mark that no one can take for a result."""
    from PIL import ImageDraw

    draw = ImageDraw.Draw(image, "RGBA")
    width, height = image.size
    font = _font(max(10, min(width, height) // 22))
    pad = font.size * 0.5
    bar = font.size + 2 * pad
    draw.rectangle([0, height - bar, width, height], fill=(*SLATE, 225))
    draw.text((pad, height - bar + pad * 0.8), MARK, AMBER, font)
    x = pad * 3 + font.getlength(MARK)
    if x + font.getlength(note) < width - pad:
        draw.text((x, height - bar + pad * 0.8), note, TEXT, font)
    draw.rectangle([0, 0, width - 1, height - 1], outline=AMBER)
    return image


# ---------------------------------------------------------------------------------- sound


def _sound(request: Request) -> tuple[np.ndarray | None, int]:
    """What the engine would hear: cut or padded to the clip. (float32 [channels, samples], rate)"""
    import numpy as np

    media = request.media
    name = "audio" if "audio" in media else "video" if "video" in media else ""
    if not name or (name == "video" and not probe(media["video"], "video").has_audio):
        return None, 0
    start = (request.audio_start or 0.0) if name == "audio" else 0.0
    from_video = name == "video"
    samples, rate = read_sound(
        Path(media[name]), start, request.duration, from_video=from_video, name=name
    )
    length = round(request.duration * rate)
    return np.pad(samples, ((0, 0), (0, max(0, length - samples.shape[1])))), rate


def _wave(request: Request, width: int) -> np.ndarray:
    """The loudest sample in each column of the picture, 0..1."""
    import numpy as np

    samples, _ = _sound(request)
    mono = np.abs(samples).max(axis=0)
    columns = np.array_split(mono, width)
    return np.array([c.max() if len(c) else 0.0 for c in columns]).clip(0, 1)


def _draw_wave(image: Any, wave: np.ndarray, at: float, request: Request) -> None:
    """The waveform over the lower half, with a play-head."""
    from PIL import ImageDraw

    draw = ImageDraw.Draw(image, "RGBA")
    width, height = image.size
    middle, reach = height * 0.8, height * 0.09
    draw.rectangle([0, middle - reach - 6, width, middle + reach + 6], fill=(*SLATE, 190))
    head = int(at * (width - 1))
    for x, level in enumerate(wave):
        tall = max(0.5, level * reach)
        draw.line([x, middle - tall, x, middle + tall], fill=AMBER if x <= head else SUBDUED)
    draw.line([head, middle - reach - 6, head, middle + reach + 6], fill=TEXT, width=2)


# ---------------------------------------------------------------------------------- the file


def _write(
    path: Path,
    pictures: Iterator[Any],
    size: tuple[int, int],
    fps: int,
    count: int,
    samples: np.ndarray | None,
    rate: int,
) -> None:
    import av
    import numpy as np

    options = {"movflags": "+faststart"}
    with av.open(str(path), "w", format="mp4", options=options) as out:
        video = out.add_stream("libx264", rate=fps, options={"crf": "23", "preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        sound = None
        if samples is not None:
            layout = "mono" if len(samples) == 1 else "stereo"
            sound = out.add_stream("aac", rate=rate, layout=layout)
        out.metadata["title"] = "Input preview, not a generated video"
        for index, picture in enumerate(pictures):
            if index == count:
                break
            out.mux(video.encode(av.VideoFrame.from_image(picture)))
        out.mux(video.encode(None))
        if sound is not None:
            for begin in range(0, samples.shape[1], 1024):
                block = np.ascontiguousarray(samples[:, begin : begin + 1024], np.float32)
                frame = av.AudioFrame.from_ndarray(block, "fltp", sound.layout.name)
                frame.sample_rate, frame.pts = rate, begin
                out.mux(sound.encode(frame))
            out.mux(sound.encode(None))
