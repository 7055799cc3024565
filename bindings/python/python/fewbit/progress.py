"""Progress bars of long work, by tqdm where it is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def progress_bar(show: bool, description: str | None = None) -> Iterator[Callable[[int, int, str], None] | None]:
    """What the native half tells of its progress (done, total, what), shown by ``tqdm.auto``; ``None`` unless ``show``.

    Raises:
        ModuleNotFoundError: tqdm is not installed.
    """
    if not show:
        yield None
        return
    from tqdm.auto import tqdm

    bar: Any = tqdm(desc=description)

    def tell(done: int, total: int, what: str) -> None:
        bar.total = total
        if description is None:
            bar.set_description(what, refresh=False)
        bar.update(done - bar.n)

    try:
        yield tell
    finally:
        bar.close()
