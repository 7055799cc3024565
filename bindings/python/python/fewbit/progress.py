"""Progress bars of long work, by tqdm where it is installed."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any


@contextmanager
def progress_bar(show: bool, description: str | None = None) -> Generator[Callable[[int, int, str], None] | None, None, None]:
    """What the native half tells of its progress (done, total, what), shown by ``tqdm.auto``; ``None`` unless ``show``.

    Work in several parts, each with another total, is shown as one bar that begins anew.

    Raises:
        ModuleNotFoundError: tqdm is not installed.
    """
    if not show:
        yield None
        return
    # tqdm has no types of its own.
    from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore] # pyright: ignore[reportMissingModuleSource]

    bar: Any = tqdm(desc=description)

    def tell(done: int, total: int, what: str) -> None:
        if total != bar.total:
            bar.reset(total)
        if description is None:
            bar.set_description(what, refresh=False)
        bar.update(done - bar.n)

    try:
        yield tell
    finally:
        bar.close()
