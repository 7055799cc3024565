"""How many threads fewbit runs on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from fewbit import _fewbit

_VARIABLES = ("FEWBIT_NUM_THREADS", "RAYON_NUM_THREADS", "OMP_NUM_THREADS")

_chosen: int | None = None


def set_num_threads(threads: int | None) -> None:
    """Sets the number of threads, from 1 to 1,024, of every call that is not given one. ``None`` goes back to the default.

    Raises:
        FewbitError: A number out of range.
    """
    global _chosen
    _chosen = None if threads is None else _fewbit.threads_available(threads)


def get_num_threads() -> int:
    """The number of threads of a call that is not given one.

    The first of these that is set decides: :func:`set_num_threads`, the environment variables ``FEWBIT_NUM_THREADS``,
    ``RAYON_NUM_THREADS`` and ``OMP_NUM_THREADS``, torch's number of threads where torch has been imported; else the CPUs that this process
    may use: its affinity and the container's quota. The number never changes a result.

    Raises:
        FewbitError: A variable does not hold a number of threads.
    """
    return resolve_threads(None)


def resolve_threads(threads: int | None) -> int:
    """The number of threads of a call that was given ``threads``."""
    if threads is not None:
        return _fewbit.threads_available(threads)
    if _chosen is not None:
        return _chosen
    # A torch that is still being imported has no threads yet.
    of_torch: Callable[[], int] | None = getattr(sys.modules.get("torch"), "get_num_threads", None)
    if of_torch is not None and not any(os.environ.get(name) for name in _VARIABLES):
        return of_torch()
    return _fewbit.threads_available()
