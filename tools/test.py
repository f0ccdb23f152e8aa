"""Set everything up and run the whole suite: ``python3 tools/test.py [options of pytest]``.

``ruff check``, ``ruff format --check`` and pytest, with the tests that boot the real ComfyUI wherever
it is installed or can be. What could not be tested is said in the last lines. The status is 0 only
if everything that ran passed.

    --no-comfy    leave ComfyUI out, as if it could not be had
"""

import sys

if sys.version_info < (3, 7):  # noqa: UP036 - an older Python reads this file too, so no newer syntax
    sys.exit("This needs Python 3.10, 3.11 or 3.12; this one is " + sys.version.split(" ")[0] + ".")

import _setup

_setup.need_python([__file__] + sys.argv[1:])  # noqa: RUF005
import _suite  # noqa: E402 - needs a suitable Python

sys.exit(_suite.main(sys.argv[1:]))
