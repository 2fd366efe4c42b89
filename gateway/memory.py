"""How the process treats memory: what pictures have left, and what stays for ever."""

import ctypes
import gc

__all__ = ["keep_freed_memory", "spare_what_stays"]

# malloc.h of glibc, mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
LARGEST_THRESHOLD = 32 << 20  # what glibc accepts, and a picture of 11 megapixels
KEPT = 128 << 20


def keep_freed_memory() -> None:
    """Let the memory of one picture serve the next, instead of going back to the kernel between.

    glibc maps every block over 128 kB anew and unmaps it when it is freed, so that each picture
    pays for page faults: a fifth of the CPU of a 640x480 JPEG (``bench/README.md``). To be called
    before any thread is started. Does nothing where the C library has no ``mallopt``.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(M_MMAP_THRESHOLD, LARGEST_THRESHOLD)
    mallopt(M_TRIM_THRESHOLD, KEPT)
    # Threads that share an arena share what was freed; their blocks are few and large.
    mallopt(M_ARENA_MAX, 1)


def spare_what_stays() -> None:
    """Leave all that was made until now out of later garbage collections.

    Modules and their like are a quarter of a million objects. To look at them all took 30 ms every
    few thousand requests, in which nobody was answered or refused (``bench/README.md``). To be
    called once, when all is ready.
    """
    gc.collect()
    gc.freeze()
