"""The three lists of packages: what a Space takes, and that what is installed is what they say."""

from __future__ import annotations

import ast
import importlib.metadata
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SPACE, LOCAL, DEV = "requirements.txt", "requirements-local.txt", "requirements-dev.txt"
# torch versions ZeroGPU takes (Hugging Face's documentation, August 2026), and what belongs to them.
TRIOS = {
    "2.8.0": ("0.23.0", "2.8.0"),
    "2.9.1": ("0.24.1", "2.9.1"),
    "2.10.0": ("0.25.0", "2.10.0"),
    "2.11.0": ("0.26.0", "2.11.0"),
}
OF_A_SPACE = {"gradio", "spaces", "huggingface-hub"}  # a Space brings these itself
# Never installed: other builds of OpenCV, and what needs a card or a compiler to install.
NEVER = {
    "opencv-python",
    "opencv-contrib-python",
    "onnxruntime-gpu",
    "xformers",
    "flash-attn",
    "triton",
    "sageattention",
    "bitsandbytes",
}


def listed(repo: Path, name: str) -> dict[str, Requirement]:
    """A list's own requirements by their canonical names; each is named once."""
    found: dict[str, Requirement] = {}
    for line in (repo / name).read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if not text or text.startswith("-r "):
            continue
        assert not text.startswith("-"), f"{name}: {text}: no options, a Space would not know them"
        requirement = Requirement(text)
        key = canonicalize_name(requirement.name)
        assert key not in found, f"{name} names {key} twice"
        found[key] = requirement
    return found


def pinned(requirement: Requirement) -> str:
    """The one version that is allowed."""
    (one,) = requirement.specifier
    assert one.operator == "=="
    return one.version


def test_torch_is_a_version_zerogpu_takes_with_its_own_companions(repo):
    space = listed(repo, SPACE)
    torch = pinned(space["torch"])
    assert torch in TRIOS
    assert (pinned(space["torchvision"]), pinned(space["torchaudio"])) == TRIOS[torch]


def test_a_space_is_told_nothing_it_brings_itself(repo):
    assert not OF_A_SPACE & set(listed(repo, SPACE))
    assert set(listed(repo, LOCAL)) == OF_A_SPACE
    assert pinned(listed(repo, LOCAL)["spaces"]) == "0.51.3"  # the one the tests were run with


def test_a_space_installs_by_one_plain_list(repo):
    lines = (repo / SPACE).read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if line.startswith("-")]
    for requirement in listed(repo, SPACE).values():
        assert not requirement.url  # a wheel of one platform would shut out the others
        assert requirement.specifier, f"{requirement.name} without any version"


def test_nothing_is_listed_that_needs_a_card_or_harms_another(repo):
    for name in (SPACE, LOCAL, DEV):
        assert not NEVER & set(listed(repo, name)), name
    assert not listed(repo, SPACE)["kornia"].specifier.contains("0.8.3")  # breaks a pack


def test_the_lists_include_each_other(repo):
    assert f"-r {SPACE}\n" in (repo / LOCAL).read_text(encoding="utf-8")
    assert f"-r {LOCAL}\n" in (repo / DEV).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [SPACE, LOCAL])
def test_what_is_installed_here_is_what_the_list_says(repo, name):
    wrong = []
    for key, requirement in listed(repo, name).items():
        try:
            version = importlib.metadata.version(key)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{key} is not installed")
            continue
        if not requirement.specifier.contains(version.partition("+")[0], prereleases=True):
            wrong.append(f"{key} {version} is not {requirement.specifier}")
    if wrong and len(wrong) == len(listed(repo, name)):
        pytest.skip("another Python than the studio's own")
    assert not wrong


def test_every_package_the_code_imports_is_listed(repo):
    names = {canonicalize_name(n) for file in (SPACE, LOCAL) for n in listed(repo, file)}
    modules = importlib.metadata.packages_distributions()
    own = {path.stem for path in repo.glob("*.py")} | {"tools", "comfy", "nodes", "execution"}
    unlisted = set()
    for path in repo.glob("*.py"):
        for module in imported(path):
            if module in own or module in sys.stdlib_module_names or module not in modules:
                continue
            if not {canonicalize_name(d) for d in modules[module]} & names:
                unlisted.add(f"{path.name}: {module}")
    # Gradio's and huggingface_hub's own, and always there with them.
    brought = {"httpx", "anyio", "fastapi", "starlette", "packaging", "orjson", "hf_xet"}
    assert not {one for one in unlisted if one.split(": ")[1] not in brought}


def imported(path: Path) -> set[str]:
    """Top-level names a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found
