"""Set everything up and start the studio: ``python3 tools/run.py [options of app.py]``.

It needs nothing but Python 3.10 to 3.12: the environment in ``.venv``, the packages, ComfyUI and its
packs are its work. The first start takes minutes, every other one a second.
"""

import sys

if sys.version_info < (3, 7):  # noqa: UP036 - an older Python reads this file too, so no newer syntax
    sys.exit("This needs Python 3.10, 3.11 or 3.12; this one is " + sys.version.split(" ")[0] + ".")

import _setup

_setup.need_python([__file__] + sys.argv[1:])  # noqa: RUF005
sys.exit(_setup.start_studio(sys.argv[1:]))
