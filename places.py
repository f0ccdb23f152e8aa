"""Where model files may lie on this machine, whether one is whole, and how it reaches ComfyUI.

A room below :mod:`models`: no network, no graph. It never deletes a file it did not make; a damaged
one that stands where ComfyUI looks is set aside under another name.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import hub_cache
from registry import AUX, ModelFile

# Names under which ComfyUI still reads these folders.
OLD_NAMES = {"diffusion_models": ("unet",), "text_encoders": ("clip",)}
DEPTH = 4  # how deep folders of other programs are searched
LONGEST_HEADER = 100_000_000  # bytes; the safetensors format's own limit


def target(file: ModelFile, comfy_dir: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Where ComfyUI, or comfyui_controlnet_aux for its detectors, looks for the file."""
    tree = environ.get("AUX_ANNOTATOR_CKPTS_PATH")
    if file.folder == AUX and tree:
        return Path(tree) / file.repo / file.path
    return comfy_dir / "models" / file.place


def extra_dirs(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """The folders of ``LTX23_AIO_MODELS``, a list as PATH is one; missing ones are left out."""
    given = environ.get("LTX23_AIO_MODELS", "").split(os.pathsep)
    paths = [Path(os.path.expandvars(os.path.expanduser(part))) for part in given if part.strip()]
    return [path for path in paths if path.is_dir()]


def whole(path: Path) -> str:
    """Why the file cannot be whole, in words; "" where nothing is wrong with it.

    Reads the structure, not the data: a safetensors header says how long the file must be, a zip
    (``.pt``, ``.pth``) ends with its directory. Formats without either only must not be empty.
    """
    try:
        info = path.stat()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return _whole(str(path), info.st_size, info.st_mtime_ns)


@lru_cache(maxsize=256)  # a pure function of what the file was when it was looked at
def _whole(path: str, size: int, mtime: int) -> str:
    if size == 0:
        return "is empty"
    try:
        if path.endswith((".safetensors", ".sft")):
            return _whole_safetensors(path, size)
        if path.endswith((".pt", ".pth", ".bin")):
            with open(path, "rb") as stream:
                if stream.read(2) != b"PK":
                    return ""  # an old pickle: nothing to go by
            return "" if zipfile.is_zipfile(path) else "is cut short"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return ""


def _whole_safetensors(path: str, size: int) -> str:
    with open(path, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= LONGEST_HEADER:
            return "is not a safetensors file"
        header = stream.read(length)
    if len(header) < length:
        return "is cut short"
    try:
        tensors = json.loads(header)
        ends = [t["data_offsets"][1] for name, t in tensors.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return "is not a safetensors file"
    must = 8 + length + max(ends, default=0)
    return "" if size == must else f"has {size:,} bytes where its header says {must:,}"


class Finder:
    """Looks for model files that are here already.

    Args:
        comfy_dir: ComfyUI's folder.
        extra: further folders, laid out as ComfyUI's or flat.
        cache: the Hugging Face cache's ``hub`` folder.
        environ: for ``AUX_ANNOTATOR_CKPTS_PATH``.

    Attributes:
        damaged: (path, why) of files that were passed over.
    """

    def __init__(
        self,
        comfy_dir: Path,
        extra: Sequence[Path],
        cache: Path,
        environ: Mapping[str, str] = os.environ,
    ):
        self.comfy_dir, self.extra, self.cache = comfy_dir, list(extra), cache
        self.environ = environ
        self.damaged: list[tuple[Path, str]] = []
        self._yaml: dict[str, list[Path]] | None = None
        self._index: dict[str, list[Path]] | None = None

    def find(self, file: ModelFile) -> Path | None:
        """The first whole copy, or None. Damaged ones on the way go to :attr:`damaged`."""
        seen: set[Path] = set()
        for path in self._candidates(file):
            if path in seen or not path.is_file():
                continue
            seen.add(path)
            why = whole(path)
            if not why:
                return path
            self.damaged.append((path, why))
        return None

    def _candidates(self, file: ModelFile) -> Iterator[Path]:
        yield target(file, self.comfy_dir, self.environ)
        names = _names(file)
        models = self.comfy_dir / "models"
        if file.folder == AUX:
            pack = self.comfy_dir / "custom_nodes" / "comfyui_controlnet_aux" / "ckpts"
            yield from (models / AUX / file.repo / file.path, pack / file.repo / file.path)
        for folder in (file.folder, *OLD_NAMES.get(file.folder, ())):
            yield from (models / folder / name for name in names)
            for root in self.extra:
                for base in (root / folder, root / "models" / folder):
                    yield from (base / name for name in names)
        for root in self.extra:
            yield from (root / name for name in names)
        for folder in (file.folder, *OLD_NAMES.get(file.folder, ())):
            for base in self._paths_of_comfy().get(folder, ()):
                yield from (base / name for name in names)
        cached = hub_cache.find(file.repo, file.path, self.cache)
        if cached:
            yield cached
        for name in names:  # last: it walks
            yield from self._anywhere().get(name, ())

    def _paths_of_comfy(self) -> dict[str, list[Path]]:
        """Folder type -> folders, from ComfyUI's extra_model_paths.yaml."""
        if self._yaml is None:
            self._yaml = _read_yaml(self.comfy_dir / "extra_model_paths.yaml")
        return self._yaml

    def _anywhere(self) -> dict[str, list[Path]]:
        """File name -> paths, for everything below the extra folders, a few levels deep."""
        if self._index is None:
            self._index = {}
            roots = [*self.extra, *(p for ps in self._paths_of_comfy().values() for p in ps)]
            for root in dict.fromkeys(roots):
                for folder, folders, names in os.walk(root):
                    if len(Path(folder).relative_to(root).parts) >= DEPTH:
                        folders.clear()
                    for name in names:
                        self._index.setdefault(name, []).append(Path(folder) / name)
        return self._index


def _names(file: ModelFile) -> list[str]:
    given = (file.name, file.alias, file.path.rpartition("/")[2])
    return [name for name in dict.fromkeys(given) if name]


def _read_yaml(path: Path) -> dict[str, list[Path]]:
    """ComfyUI's extra_model_paths.yaml, by its own rules; {} where there is none or it is broken."""
    if not path.is_file():
        return {}
    import yaml

    try:
        sections = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}  # ComfyUI itself reports it
    found: dict[str, list[Path]] = {}
    for section in sections.values() if isinstance(sections, dict) else ():
        if not isinstance(section, dict):
            continue
        base = os.path.expandvars(os.path.expanduser(str(section.get("base_path") or "")))
        base = os.path.join(path.parent, base)
        for folder, lines in section.items():
            if folder not in ("base_path", "is_default") and isinstance(lines, str):
                for line in filter(None, (text.strip() for text in lines.split("\n"))):
                    found.setdefault(folder, []).append(
                        Path(os.path.normpath(os.path.join(base, line)))
                    )
    return found


# ---------------------------------------------------------------------------------- placing


def place(source: Path, at: Path) -> str:
    """Make ``at`` lead to ``source``: a symbolic link, else a hard link, else a copy.

    A link that leads elsewhere or nowhere is replaced. A damaged file of somebody else's that stands
    there is renamed to ``<name>.damaged``, which ComfyUI does not list. ComfyUI never sees a part:
    a copy is made under another name and renamed.

    Returns:
        "kept", "linked", "hard-linked" or "copied".

    Raises:
        OSError: the folder cannot be written, or a copy does not fit.
    """
    if at.exists() and at.samefile(source):
        return "kept"
    at.parent.mkdir(parents=True, exist_ok=True)
    if at.is_symlink():
        at.unlink()
    elif at.exists():
        os.replace(at, at.with_name(at.name + ".damaged"))
    for how, make, leads_to in (
        ("linked", os.symlink, os.path.abspath(source)),
        ("hard-linked", os.link, os.path.realpath(source)),
    ):
        try:
            make(leads_to, at)
            return how
        except FileExistsError:
            return "kept"  # another process was quicker
        except OSError:
            continue
    part = at.with_name(f".{at.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        shutil.copyfile(source, part)
        os.replace(part, at)
    finally:
        part.unlink(missing_ok=True)
    return "copied"


def can_link(folder: Path) -> bool:
    """Whether links can be made in the folder, or in the nearest one above it that exists."""
    probe = hub_cache.existing(folder) / f".link-{uuid.uuid4().hex[:8]}"
    try:
        probe.symlink_to("nowhere")
    except OSError:
        return False
    probe.unlink()
    return True
