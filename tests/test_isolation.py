"""What one visitor can reach: a real server on the loopback, asked as a stranger would."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import samples

import bootstrap
from errors import BadInput
from visits import Visits

httpx = pytest.importorskip("httpx")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The page, served without its engine: what is refused is refused before one is needed."""
    import ui
    from jobs import Studio

    outputs = tmp_path_factory.mktemp("outputs")
    studio = Studio("demo", outputs, keep=False)
    page = ui.build(studio)
    _, url, _ = page.launch(
        server_name="127.0.0.1",
        prevent_thread_lock=True,
        quiet=True,
        allowed_paths=[str(outputs)],
        **ui.launch_arguments(),
    )
    with httpx.Client(base_url=url, timeout=30) as client:
        yield client, studio, outputs
    page.close()


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        str(bootstrap.REPO / "app.py"),
        str(bootstrap.REPO / "logs" / "aio.log"),
        str(bootstrap.REPO / "tests" / ".." / "engine.py"),
        str(bootstrap.comfy_dir() / "input" / "example.png"),
        "../../../../etc/passwd",
    ],
)
def test_files_of_the_machine_are_not_served(site, path):
    client, _, outputs = site
    for asked in (path, f"{outputs}/../{path}", f"{outputs}/..{path}"):
        answer = client.get(f"/gradio_api/file={asked}")
        assert answer.status_code in (403, 404), asked


def test_folders_are_not_listed(site):
    client, studio, outputs = site
    folder = studio.visits.of("somebody").folder
    folder.mkdir(parents=True)
    samples.video(folder / "t2v-1-0123456789ab.mp4", 0.2)
    for asked in (outputs, folder):
        answer = client.get(f"/gradio_api/file={asked}")
        assert answer.status_code >= 400
        assert "t2v-1" not in answer.text
        assert asked == folder or folder.name not in answer.text


def test_more_than_the_limit_is_refused_while_it_arrives(site):
    client, _, _ = site

    def endless():
        for _ in range(700):
            yield bytes(1 << 20)

    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n'
    try:
        answer = client.post(
            "/gradio_api/upload",
            content=(part for parts in ([head], endless()) for part in parts),
            headers={"Content-Type": "multipart/form-data; boundary=x"},
        )
        assert answer.status_code == 413
    except httpx.TransportError:
        pass  # the server hung up on the way: refused, too
    import gradio.utils

    big = [p for p in Path(gradio.utils.get_upload_folder()).rglob("*") if p.is_file()]
    assert all(path.stat().st_size < 513 * 2**20 for path in big)


@pytest.mark.parametrize(
    "path", ["/etc/passwd", str(bootstrap.REPO / "app.py"), "../../secret.png"]
)
def test_a_path_is_no_upload(site, path):
    client, _, _ = site
    body = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}], "session_hash": "abc"}
    begun = client.post("/gradio_api/call/i2v", json=body)
    text = begun.text
    if begun.status_code == 200:
        event = json.loads(begun.text)["event_id"]
        text = client.get(f"/gradio_api/call/i2v/{event}").text
        assert "error" in text
    assert "root:" not in text
    assert ".mp4" not in text


def test_two_visits_share_nothing(tmp_path):
    visits = Visits(tmp_path, keep=False)
    one, two = visits.of("one"), visits.of("two")
    assert one.folder != two.folder
    assert one is visits.of("one")
    assert visits.of(None).folder != visits.of(None).folder
    name = one.folder.name.split("-", 2)[2]
    assert len(name) >= 24  # 144 random bits


def test_a_link_or_a_video_fills_the_form_and_opens_nothing(tmp_path, monkeypatch):
    import media
    import reopening
    import tags
    from request import Request

    secret = samples.image(tmp_path / "secret.png")
    monkeypatch.chdir(tmp_path)
    for named in (str(secret), "secret.png", "./secret.png"):
        saved = Request(mode="i2v", image=named).to_json()
        filled, _ = reopening.from_text(saved)
        with pytest.raises(BadInput, match="no file"):
            media.plan(filled)
        video = tmp_path / "upload" / "forged.mp4"
        tags.finish(samples.video(tmp_path / "v.mp4", 0.2), video, {"request": saved})
        filled, sentence = reopening.from_file(video)
        assert "secret.png" in sentence
        with pytest.raises(BadInput, match="no file"):
            media.plan(filled)
