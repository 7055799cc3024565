"""LlamaIndex's embeddings by fewbit (needs llama-index-core).

>>> from fewbit.integrations.llama_index import FewbitEmbedding  # doctest: +SKIP
>>> embedding = FewbitEmbedding("models/minilm-int8")  # doctest: +SKIP
>>> vector = embedding.get_query_embedding("where is the cat?")  # doctest: +SKIP
"""

# The library is typed in parts only.
# pyright: basic

from __future__ import annotations

import asyncio
import os
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr

from fewbit.integrations.asymmetric import AsymmetricEncoder


class FewbitEmbedding(BaseEmbedding):
    """Embeddings of queries and of texts.

    Args:
        model: A model directory.
        threads: Worker threads; by default :func:`fewbit.get_num_threads`.
        embed_batch_size: Texts that are run together.
        open_options: Further arguments of :meth:`fewbit.Encoder.open`.

    Raises:
        FewbitError: As :meth:`fewbit.Encoder.open`.
    """

    _encoder: AsymmetricEncoder = PrivateAttr()
    _threads: int | None = PrivateAttr()

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        threads: int | None = None,
        embed_batch_size: int = 32,
        open_options: dict[str, Any] | None = None,
        **fields: Any,
    ) -> None:
        fields.setdefault("model_name", os.fspath(model))
        super().__init__(embed_batch_size=embed_batch_size, **fields)
        self._encoder = AsymmetricEncoder(model, **(open_options or {}))
        self._threads = threads

    @classmethod
    def class_name(cls) -> str:
        """The name by which LlamaIndex saves it."""
        return "FewbitEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        row: list[float] = self._encoder.queries.encode(query, threads=self._threads).tolist()
        return row

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        embeddings = self._encoder.documents.encode(texts, batch_size=self.embed_batch_size, threads=self._threads)
        rows: list[list[float]] = embeddings.tolist()
        return rows

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)
