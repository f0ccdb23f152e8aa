"""Starting Gradio without work that a running studio has no use for: a second of every start.

:func:`prepare`: for every component class Gradio parses its source, renders a ``.pyi`` and compares
it with the file on disk; editors read those, a running studio does not. It takes a third of the
import. There is no setting for it, so the one function that does it is replaced as soon as its module
is loaded.

:func:`without_servers`: a page makes a whole server when its block ends, another one when its queue
is set, and ``launch`` makes the one that serves.

Where Gradio has no such function any more, nothing changes.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

MODULE, FUNCTION = "gradio.component_meta", "create_or_modify_pyi"


class _Finder(importlib.abc.MetaPathFinder):
    """Finds that one module as ever, and replaces the function once it was executed."""

    def find_spec(self, name: str, path: Any = None, target: Any = None):
        if name != MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            if hasattr(module, FUNCTION):
                setattr(module, FUNCTION, lambda *arguments: None)

        spec.loader.exec_module = exec_module
        return spec


def prepare() -> None:
    """Call it before Gradio is first imported; afterwards it does nothing."""
    if MODULE not in sys.modules and not any(isinstance(f, _Finder) for f in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


@contextlib.contextmanager
def without_servers() -> Iterator[None]:
    """Compose a page inside; leave it before ``launch``. One page at a time."""
    from gradio.routes import App

    make = App.__dict__.get("create_app")
    if make is None:
        yield
        return
    App.create_app = staticmethod(lambda *arguments, **options: None)
    try:
        yield
    finally:
        App.create_app = make
