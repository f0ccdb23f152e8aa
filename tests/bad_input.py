"""The corpus of files people should not have given, made on the spot: what each is, and its end.

A case is either refused with a sentence that says ``says``, or handled, and then ``check`` measures
what was staged. ``make`` gets a folder and returns a path.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import samples
from PIL import Image
from scipy.io import wavfile

Make = Callable[[Path], Any]
RATE = 48000


@dataclass(frozen=True)
class Case:
    """One file as one field of one mode; exactly one of ``says`` and ``check`` is given."""

    name: str
    mode: str
    field: str
    make: Make
    says: str = ""
    check: Callable[[dict, Any], None] | None = None
    values: dict[str, Any] = field(default_factory=dict)


# ------------------------------------------------------------------ pictures


def quarter(width: int = 320, height: int = 192, mode: str = "RGB") -> Image.Image:
    """Black, its top left quarter bright."""
    image = Image.new("RGB", (width, height), "black")
    image.paste("white", (0, 0, width // 2, height // 2))
    return image.convert(mode)


def saved(name: str, image: Image.Image | Callable[[], Image.Image], **options) -> Make:
    """A maker that saves a picture under a name."""

    def make(folder: Path) -> Path:
        picture = image() if callable(image) else image
        picture.save(folder / name, **options)
        return folder / name

    return make


def written(name: str, content: bytes) -> Make:
    """A maker of a file with this content."""

    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def cut(make: Make, share: float) -> Make:
    """A maker whose file ends early."""

    def shorter(folder: Path) -> Path:
        path = make(folder)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        return path

    return shorter


def turned(orientation: int) -> Make:
    """A JPEG stored on its side or mirrored, with the EXIF orientation that mends it."""
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    upright = quarter()
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved("photo.jpg", stored, exif=exif, quality=95)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(b"0")), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def appended(make: Make, tail: bytes) -> Make:
    """A maker whose file goes on after its end."""

    def longer(folder: Path) -> Path:
        path = make(folder)
        path.write_bytes(path.read_bytes() + tail)
        return path

    return longer


def frames(name: str, **options) -> Make:
    """An animation: red, then blue."""

    def make(folder: Path) -> Path:
        red, blue = (Image.new("RGB", (128, 128), c) for c in ("red", "blue"))
        red.save(folder / name, save_all=True, append_images=[blue], **options)
        return folder / name

    return make


def clear(mode: str) -> Image.Image:
    """Wholly transparent, with something hidden underneath."""
    colour = {"RGBA": (255, 0, 0, 0), "LA": (10, 0)}[mode]
    return Image.new(mode, (320, 192), colour)


def named(name: str | bytes) -> Make:
    """A good picture under an awkward name."""

    def make(folder: Path) -> str:
        good = samples.image(folder / "good.png")
        path = os.path.join(os.fsencode(folder), os.fsencode(name))
        os.replace(good, path)
        return os.fsdecode(path)

    return make


def link(to: str | None) -> Make:
    """A symbolic link: to a good picture, to nothing, to itself."""

    def make(folder: Path) -> Path:
        path = folder / "link.png"
        target = samples.image(folder / "good.png") if to is None else folder / to
        path.symlink_to(target)
        return path

    return make


def queue_file(folder: Path) -> Path:
    """A FIFO: opening it would wait for ever."""
    os.mkfifo(folder / "pipe.png")
    return folder / "pipe.png"


def grey(files: dict, _: Any) -> np.ndarray:
    """The staged picture's brightness."""
    with Image.open(files["image"]) as image:
        assert image.mode == "RGB"
        assert image.size == (256, 192)
        return np.asarray(image.convert("L")).astype(int)


def upright(files: dict, result: Any) -> None:
    """The bright quarter lies at the top left and nowhere else."""
    picture = grey(files, result)
    assert picture[40, 60] > 200
    assert max(picture[40, 200], picture[150, 60], picture[150, 200]) < 60


def white(files: dict, result: Any) -> None:
    """All white: nothing hidden shows."""
    assert grey(files, result).min() == 255


def red(files: dict, result: Any) -> None:
    """The first frame of the animation."""
    grey(files, result)
    with Image.open(files["image"]) as image:
        assert image.getpixel((100, 100))[0] > 200
        assert image.getpixel((100, 100))[2] < 60


def usable(files: dict, result: Any) -> None:
    """A picture of the right size that is not of one colour."""
    assert grey(files, result).std() > 5


OUTSIDE = "../" * 12 + "etc/passwd"
IMAGES: list[tuple] = [
    *[(f"orientation {n}", turned(n), upright) for n in range(1, 9)],
    ("alpha", saved("a.png", clear("RGBA")), white),
    ("grey with alpha", saved("la.png", clear("LA")), white),
    ("transparent palette", saved("p.gif", clear("RGBA")), white),
    ("CMYK", saved("c.jpg", quarter(mode="CMYK")), upright),
    ("one bit", saved("b.png", quarter(mode="1")), upright),
    ("palette", saved("p.png", lambda: quarter().quantize(4)), upright),
    ("bitmap", saved("b.bmp", quarter()), upright),
    ("TIFF", saved("t.tiff", quarter()), upright),
    ("JPEG 2000", saved("j.jp2", quarter()), upright),
    ("animated GIF", frames("a.gif"), red),
    ("animated WebP", frames("a.webp", lossless=True), red),
    ("animated PNG", frames("a.png"), red),
    ("many pages", frames("a.tiff"), red),
    ("odd size", saved("o.png", quarter(321, 193)), upright),
    ("long and thin", saved("l.png", quarter(64, 6400)), grey),
    ("wrong extension", saved("photo.png", quarter(), format="JPEG"), upright),
    ("no extension", saved("photo", quarter(), format="PNG"), upright),
    ("also an archive", appended(saved("z.png", quarter()), b"PK\x03\x04evil.sh"), upright),
    ("broken EXIF", saved("e.jpg", quarter(), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"), upright),
    ("symbolic link", link(None), usable),
    ("spaces", named("my  holiday photo .png"), usable),
    ("Unicode", named("\u6f22\u5b57 \u00fc \U0001f98a\u202egnp.png"), usable),
    ("no valid text", named(b"\xff\xfe.png"), usable),
    ("quotes", named("a'b\"c`$(id).png"), usable),
    ("newline", named("new\nline.png"), usable),
    ("leading dashes", named("--rf.png"), usable),
    ("format signs", named("%s{0}%n;#?.png"), usable),
    ("1x1", saved("t.png", Image.new("RGB", (1, 1))), "too small"),
    ("63 px", saved("t.png", Image.new("RGB", (63, 500))), "too small"),
    ("50.4 MP", saved("h.png", lambda: Image.new("1", (7200, 7000))), "50 megapixels"),
    ("claims 100 MP", written("c.png", png_header(10000, 10000)), "50 megapixels"),
    ("claims 4,000 MP", written("c.png", png_header(65000, 65000)), "50 megapixels"),
    (
        "claims more than it holds",
        written("c.png", png_header(300, 300)),
        "cannot be read|can be read",
    ),
    ("truncated PNG", cut(lambda f: samples.image(f / "a.png"), 0.5), "not an image"),
    ("truncated JPEG", cut(saved("a.jpg", quarter()), 0.5), "not an image"),
    ("truncated WebP", cut(saved("a.webp", quarter()), 0.5), "not an image"),
    ("header only", cut(saved("a.png", quarter()), 0.02), "not an image"),
    ("zero bytes", written("e.png", b""), "empty"),
    ("text", written("t.png", b"hello"), "not an image"),
    (
        "script that begins as GIF",
        written("g.gif", b"GIF89a/*<script>alert(1)</script>*/"),
        "not an image|too small",
    ),
    ("SVG", written("s.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "not an image"),
    ("EPS", saved("e.eps", quarter()), "not an image"),
    ("video as image", lambda f: samples.video(f / "v.png.mp4", 0.3), "not an image"),
    ("folder", lambda f: f, "no file"),
    ("missing", lambda f: f / "nothing.png", "no file"),
    ("300 characters", lambda f: f / ("x" * 300 + ".png"), "no file"),
    ("path of 5,000 characters", lambda f: "a/" * 2500 + "b.png", "no file"),
    ("dangling link", link("nothing.png"), "no file"),
    ("link to itself", link("link.png"), "no file"),
    ("FIFO", queue_file, "no file"),
    ("device", lambda f: "/dev/zero", "no file"),
    ("kernel file", lambda f: "/proc/self/environ", "empty|no file"),
    ("outside by dots", lambda f: str(f / OUTSIDE), "not an image|no file"),
    ("outside by name", lambda f: "/etc/passwd", "not an image|no file"),
]


# ------------------------------------------------------------------ sound


def sound(
    name: str,
    codec: str = "pcm_s16le",
    rate: int = RATE,
    layout: str = "mono",
    seconds: float = 1.5,
    channel: int | None = None,
    **options: str,
) -> Make:
    """A maker that encodes noise; ``channel`` leaves all others silent."""

    def make(folder: Path) -> Path:
        count = len(av.AudioLayout(layout).channels)
        data = samples.noise(seconds, rate, count)
        if channel is not None:
            data[:, [n for n in range(count) if n != channel]] = 0
        with av.open(str(folder / name), "w") as out:
            stream = out.add_stream(codec, rate=rate, layout=layout, options=options)
            frame = av.AudioFrame.from_ndarray(data.reshape(1, -1), format="flt", layout=layout)
            frame.sample_rate = rate
            for part in av.AudioResampler(stream.format.name, layout, rate).resample(frame):
                out.mux(stream.encode(part))
            out.mux(stream.encode(None))
        return folder / name

    return make


def wave(name: str, data: np.ndarray, rate: int = RATE) -> Make:
    """A maker of a WAV with exactly these samples."""

    def make(folder: Path) -> Path:
        wavfile.write(folder / name, rate, data)
        return folder / name

    return make


def joined(folder: Path) -> Path:
    """Two MP3s of different rates in one file."""
    one = sound("1.mp3", "libmp3lame", 44100, seconds=0.6)(folder)
    two = sound("2.mp3", "libmp3lame", 22050, seconds=0.6)(folder)
    (folder / "both.mp3").write_bytes(one.read_bytes() + two.read_bytes())
    return folder / "both.mp3"


def heard(files: dict, result: Any) -> np.ndarray:
    """The staged samples [samples, channels]: finite, within full scale, as long as the clip."""
    rate, data = wavfile.read(files["audio"])
    data = data.reshape(len(data), -1)
    assert data.shape[1] <= 2
    assert np.isfinite(data).all()
    assert np.abs(data).max() <= 1
    assert len(data) >= 25 / 24 * rate
    return data


def loud(files: dict, result: Any) -> None:
    """There is sound in the first half second."""
    data = heard(files, result)
    assert np.abs(data[: len(data) // 3]).max() > 0.02


def silent(files: dict, result: Any) -> None:
    """There is none, and that is no error."""
    assert np.abs(heard(files, result)).max() == 0


def exact(rate: int, tolerance: float) -> Callable[[dict, Any], None]:
    """The staged samples are the original's, one by one."""

    def check(files: dict, result: Any) -> None:
        data = heard(files, result)[:, 0]
        original = samples.noise(1.5, rate)[: len(data), 0]
        assert np.abs(data[: len(original)] - original).max() <= tolerance

    return check


def padded(files: dict, result: Any) -> None:
    """Sound, then silence, and the person is told."""
    data = heard(files, result)
    assert np.abs(data[-2000:]).max() == 0
    assert np.abs(data[:2000]).max() > 0
    assert any("silence" in note for note in result.notes)


NAN = np.where(np.arange(RATE * 2) % 7, 0.25, np.nan).astype(np.float32)
AUDIO: list[tuple] = [
    *[
        (f"{r} Hz", sound("a.wav", rate=r), exact(r, 1 / 32000))
        for r in (8000, 11025, 44100, 96000)
    ],
    ("FLAC to the sample", sound("a.flac", "flac"), exact(RATE, 1 / 32000)),
    ("24 bit", sound("a.wav", "pcm_s24le"), exact(RATE, 1e-6)),
    ("8 bit", sound("a.wav", "pcm_u8"), exact(RATE, 0.02)),
    ("strange rate", sound("a.wav", rate=37800), loud),
    ("192 kHz", sound("a.wav", rate=192000), loud),
    ("5.1, only the centre", sound("a.wav", layout="5.1", channel=2), loud),
    ("7.1, only a side", sound("a.wav", layout="7.1", channel=6), loud),
    ("stereo", sound("a.wav", layout="stereo"), loud),
    ("MP3", sound("a.mp3", "libmp3lame"), loud),
    ("MP3 named WAV", lambda f: sound("a.mp3", "libmp3lame")(f).rename(f / "a.wav"), loud),
    ("M4A", sound("a.m4a", "aac"), loud),
    ("Opus", sound("a.ogg", "libopus"), loud),
    ("AIFF", sound("a.aiff", "pcm_s16be"), loud),
    ("two rates in one file", joined, loud),
    ("silent", wave("s.wav", np.zeros(RATE * 2, np.int16)), silent),
    ("0.1 s", sound("a.wav", seconds=0.11), padded),
    ("header promises more", cut(sound("a.wav", seconds=4.0), 0.125), padded),
    ("FLAC cut short", cut(sound("a.flac", "flac", seconds=4.0), 0.125), padded),
    ("no numbers", wave("n.wav", NAN), heard),
    ("far too loud", wave("l.wav", np.full(RATE * 2, 1e30, np.float32)), heard),
    ("a video's sound", lambda f: samples.video(f / "v.mp4", 1.2), loud),
    ("0.05 s", sound("a.wav", seconds=0.05), "too short"),
    ("header only", cut(sound("a.wav"), 0.0006), "too short"),
    ("zero bytes", written("a.wav", b""), "empty"),
    ("text", written("a.wav", b"this is text, and no sound"), "not an audio file"),
    ("playlist", written("a.m3u8", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"), "not an audio"),
    (
        "script of files",
        written("a.mp3", b"ffconcat version 1.0\nfile /etc/passwd\n"),
        "not an audio",
    ),
    ("picture", lambda f: samples.image(f / "a.png"), "not an audio"),
    ("video without sound", lambda f: samples.video(f / "v.mp4", 0.4, sound=False), "no sound"),
]


# ------------------------------------------------------------------ video


def clip(
    name: str,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    size: tuple[int, int] = (320, 240),
    times: list[float] | None = None,
    bright: tuple[int, int] = (0, 0),
    hdr: bool = False,
) -> Make:
    """A maker of a silent video: each frame as bright as its time, one corner white.

    Args:
        times: seconds at which frames are shown; 30 a second for 1.2 s by default.
        bright: (row, column) of the white quarter.
    """

    def make(folder: Path) -> Path:
        from fractions import Fraction

        width, height = size
        with av.open(str(folder / name), "w") as out:
            stream = out.add_stream(codec, rate=30)
            stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
            stream.codec_context.time_base = Fraction(1, 1000)
            if hdr:
                stream.codec_context.color_trc, stream.codec_context.color_primaries = 16, 9
            for time in times or [n / 30 for n in range(36)]:
                picture = np.full((height, width, 3), 30 + int(100 * time) % 120, np.uint8)
                row, column = bright[0] * height // 2, bright[1] * width // 2
                picture[row : row + height // 2, column : column + width // 2] = 255
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt)
                frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        return folder / name

    return make


def rotated(degrees: int) -> Make:
    """A phone's video: stored on its side, with a matrix that turns it clockwise when shown."""
    corner = {90: (1, 0), 180: (1, 1), 270: (0, 1)}[degrees]  # becomes the top left
    a, b = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]

    def make(folder: Path) -> Path:
        path = clip("phone.mp4", bright=corner)(folder)
        data = bytearray(path.read_bytes())
        at = data.index(b"tkhd") + 44  # the matrix of a version 0 track header (ISO 14496-12)
        one = 1 << 16
        matrix = (a * one, b * one, 0, -b * one, a * one, 0, 0, 0, 1 << 30)
        data[at : at + 36] = struct.pack(">9i", *matrix)
        path.write_bytes(data)
        return path

    return make


def scarred(make: Make) -> Make:
    """A maker whose file has zeros where pictures were."""

    def worse(folder: Path) -> Path:
        path = make(folder)
        data = bytearray(path.read_bytes())
        at = data.index(b"mdat") + 2000
        data[at : at + 400] = bytes(400)
        path.write_bytes(data)
        return path

    return worse


def cover(folder: Path) -> Path:
    """A song with a picture on its cover."""
    song = sound("song.mp3", "libmp3lame")(folder)
    art = samples.image(folder / "art.jpg")
    with (
        av.open(str(song)) as one,
        av.open(str(art)) as two,
        av.open(str(folder / "c.mp3"), "w") as out,
    ):
        from av.stream import Disposition

        streams = [out.add_stream_from_template(c.streams[0]) for c in (one, two)]
        streams[1].disposition = Disposition.attached_pic
        for container, stream in ((one, streams[0]), (two, streams[1])):
            for packet in container.demux():
                if packet.dts is not None:
                    packet.stream = stream
                    out.mux(packet)
    return folder / "c.mp3"


def staged_frames(files: dict, _: Any = None) -> list[np.ndarray]:
    """The staged video's brightness: 25 frames of 256x256 at 24 a second, no sound in the file."""
    with av.open(str(files["video"])) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 24
        assert stream.pix_fmt == "yuv420p"
        assert not container.streams.audio
        found = [f.to_ndarray(format="gray").astype(int) for f in container.decode(stream)]
    assert len(found) == 25
    assert found[0].shape == (256, 256)
    return found


def plays(files: dict, result: Any) -> None:
    """25 frames, white at the top left and nowhere else, and no sound."""
    for frame in staged_frames(files)[:12]:
        assert frame[40, 40] > 200
        assert max(frame[40, 215], frame[215, 40], frame[215, 215]) < 190
    assert "audio" not in files


def moves(files: dict, result: Any) -> None:
    """25 frames in which something happens."""
    found = staged_frames(files)
    assert np.abs(found[0] - found[20]).max() > 40


UNEVEN = [0, 0.04, 0.08, 0.12, 0.5, 0.54, 0.58, 0.9, 0.94, 1.0, 1.1, 1.2]


def on_time(files: dict, result: Any) -> None:
    """Each frame shows what the source shows at that moment, within one frame of 24 a second."""
    for number, frame in enumerate(staged_frames(files)):
        shown = (np.median(frame[200:, 200:]) - 30) / 100
        moment = number / 24
        near = [t for t in UNEVEN if t <= moment + 1 / 24]
        last = max(t for t in UNEVEN if t <= max(0, moment - 1 / 24)) if moment else 0
        assert last - 0.05 <= shown <= max(near) + 0.05, (number, shown)


def paler(files: dict, result: Any) -> None:
    """Plays, and the person is told about its colours."""
    staged_frames(files)
    assert any("HDR" in note for note in result.notes)


def with_sound(files: dict, result: Any) -> None:
    """Its sound is staged beside it."""
    moves(files, result)
    loud(files, result)


def long_clip(folder: Path) -> Path:
    """Ten minutes at 1080p, nearly still: small to store, 75 GB as float32."""
    times = [n / 2 for n in range(4)] + [60.0 * n for n in range(1, 11)]
    return clip("long.mp4", size=(1920, 1080), times=times)(folder)


VIDEO: list[tuple] = [
    ("no sound track", clip("v.mp4"), plays),
    ("with sound", lambda f: samples.video(f / "v.mp4"), with_sound),
    ("variable frame rate", clip("v.mkv", times=UNEVEN), on_time),
    *[(f"phone, {d} degrees", rotated(d), plays) for d in (90, 180, 270)],
    ("odd size", clip("v.mkv", "ffv1", "yuv444p", (321, 241)), plays),
    ("10 bit", clip("v.mkv", "ffv1", "yuv420p10le"), plays),
    ("HDR", clip("v.mkv", "ffv1", "yuv420p10le", hdr=True), paler),
    ("WebM", clip("v.webm", "libvpx-vp9"), plays),
    ("transport stream", clip("v.ts"), plays),
    ("GIF", frames("v.gif", duration=300), staged_frames),
    ("one frame", clip("v.mkv", times=[0.0]), plays),
    ("wrong extension", lambda f: clip("v.mp4")(f).rename(f / "v.mov"), plays),
    ("cut short", cut(lambda f: samples.video(f / "v.ts"), 0.6), staged_frames),
    ("damaged inside", scarred(lambda f: samples.video(f / "v.mp4")), staged_frames),
    ("without its index", cut(clip("v.mp4"), 0.6), "not a video"),
    ("32 px", clip("v.mp4", size=(32, 32)), "too small"),
    ("zero bytes", written("v.mp4", b""), "empty"),
    ("text", written("v.mp4", b"hello" * 100), "not a video"),
    ("playlist", written("v.mp4", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"), "not a video"),
    ("sound only", lambda f: samples.audio(f / "a.wav"), "no picture"),
    ("a song's cover", cover, "no picture"),
    ("picture", lambda f: samples.image(f / "a.jpg"), "not a video"),
]


def _cases(mode: str, name: str, rows: list[tuple]) -> list[Case]:
    return [
        Case(
            f"{name}: {row[0]}",
            mode,
            name,
            row[1],
            row[2] if isinstance(row[2], str) else "",
            None if isinstance(row[2], str) else row[2],
        )
        for row in rows
    ]


CASES = [
    *_cases("i2v", "image", IMAGES),
    *_cases("a2v", "audio", AUDIO),
    *_cases("style", "video", VIDEO),
    *[
        Case(
            f"audio: start {start:g} s of 1.5 s",
            "a2v",
            "audio",
            sound("a.wav"),
            "audio_start",
            None,
            {"audio_start": start},
        )
        for start in (1.45, 1.5, 36000.0)
    ],
]
