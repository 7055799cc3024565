"""LangChain's embeddings by fewbit (needs langchain-core).

>>> from fewbit.integrations.langchain import FewbitEmbeddings  # doctest: +SKIP
>>> embeddings = FewbitEmbeddings("models/minilm-int8")  # doctest: +SKIP
>>> vector = embeddings.embed_query("where is the cat?")  # doctest: +SKIP
"""

# The library is typed in parts only.
# pyright: basic

from __future__ import annotations

import os
from typing import Any

from langchain_core.embeddings import Embeddings

from fewbit.integrations.asymmetric import AsymmetricEncoder


class FewbitEmbeddings(Embeddings):
    """Embeddings of queries and of documents.

    Args:
        model: A model directory.
        batch_size: Texts that are run together.
        threads: Worker threads; by default :func:`fewbit.get_num_threads`.
        options: Further arguments of :meth:`fewbit.Encoder.open`.

    Raises:
        FewbitError: As :meth:`fewbit.Encoder.open`.
    """

    def __init__(self, model: str | os.PathLike[str], *, batch_size: int = 32, threads: int | None = None, **options: Any) -> None:
        self._encoder = AsymmetricEncoder(model, **options)
        self._batch_size = batch_size
        self._threads = threads

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One embedding for each document."""
        embeddings = self._encoder.documents.encode(texts, batch_size=self._batch_size, threads=self._threads)
        rows: list[list[float]] = embeddings.tolist()
        return rows

    def embed_query(self, text: str) -> list[float]:
        """The embedding of a query."""
        row: list[float] = self._encoder.queries.encode(text, threads=self._threads).tolist()
        return row
