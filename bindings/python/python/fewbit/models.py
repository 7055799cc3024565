"""Where a model lies."""

from __future__ import annotations

import os

from fewbit import _fewbit


def resolve_model(model: str | os.PathLike[str]) -> str:
    """The directory of a model; of a Hugging Face Hub id (``owner/name``, ``owner/name@revision``) the one that it is downloaded to.

    ``HF_HOME``, ``HF_TOKEN``, ``HF_ENDPOINT`` and ``HF_HUB_OFFLINE`` are honoured, as on the command line.

    Raises:
        FewbitError: There is no such directory or model.
        ValueError: The name is empty.
        TypeError: ``model`` is neither a name nor a path.
    """
    path = os.fspath(model)
    # What is called without types gives bytes, too.
    if not isinstance(path, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"model: expected a directory or a Hub id as text, found {type(path).__name__}")
    if not path.strip():
        raise ValueError("model is empty\n  hint: name a model directory or a Hub id")
    if isinstance(model, str):
        return _fewbit.resolve(model)
    return path
