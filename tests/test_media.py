"""Files people give: probed, refused with a sentence, normalised."""

from __future__ import annotations

import av
import numpy as np
import pytest
import samples
from PIL import Image
from scipy.io import wavfile

import media
import tags
from convert import read_sound
from errors import BadInput
from mediafile import probe
from request import Request


def staged(request: Request, folder):
    result = media.stage(request, folder / "input")
    return {name: folder / "input" / file for name, file in result.names.items()}, result


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(tmp_path, orientation):
    upright = Image.new("RGB", (320, 192), "black")
    upright.paste("red", (0, 0, 160, 96))  # the top left quarter
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # PIL transposes that undo each orientation
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "photo.png"
    stored.save(path, exif=exif)
    assert (probe(path, "image").width, probe(path, "image").height) == (320, 192)
    picture = np.asarray(media.fit_image(path, 320, 192))
    assert picture[40, 60, 0] > 200
    for y, x in ((40, 260), (150, 60), (150, 260)):
        assert picture[y, x, 0] < 50


def test_transparency_goes_over_white(tmp_path):
    Image.new("RGBA", (128, 128), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert np.asarray(media.fit_image(tmp_path / "clear.png", 128, 128)).min() == 255


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (128, 128), c) for c in ("red", "blue", "green")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert tuple(np.asarray(media.fit_image(tmp_path / "a.gif", 64, 64))[30, 30]) == (255, 0, 0)


def test_sixteen_bit_images_keep_their_tones(tmp_path):
    Image.fromarray(np.full((128, 128), 0x8000, np.uint16)).save(tmp_path / "grey16.png")
    assert 120 <= np.asarray(media.fit_image(tmp_path / "grey16.png", 64, 64)).mean() <= 136


def test_images_are_cropped_around_their_centre(tmp_path):
    wide = Image.new("RGB", (400, 100), "blue")
    wide.paste("red", (150, 0, 250, 100))
    wide.save(tmp_path / "wide.png")
    assert np.asarray(media.fit_image(tmp_path / "wide.png", 128, 128))[:, :, 0].min() > 200


@pytest.mark.parametrize(
    ("kind", "content", "says"),
    [
        ("image", b"", "empty"),
        ("image", b"hello", "not an image"),
        ("audio", b"hello, this is text", "not an audio file"),
        ("video", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "not a video"),
    ],
)
def test_files_that_are_not_what_they_should_be_are_refused(tmp_path, kind, content, says):
    path = tmp_path / "file.bin"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=says) as refused:
        probe(path, kind, "image")
    assert refused.value.where == "image"


def test_a_truncated_image_is_refused_before_it_is_staged(tmp_path):
    path = samples.image(tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(BadInput):
        staged(Request(mode="i2v", image=str(path)), tmp_path)
    assert not list((tmp_path / "input").glob("*"))


@pytest.mark.parametrize("size", [(1, 1), (63, 200)])
def test_tiny_images_are_refused(tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "t.png")
    with pytest.raises(BadInput, match="too small"):
        probe(tmp_path / "t.png", "image")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "nope.png", tmp_path):
        with pytest.raises(BadInput, match="no file"):
            probe(path, "image")


def test_kinds_are_not_confused(tmp_path):
    sound, clip = samples.audio(tmp_path / "a.wav"), samples.video(tmp_path / "v.mp4", sound=False)
    with pytest.raises(BadInput, match="no picture"):
        probe(sound, "video")
    with pytest.raises(BadInput, match="no sound"):
        probe(clip, "audio")


def test_probe_tells_what_a_video_holds(tmp_path):
    info = probe(samples.video(tmp_path / "v.mp4", 2.0, 30), "video")
    assert (info.width, info.height, info.has_audio, info.channels) == (320, 240, True, 1)
    assert info.fps == pytest.approx(30)
    assert info.seconds == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000, 96000])
@pytest.mark.parametrize("start", [0.0, 0.5])
def test_staged_sound_is_the_original_to_the_sample(tmp_path, rate, start):
    path = samples.audio(tmp_path / "a.wav", 2.0, rate)
    request = Request(mode="a2v", audio=str(path), audio_start=start, seconds=1, fps=24)
    files, _ = staged(request, tmp_path)
    out_rate, out = wavfile.read(files["audio"])
    original = wavfile.read(path)[1][int(start * rate) :]
    assert out_rate == rate
    assert len(out) >= request.duration * rate
    count = min(len(out), len(original))
    assert np.array_equal(out[:count], original[:count])


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 32000, 44100, 48000, 96000])
@pytest.mark.parametrize("seconds", [1, 2, 5.3])
def test_staged_sound_loses_nothing_in_the_vae_crop(tmp_path, rate, seconds):
    path = samples.audio(tmp_path / "a.wav", 0.5, rate)
    files, _ = staged(Request(mode="a2v", audio=str(path), seconds=seconds), tmp_path)
    count = -(-len(wavfile.read(files["audio"])[1]) * 44100 // rate)  # what torchaudio resamples to
    assert (count % 4096) // 2 <= 0.0001 * 44100


def test_short_sound_is_padded_with_silence_and_says_so(tmp_path):
    path = samples.audio(tmp_path / "a.wav", 0.5)
    request = Request(mode="a2v", audio=str(path), seconds=2)
    files, result = staged(request, tmp_path)
    out = wavfile.read(files["audio"])[1]
    assert np.abs(out[24000:]).max() == 0
    assert len(out) / 48000 >= request.duration
    assert any("silence" in note for note in result.notes)


@pytest.mark.parametrize(("seconds", "start"), [(0.05, 0.0), (2.0, 1.95), (2.0, 9.0)])
def test_sound_too_short_is_refused(tmp_path, seconds, start):
    path = samples.audio(tmp_path / "a.wav", seconds)
    with pytest.raises(BadInput) as refused:
        media.plan(Request(mode="a2v", audio=str(path), audio_start=start))
    assert refused.value.where == "audio"


def test_surround_sound_is_mixed_down_with_its_centre(tmp_path):
    data = np.zeros((48000, 6), np.float32)
    data[:, 2] = 0.5 * np.sin(np.arange(48000) * 0.05)  # dialogue sits in the centre channel
    with av.open(str(tmp_path / "s.wav"), "w") as out:
        stream = out.add_stream("pcm_f32le", rate=48000, layout="5.1")
        frame = av.AudioFrame.from_ndarray(data.reshape(1, -1), format="flt", layout="5.1")
        frame.sample_rate = 48000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    sound, rate = read_sound(tmp_path / "s.wav", 0, 1)
    assert (sound.shape[0], rate) == (2, 48000)
    assert np.abs(sound).max() > 0.1


@pytest.mark.parametrize(("source_fps", "seconds"), [(30, 2.0), (12, 2.0), (24, 0.4)])
def test_staged_video_has_exactly_the_clips_frames(tmp_path, source_fps, seconds):
    path = samples.video(tmp_path / "v.mp4", seconds, source_fps)
    request = Request(mode="style", video=str(path), width=256, height=256, seconds=1, fps=24)
    files, _ = staged(request, tmp_path)
    with av.open(str(files["video"])) as container:
        stream = container.streams.video[0]
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(stream)]
        assert stream.average_rate == 24
        assert not container.streams.audio
    assert len(frames) == request.frames == 25
    assert frames[0].shape == (256, 256, 3)
    assert np.abs(frames[0].astype(int) - frames[5]).max() > 60  # the square has moved


def test_a_sideways_phone_video_is_turned_upright(tmp_path):
    path = samples.video(tmp_path / "v.mp4", 0.5, 24, (320, 240), sound=False)
    turned = tmp_path / "t.mov"
    with av.open(str(path)) as old, av.open(str(turned), "w") as new:
        source = old.streams.video[0]
        stream = new.add_stream_from_template(source)
        stream.metadata["rotate"] = "90"
        for packet in old.demux(source):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    with av.open(str(turned)) as check:
        rotated = next(check.decode(check.streams.video[0])).rotation
    info = probe(turned, "video")
    assert (info.width, info.height) == ((240, 320) if rotated % 180 else (320, 240))


def test_same_content_gets_the_same_name_and_other_content_another(tmp_path):
    first, second = tmp_path / "one", tmp_path / "two"
    first.mkdir()
    second.mkdir()
    a = samples.image(first / "image.png", seed=1)
    b = samples.image(second / "image.png", seed=2)
    name = lambda p, **v: media.plan(Request(mode="i2v", image=str(p), **v)).names["image"]  # noqa: E731
    assert name(a) == name(a) != name(b)
    assert name(a, width=512) != name(a)


def test_names_with_quotes_newlines_and_dashes_stay_outside(tmp_path):
    for odd in (
        "-rf .png",
        "a'b\"c.png",
        "new\nline.png",
        "\u6f22\u5b57 \u00fc.png",
        "x" * 200 + ".png",
    ):
        path = samples.image(tmp_path / odd)
        files, _ = staged(Request(mode="i2v", image=str(path)), tmp_path)
        assert media.STAGED_NAME.fullmatch(files["image"].name)


def test_tags_are_separate_and_come_back(tmp_path):
    source = samples.video(tmp_path / "v.mp4")
    request = Request(mode="t2v", prompt='caf\u00e9 \u6f22 "quoted"')
    tags.finish(source, tmp_path / "out.mp4", {"prompt": '{"1": {}}', "request": request.to_json()})
    read = tags.read_tags(tmp_path / "out.mp4")
    assert read["prompt"] == '{"1": {}}'
    assert tags.read_request(tmp_path / "out.mp4") == request
    data = (tmp_path / "out.mp4").read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat")  # faststart


def test_a_video_without_request_says_so(tmp_path):
    with pytest.raises(BadInput, match="carries no request"):
        tags.read_request(samples.video(tmp_path / "v.mp4"))


def test_a_replayed_request_finds_files_beside_the_video(tmp_path):
    picture = samples.image(tmp_path / "face.png")
    request = Request(mode="i2v", image="face.png")
    found = tags.with_found_files(request, samples.video(tmp_path / "video.mp4", 0.2))
    assert found.image == str(picture)
