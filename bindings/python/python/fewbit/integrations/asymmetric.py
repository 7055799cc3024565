"""Models that treat queries and documents differently, as retrieval libraries ask for embeddings of either."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from fewbit.encoder import Encoder
from fewbit.models import resolve_model


class AsymmetricEncoder:
    """Two encoders of one model, for queries and for documents; the same one where the model's files make no difference.

    Args:
        model: A model directory or a Hub id.
        options: Further arguments of :meth:`fewbit.Encoder.open`.

    Raises:
        FewbitError: As :meth:`fewbit.Encoder.open`.
    """

    def __init__(self, model: str | os.PathLike[str], **options: Any) -> None:
        directory = resolve_model(model)
        if _is_asymmetric(Path(directory)):
            self.queries = Encoder.open(directory, task="query", **options)
            self.documents = Encoder.open(directory, task="document", **options)
        else:
            self.queries = self.documents = Encoder.open(directory, **options)


def _is_asymmetric(directory: Path) -> bool:
    """Whether the files of sentence-transformers have a prompt or modules of their own for queries or for documents."""
    settings: dict[str, Any] = _json(directory / "config_sentence_transformers.json") or {}
    prompts: dict[str, str] = settings.get("prompts") or {}
    modules: list[dict[str, Any]] = _json(directory / "modules.json") or []
    has_router = any(str(module.get("type")).rsplit(".", 1)[-1] in ("Router", "Asym") for module in modules)
    return has_router or bool(prompts.get("query") or prompts.get("document"))


def _json(file: Path) -> Any:
    """What the file holds; nothing if it is not there. What is wrong with it, opening the model says."""
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return None
