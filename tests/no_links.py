"""Makes the kernel refuse every link to this process, as a file system without links would.

A seccomp filter for x86-64 Linux: symlink, symlinkat, link and linkat fail with EPERM. For the
driver processes of the tests; it cannot be undone.
"""

from __future__ import annotations

import ctypes
import platform
import struct
import sys

_SYSCALLS = (88, 266, 86, 265)  # symlink, symlinkat, link, linkat
_AUDIT_ARCH_X86_64 = 0xC000003E
_ALLOW, _EPERM = 0x7FFF0000, 0x00050001
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_SET_NO_NEW_PRIVS, _SET_SECCOMP, _MODE_FILTER = 38, 22, 2


def possible() -> bool:
    """Whether this machine's system calls are the ones the filter knows."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


def forbid() -> None:
    """Refuse links from here on.

    Raises:
        OSError: the kernel has no seccomp filters.
    """
    program = [(_LOAD, 0, 0, 4), (_JUMP_EQUAL, 1, 0, _AUDIT_ARCH_X86_64), (_RETURN, 0, 0, _ALLOW)]
    program.append((_LOAD, 0, 0, 0))
    for left, number in zip(range(len(_SYSCALLS), 0, -1), _SYSCALLS, strict=True):
        program.append((_JUMP_EQUAL, left, 0, number))
    program += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _EPERM)]
    code = b"".join(struct.pack("HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = ctypes.create_string_buffer(
        struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    )
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_SET_SECCOMP, _MODE_FILTER, header):
        raise OSError(ctypes.get_errno(), "seccomp filters are not available")
