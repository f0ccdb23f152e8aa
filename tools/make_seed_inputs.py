"""Draw and synthesise the example files in ``assets/seed_inputs``: pictures, sound, a short clip.

Everything is made here from shapes and waves, so the examples belong to the project. The spoken
line needs ``espeak-ng``; without it that one file is left as it is. Run it only to change them:

    python tools/make_seed_inputs.py
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from scipy.io import wavfile
from scipy.signal import lfilter, resample_poly

FOLDER = Path(__file__).resolve().parent.parent / "assets" / "seed_inputs"
RATE = 48000
LINE = "Good evening. The boats are home, the lamp is lit, and the tide can do as it likes."


def gradient(size: tuple[int, int], stops: list[tuple[float, str]]) -> Image.Image:
    """A vertical gradient through ``(position 0..1, colour)`` stops."""
    width, height = size
    colours = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for _, c in stops], float)
    y = np.linspace(0, 1, height)
    rows = np.stack([np.interp(y, [p for p, _ in stops], colours[:, k]) for k in range(3)], -1)
    rows = np.repeat(rows[:, None], width, axis=1)
    rows += np.random.default_rng(1).normal(0, 0.8, rows.shape)  # against banding
    return Image.fromarray(np.clip(rows, 0, 255).astype(np.uint8))


def ridge(width: int, base: float, height: float, seed: int, rough: float = 0.55) -> np.ndarray:
    """The height of a mountain ridge at every column: a sum of ever finer sines."""
    rng = np.random.default_rng(seed)
    x = np.linspace(0, 1, width)
    line = np.zeros(width)
    for octave in range(7):
        wave = 2 ** (octave + 0.6)
        line += rough**octave * np.sin(2 * np.pi * (wave * x + rng.random()))
    return base - height * line


def hill(image: Image.Image, line: np.ndarray, colour: str) -> None:
    points = [(0, image.height), *[(i, float(v)) for i, v in enumerate(line)]]
    ImageDraw.Draw(image).polygon([*points, (image.width, image.height)], fill=colour)


def glow(image: Image.Image, x: float, y: float, radius: float, colour: str, power: float) -> None:
    """Add soft light around a point."""
    yy, xx = np.mgrid[0 : image.height, 0 : image.width]
    fall = np.exp(-(((xx - x) ** 2 + (yy - y) ** 2) / (2 * radius**2)))[..., None] * power
    tint = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], float)
    pixels = np.asarray(image, float)
    image.paste(Image.fromarray(np.clip(pixels + fall * tint, 0, 255).astype(np.uint8)))


def lighthouse(width: int = 1216, height: int = 832) -> Image.Image:
    """A lighthouse over the sea at dusk; the first frame of *image to video*."""
    w, h = width * 2, height * 2
    horizon = int(h * 0.62)
    image = Image.new("RGB", (w, h))
    sky = [(0, "#1b2440"), (0.45, "#5b4a6b"), (0.75, "#c8745a"), (1, "#f3b873")]
    image.paste(gradient((w, horizon), sky), (0, 0))
    sea = [(0, "#d99a6a"), (0.12, "#8d6a6c"), (0.5, "#34415e"), (1, "#141c30")]
    image.paste(gradient((w, h - horizon), sea), (0, horizon))
    glow(image, w * 0.3, horizon, h * 0.14, "#ffb060", 0.55)
    draw = ImageDraw.Draw(image)
    draw.ellipse([w * 0.3 - 70, horizon - 96, w * 0.3 + 70, horizon + 44], fill="#ffe2a8")
    hill(image, ridge(w, horizon - 14, 9, 5), "#4a4560")
    image.paste(gradient((w, h - horizon), sea), (0, horizon))
    draw = ImageDraw.Draw(image)
    rng = np.random.default_rng(4)
    for _ in range(900):
        depth = rng.random() ** 1.7
        y = horizon + 4 + depth * (h - horizon - 8)
        near = np.exp(-(((rng.random() - 0.5) / 0.3) ** 2))
        x = w * 0.3 + rng.normal(0, 40 + depth * 420)
        half = (6 + depth * 46) * near
        shade = (255, 205, 140) if abs(x - w * 0.3) < 60 + depth * 160 else (120, 108, 124)
        draw.line([x - half, y, x + half, y], fill=shade, width=int(1 + depth * 4))
    draw.rectangle([0, horizon, w, horizon + 2], fill="#d99a6a")
    cliff = ridge(w, h * 0.8, 16, 8)
    slope = np.clip((np.arange(w) / w - 0.5) * 2.6, 0, 1) ** 0.6
    cliff = h * 1.02 - (h * 1.02 - cliff + h * 0.12) * slope
    hill(image, cliff, "#1a1d2b")
    draw = ImageDraw.Draw(image)
    x, foot, top = w * 0.76, float(cliff[int(w * 0.76)]) + 20, h * 0.26
    for i in range(5):  # the tower in bands
        a, b = top + (foot - top) * i / 5, top + (foot - top) * (i + 1) / 5
        wa, wb = 40 + 26 * i / 5, 40 + 26 * (i + 1) / 5
        band = "#e9dccb" if i % 2 == 0 else "#a8473f"
        draw.polygon([(x - wa, a), (x + wa, a), (x + wb, b), (x - wb, b)], fill=band)
    shade = Image.new("L", (w, h), 0)
    ImageDraw.Draw(shade).polygon(
        [(x + 6, top), (x + 40, top), (x + 66, foot), (x + 10, foot)], fill=105
    )
    image.paste("#1b2034", mask=shade.filter(ImageFilter.GaussianBlur(10)))
    draw = ImageDraw.Draw(image)
    draw.rectangle([x - 58, top - 12, x + 58, top + 8], fill="#2a2c3c")
    draw.rectangle([x - 34, top - 84, x + 34, top - 12], fill="#ffd98c")
    for k in (-34, -12, 12, 34):
        draw.rectangle([x + k - 3, top - 84, x + k + 3, top - 12], fill="#2a2c3c")
    draw.polygon([(x - 46, top - 84), (x + 46, top - 84), (x, top - 140)], fill="#a8473f")
    beam = Image.new("L", (w, h), 0)
    ImageDraw.Draw(beam).polygon(
        [(x - 30, top - 52), (0, top - 330), (0, top - 20), (x - 30, top - 40)], fill=84
    )
    image.paste("#ffe6b0", mask=beam.filter(ImageFilter.GaussianBlur(16)))
    glow(image, x, top - 48, 90, "#ffcf80", 0.8)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def portrait(size: int = 896) -> Image.Image:
    """A drawn face looking at the camera, for lipsync."""
    s = size * 2
    image = gradient((s, s), [(0, "#24303a"), (1, "#141a20")])
    glow(image, s * 0.34, s * 0.3, s * 0.3, "#8a6238", 0.55)
    draw = ImageDraw.Draw(image)

    def oval(cx, cy, rx, ry, fill):
        draw.ellipse([s * (cx - rx), s * (cy - ry), s * (cx + rx), s * (cy + ry)], fill=fill)

    skin, shadow, hair = "#d9a07a", "#c08560", "#2b211d"
    draw.polygon(
        [
            (s * a, s * b)
            for a, b in ((0.08, 1), (0.16, 0.84), (0.4, 0.75), (0.6, 0.75), (0.84, 0.84), (0.92, 1))
        ],
        fill="#3d5563",
    )
    oval(0.5, 0.4, 0.27, 0.31, hair)
    draw.rectangle([s * 0.235, s * 0.4, s * 0.765, s * 0.66], fill=hair)
    draw.polygon(
        [
            (s * a, s * b)
            for a, b in ((0.42, 0.62), (0.58, 0.62), (0.61, 0.78), (0.5, 0.85), (0.39, 0.78))
        ],
        fill=shadow,
    )
    oval(0.5, 0.46, 0.19, 0.245, skin)
    draw.pieslice([s * 0.29, s * 0.15, s * 0.71, s * 0.55], 180, 360, fill=hair)
    draw.polygon(
        [
            (s * a, s * b)
            for a, b in ((0.3, 0.34), (0.62, 0.27), (0.7, 0.36), (0.5, 0.33), (0.36, 0.4))
        ],
        fill=hair,
    )
    for side in (-1, 1):
        cx = 0.5 + side * 0.078
        oval(cx, 0.445, 0.036, 0.02, "#f3ebe2")
        oval(cx, 0.445, 0.018, 0.0195, "#4c3324")
        oval(cx, 0.445, 0.0085, 0.0095, "#120c09")
        oval(cx + 0.006, 0.4385, 0.0035, 0.0035, "#ffffff")
        draw.arc(
            [s * (cx - 0.042), s * 0.42, s * (cx + 0.042), s * 0.476],
            195,
            345,
            fill="#33211a",
            width=int(s * 0.006),
        )
        draw.arc(
            [s * (cx - 0.05), s * 0.385, s * (cx + 0.05), s * 0.45],
            205,
            335,
            fill=hair,
            width=int(s * 0.0115),
        )
        oval(0.5 + side * 0.12, 0.53, 0.035, 0.022, "#d6937a")
    draw.polygon(
        [(s * a, s * b) for a, b in ((0.494, 0.45), (0.475, 0.53), (0.5, 0.545), (0.522, 0.53))],
        fill="#cb9069",
    )
    draw.arc(
        [s * 0.468, s * 0.51, s * 0.532, s * 0.552], 25, 155, fill="#a9704f", width=int(s * 0.005)
    )
    draw.polygon(
        [
            (s * a, s * b)
            for a, b in (
                (0.438, 0.605),
                (0.478, 0.594),
                (0.5, 0.6),
                (0.522, 0.594),
                (0.562, 0.605),
                (0.5, 0.612),
            )
        ],
        fill="#a3534b",
    )
    draw.polygon(
        [
            (s * a, s * b)
            for a, b in (
                (0.438, 0.605),
                (0.5, 0.612),
                (0.562, 0.605),
                (0.53, 0.63),
                (0.5, 0.636),
                (0.47, 0.63),
            )
        ],
        fill="#b8645a",
    )
    draw.line(
        [(s * 0.438, s * 0.605), (s * 0.5, s * 0.611), (s * 0.562, s * 0.605)],
        fill="#6d322f",
        width=int(s * 0.004),
    )
    soft = Image.new("L", (s, s), 0)
    ImageDraw.Draw(soft).pieslice([s * 0.42, s * 0.2, s * 0.86, s * 0.9], -80, 90, fill=60)
    image.paste("#0d1116", mask=soft.filter(ImageFilter.GaussianBlur(s * 0.05)))
    draw = ImageDraw.Draw(image)
    draw.polygon(
        [
            (s * a, s * b)
            for a, b in (
                (0.385, 0.765),
                (0.5, 0.87),
                (0.615, 0.765),
                (0.66, 0.8),
                (0.5, 0.99),
                (0.34, 0.8),
            )
        ],
        fill="#e6ddd0",
    )
    return image.resize((size, size), Image.Resampling.LANCZOS)


def valley(night: bool, width: int = 1216, height: int = 832) -> Image.Image:
    """The same valley by day or by night: first and last frame of *keyframes*."""
    w, h = width * 2, height * 2
    if night:
        sky = [(0, "#060a18"), (0.6, "#1a2547"), (1, "#3a4470")]
        layers = ["#2b3560", "#222b50", "#182040", "#10162e", "#090d1e"]
    else:
        sky = [(0, "#6ea8d0"), (0.55, "#b9d6de"), (1, "#f7dfb4")]
        layers = ["#9db3b8", "#7c9c9c", "#57817c", "#36615a", "#1f423f"]
    image = gradient((w, h), sky)
    if night:
        rng = np.random.default_rng(3)
        draw = ImageDraw.Draw(image)
        for x, y, r in zip(rng.random(420), rng.random(420), rng.random(420) ** 4, strict=True):
            size = 1 + 3.2 * r
            draw.ellipse(
                [x * w - size, y * h * 0.6 - size, x * w + size, y * h * 0.6 + size], fill="#dfe6ff"
            )
        draw.ellipse([w * 0.68, h * 0.1, w * 0.68 + 150, h * 0.1 + 150], fill="#f3eed8")
        glow(image, w * 0.68 + 75, h * 0.1 + 75, 240, "#8090c0", 0.5)
    else:
        glow(image, w * 0.25, h * 0.38, h * 0.16, "#ffdf9a", 0.3)
        ImageDraw.Draw(image).ellipse(
            [w * 0.25 - 66, h * 0.38 - 66, w * 0.25 + 66, h * 0.38 + 66], fill="#fff3cf"
        )
    for i, colour in enumerate(layers):
        hill(image, ridge(w, h * (0.5 + 0.115 * i), h * (0.055 - 0.004 * i), 20 + i, 0.5), colour)
        glow(
            image, w * 0.3, h * (0.62 + 0.11 * i), h * 0.12, "#5a6a90" if night else "#ffe9c0", 0.12
        )
    draw = ImageDraw.Draw(image)
    x, y = w * 0.6, h * 0.9
    draw.rectangle([x, y - 70, x + 150, y + 30], fill="#0a0d18" if night else "#6b4a3a")
    draw.polygon(
        [(x - 24, y - 70), (x + 174, y - 70), (x + 75, y - 150)],
        fill="#05070f" if night else "#3f2b26",
    )
    draw.rectangle([x + 50, y - 40, x + 96, y + 4], fill="#ffca6b" if night else "#cfe3ea")
    if night:
        glow(image, x + 73, y - 18, 90, "#ffb550", 0.55)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def pluck(frequency: float, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """One plucked string (Karplus-Strong)."""
    period = int(RATE / frequency)
    burst = np.zeros(int(seconds * RATE))
    burst[:period] = rng.uniform(-1, 1, period)
    taps = np.zeros(period + 2)
    taps[0], taps[period], taps[period + 1] = 1, -0.498, -0.498
    return lfilter([1], taps, burst)


def melody(seconds: float = 8.0) -> np.ndarray:
    """A short plucked tune, stereo float32 [samples, 2]."""
    rng = np.random.default_rng(11)
    mix = np.zeros((int(seconds * RATE), 2))
    beat = 60 / 96
    tune = [0, 7, 12, 15, 14, 12, 7, 10, 5, 8, 12, 17, 15, 12, 10, 7, 3, 10, 15, 19, 17, 15, 12, 15]
    for i, note in enumerate(tune):
        start = int(i * beat / 2 * RATE)
        sound = pluck(220 * 2 ** (note / 12), 2.0, rng)
        end = min(len(mix), start + len(sound))
        pan = 0.5 + 0.3 * np.sin(i)
        mix[start:end] += sound[: end - start, None] * [1 - pan, pan]
    for i, note in enumerate([-24, -19, -21, -24]):
        start = int(i * beat * 3 * RATE)
        sound = pluck(220 * 2 ** (note / 12) * 2, 2.4, rng)
        end = min(len(mix), start + len(sound))
        mix[start:end] += 0.7 * sound[: end - start, None]
    fade = np.minimum(1, np.arange(len(mix))[::-1] / (0.8 * RATE))[:, None]
    mix *= fade
    return (mix / np.abs(mix).max() * 0.8).astype(np.float32)


def write_m4a(path: Path, samples: np.ndarray, bits: int = 96000) -> None:
    """AAC of float32 [samples, channels] at 48 kHz."""
    with av.open(str(path), "w") as out:
        layout = "mono" if samples.shape[1] == 1 else "stereo"
        stream = out.add_stream("aac", rate=RATE, layout=layout, bit_rate=bits)
        for i in range(0, len(samples), 1024):
            block = np.ascontiguousarray(samples[i : i + 1024].T)
            frame = av.AudioFrame.from_ndarray(block, "fltp", layout)
            frame.sample_rate, frame.pts = RATE, i
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def speech() -> np.ndarray | None:
    """The spoken line, mono float32 [samples, 1]; None without espeak-ng."""
    program = shutil.which("espeak-ng")
    if program is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        wave = Path(folder) / "line.wav"
        voice = ["-v", "en-gb", "-s", "150", "-p", "42"]
        subprocess.run([program, *voice, "-w", str(wave), LINE], check=True)
        rate, samples = wavfile.read(wave)
    samples = resample_poly(samples / 32768, RATE, rate)
    return (samples / np.abs(samples).max() * 0.85).astype(np.float32)[:, None]


def ride_frame(t: float, width: int, height: int) -> Image.Image:
    """One picture of the clip: a tram crossing a bridge before moving hills. ``t`` is 0..1."""
    w, h = width * 2, height * 2
    image = gradient((w, h), [(0, "#88b7cf"), (0.6, "#f0d9b5"), (1, "#f0c48a")])
    for i, colour in enumerate(["#9fb4b4", "#6f9490", "#44706a"]):
        line = ridge(w * 3, h * (0.52 + 0.1 * i), h * 0.05, 40 + i, 0.5)
        shift = int(t * w * (0.1 + 0.22 * i))
        hill(image, line[shift : shift + w], colour)
    draw = ImageDraw.Draw(image)
    deck = h * 0.74
    offset = (t * w * 0.9) % (w * 0.25)
    draw.rectangle([0, deck, w, h], fill="#2d4a58")
    for k in range(-1, 6):
        x = k * w * 0.25 - offset
        draw.pieslice([x + 20, deck + 40, x + w * 0.25 - 20, h * 1.3], 180, 360, fill="#7fa9b5")
    draw.rectangle([0, deck - 8, w, deck + 22], fill="#22343d")
    x = w * (0.08 + 0.34 * t)
    body, roof = "#c9503c", "#8f3226"
    draw.rounded_rectangle([x, deck - 230, x + 620, deck - 34], 36, fill=body)
    draw.rounded_rectangle([x + 10, deck - 252, x + 610, deck - 214], 20, fill=roof)
    draw.rectangle([x, deck - 92, x + 620, deck - 76], fill="#f1dcc0")
    for k in range(5):
        draw.rounded_rectangle(
            [x + 40 + k * 112, deck - 200, x + 128 + k * 112, deck - 112], 10, fill="#d8ecf0"
        )
    draw.line([x + 300, deck - 252, x + 350, deck - 330], fill="#22343d", width=8)
    draw.line([0, deck - 332, w, deck - 332], fill="#22343d", width=4)
    for k in (110, 210, 420, 520):
        cx, cy = x + k, deck - 30
        draw.ellipse([cx - 34, cy - 34, cx + 34, cy + 34], fill="#1c262c")
        for spoke in range(3):
            angle = t * 24 + spoke * np.pi / 3
            dx, dy = 26 * np.cos(angle), 26 * np.sin(angle)
            draw.line([cx - dx, cy - dy, cx + dx, cy + dy], fill="#8d979c", width=6)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def write_ride(path: Path, seconds: float = 4.0, fps: int = 24) -> None:
    """The clip with a little rail noise, H.264 and AAC."""
    width, height, count = 768, 512, round(seconds * fps) + 1
    rng = np.random.default_rng(7)
    length = int(count / fps * RATE)
    rumble = lfilter([0.02], [1, -0.98], rng.normal(0, 1, length))
    clicks = np.zeros(length)
    for k in np.arange(0.2, seconds, 0.55):
        at = int(k * RATE)
        clicks[at : at + 2400] += rng.normal(0, 1, 2400) * np.exp(-np.arange(2400) / 300)
    sound = (0.5 * rumble / np.abs(rumble).max() + 0.25 * clicks / np.abs(clicks).max())[:, None]
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as out:
        video = out.add_stream("libx264", rate=fps, options={"crf": "24", "preset": "slow"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = out.add_stream("aac", rate=RATE, layout="mono", bit_rate=48000)
        for i in range(count):
            frame = av.VideoFrame.from_image(ride_frame(i / (count - 1), width, height))
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        for i in range(0, length, 1024):
            block = np.ascontiguousarray(sound[i : i + 1024].T.astype(np.float32))
            frame = av.AudioFrame.from_ndarray(block, "fltp", "mono")
            frame.sample_rate, frame.pts = RATE, i
            out.mux(audio.encode(frame))
        out.mux(audio.encode(None))


def main() -> int:
    FOLDER.mkdir(parents=True, exist_ok=True)
    pictures = {
        "lighthouse": lighthouse(),
        "portrait": portrait(),
        "valley_day": valley(False),
        "valley_night": valley(True),
    }
    for name, image in pictures.items():
        image.save(FOLDER / f"{name}.jpg", quality=86, optimize=True)
    write_m4a(FOLDER / "melody.m4a", melody())
    spoken = speech()
    if spoken is None:
        print("speech.m4a left as it is: espeak-ng is not installed.", file=sys.stderr)
    else:
        write_m4a(FOLDER / "speech.m4a", spoken, 64000)
    write_ride(FOLDER / "tram.mp4")
    return 0


if __name__ == "__main__":
    sys.exit(main())
