"""Arrays as the native half takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy

from fewbit._fewbit import FewbitError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def integers(name: str, array: ArrayLike) -> NDArray[numpy.int64]:
    """``array`` (sequences, length) as 64-bit integers; booleans and every other dtype of integers are taken, too."""
    found = numpy.asarray(array)
    if found.dtype.kind not in "iub":
        raise FewbitError(
            f"{name}: expected integers, found {found.dtype}\n  hint: token ids come from the tokenizer; `.astype(int)` makes integers of whole numbers"
        )
    if found.ndim != 2:
        raise FewbitError(f"{name}: expected the shape (sequences, length), found {found.shape}\n  hint: a single sequence is [ids]")
    return numpy.ascontiguousarray(found, dtype=numpy.int64)
