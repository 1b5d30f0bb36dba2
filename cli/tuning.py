"""What the process asks of the operating system and the interpreter before a long run."""

import ctypes
import gc
import resource
import signal

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # mallopt(3)
_LARGEST = 32 << 20  # what glibc accepts as a threshold for mmap
_KEPT = 256 << 20


def tune() -> None:
    """Open many files, keep freed memory, collect garbage rarely, and take SIGTERM like Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _allow_many_files()
    _keep_memory()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


def _allow_many_files() -> None:
    """Raise the soft limit of open files: a rotated capture may have thousands."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _keep_memory() -> None:
    """Let the allocator keep large blocks.

    glibc gives each block of some MB back to the kernel when it is freed, and gets it zeroed, page by page, when the
    next one is wanted a moment later. That was a fifth of a run's CPU. Other C libraries have no mallopt and need none.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for parameter, value in ((_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, _KEPT), (_TOP_PAD, 16 << 20)):
            libc.mallopt(parameter, value)
