"""tools/refresh_models.py and tools/sync_preload.py."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from fake_hub import FakeHub
from weights_lab import Studio, cached, empty_machine, safetensors

import places
import registry
from modes import MODES
from registry import FILES, GB, REGISTRY
from tools import _forms, refresh_models, sync_preload

VAE = REGISTRY["vae", "LTX23_video_vae_bf16.safetensors"]
UNET = REGISTRY["diffusion_models", registry.TRANSFORMER_FP8]
FORMS = [(mode.key, preset) for mode in MODES.values() for preset in mode.presets]


@pytest.fixture
def machine(tmp_path, monkeypatch):
    return empty_machine(tmp_path, monkeypatch)


def test_refresh_models_shows_repairs_and_counts(machine, capsys):
    comfy = machine / "comfy"
    (comfy / "nodes.py").touch()
    for file in _forms.default_files("t2v", "fast")[2:]:
        cached(machine / "hf", file, safetensors())
    dangling = comfy / "models/vae" / VAE.name
    dangling.parent.mkdir()
    dangling.symlink_to("gone")
    nowhere = places.target(UNET, comfy)
    nowhere.parent.mkdir()
    nowhere.symlink_to("gone")
    assert refresh_models.main(["--comfy", str(comfy)]) == 0
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if line.startswith("t2v       fast"))
    assert row.split()[2:] == ["7", "42.5", "GB", "2", "files,", "34.6", "GB"]
    assert "repaired: vae/LTX23_video_vae_bf16.safetensors" in out
    assert "removed a link to nothing: diffusion_models/" in out
    assert dangling.is_file()
    assert not nowhere.is_symlink()
    assert "[2.0-19b], for camera=jib-up" in out
    refresh_models.main(["--comfy", str(comfy)])
    assert "repaired" not in capsys.readouterr().out


def test_refresh_models_fetches_one_form(tmp_path):
    with FakeHub() as hub:
        studio = Studio(tmp_path, hub)
        (studio.comfy).mkdir()
        (studio.comfy / "nodes.py").touch()
        for n, file in enumerate(_forms.default_files("t2v", "fast")):
            hub.add(file.repo, file.path, safetensors(1000 + n))
        tool = _forms.REPO / "tools/refresh_models.py"
        args = ["--fetch", "t2v", "--preset", "fast", "--comfy", str(studio.comfy)]
        done = subprocess.run(
            [sys.executable, str(tool), *args],
            env={**os.environ, **studio.environ()},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "7 files are missing" in done.stderr
        assert "100 %" in done.stderr
        assert "nothing" in next(r for r in done.stdout.splitlines() if r.startswith("t2v"))
        assert len(studio.mistakable()) == 7


def test_refresh_models_refuses_to_fetch_into_no_comfyui(machine, capsys):
    assert refresh_models.main(["--fetch", "t2v", "--comfy", str(machine / "none")]) == 1
    assert "tools/run.py" in capsys.readouterr().err
    assert not (machine / "none").exists()


def test_preload_entries_keep_hugging_faces_limits():
    for weights in ("fp8", "bf16"):
        wanted = sync_preload.entries(weights)
        assert 1 <= len(wanted) <= 10
        files = {(f.repo, f.path): f for f in FILES}
        sizes = []
        for entry in wanted:
            repo, paths = entry.split(" ")
            sizes.append(sum(files[repo, path].size for path in paths.split(",")))
        assert sizes == sorted(sizes, reverse=True)
        assert sum(sizes) <= 150 * GB
    every = {f for m, p in FORMS for f in _forms.default_files(m, p)}
    listed = " ".join(sync_preload.entries())
    assert all(file.path in listed for file in every)


def test_preload_rewrites_its_own_key_only(tmp_path, capsys):
    readme = tmp_path / "README.md"
    before = "---\ntitle: LTX # a comment\npreload_from_hub:\n- old a,b\n- old2 c\nsdk: gradio\n---\n# Text\n---\n"
    readme.write_text(before)
    assert sync_preload.main(["--check", "--readme", str(readme)]) == 1
    assert readme.read_text() == before
    assert sync_preload.main(["--readme", str(readme)]) == 0
    text = readme.read_text()
    assert text.startswith("---\ntitle: LTX # a comment\npreload_from_hub:\n  - Kijai/")
    assert text.endswith("\nsdk: gradio\n---\n# Text\n---\n")
    assert "old" not in text
    assert sync_preload.main(["--check", "--readme", str(readme)]) == 0
    import yaml

    block = yaml.safe_load(text.split("---\n")[1])
    assert block["preload_from_hub"] == sync_preload.entries()
    assert block["sdk"] == "gradio"
    assert sync_preload.rewrite("# No block\n", ["a b"]) == (
        "---\npreload_from_hub:\n  - a b\n---\n\n# No block\n"
    )
    with pytest.raises(ValueError, match="no closing"):
        sync_preload.rewrite("---\ntitle: x\n", ["a b"])
    capsys.readouterr()


def test_readme_preloads_what_the_graphs_need():
    if not sync_preload.README.is_file():
        pytest.skip("there is no README.md yet")
    text = sync_preload.README.read_text(encoding="utf-8")
    assert sync_preload.rewrite(text, sync_preload.entries()) == text, (
        "run python tools/sync_preload.py"
    )
