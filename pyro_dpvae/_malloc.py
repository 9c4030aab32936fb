"""Memory that a process keeps after it is freed, for its next tensors."""

import ctypes

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # names and numbers of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let this process keep up to 1 GB of freed memory; returns False if the C library cannot.

    Otherwise the system takes back each tensor of some megabytes, and clears its pages for the
    next one, which takes up to a tenth of the time of importance sampling and a twentieth of a
    training step. The largest amount of memory in use does not change.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # not glibc
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, 2**30) and mallopt(_M_MMAP_THRESHOLD, 2**25))
