"""Haystack's embedders by fewbit (needs haystack-ai).

>>> from fewbit.integrations.haystack import FewbitTextEmbedder  # doctest: +SKIP
>>> embedder = FewbitTextEmbedder("models/minilm-int8")  # doctest: +SKIP
>>> embedding = embedder.run("where is the cat?")["embedding"]  # doctest: +SKIP
"""

# The library is typed in parts only.
# pyright: basic

from __future__ import annotations

import dataclasses
from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict

from fewbit.encoder import Encoder
from fewbit.integrations.asymmetric import AsymmetricEncoder


class _Embedder:
    """What both embedders have: a model that is opened by ``warm_up``, or at the first run."""

    def __init__(self, model: str, *, batch_size: int = 32, threads: int | None = None, options: dict[str, Any] | None = None) -> None:
        self.model = str(model)
        self.batch_size = batch_size
        self.threads = threads
        self.options = options or {}
        self._encoder: AsymmetricEncoder | None = None

    def warm_up(self) -> None:
        """Opens the model."""
        if self._encoder is None:
            self._encoder = AsymmetricEncoder(self.model, **self.options)

    def to_dict(self) -> dict[str, Any]:
        """What a pipeline saves."""
        saved: dict[str, Any] = default_to_dict(
            self, model=self.model, batch_size=self.batch_size, threads=self.threads, options=self.options
        )
        return saved

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Any:
        """The embedder of a saved pipeline."""
        return default_from_dict(cls, data)

    def _embed(self, encoder: Encoder, texts: list[str]) -> list[list[float]]:
        rows: list[list[float]] = encoder.encode(texts, batch_size=self.batch_size, threads=self.threads).tolist()
        return rows

    def _open(self) -> AsymmetricEncoder:
        self.warm_up()
        assert self._encoder is not None
        return self._encoder


@component
class FewbitTextEmbedder(_Embedder):
    """Embeds a query.

    Args:
        model: A model directory.
        batch_size: Texts that are run together.
        threads: Worker threads; by default :func:`fewbit.get_num_threads`.
        options: Further arguments of :meth:`fewbit.Encoder.open`.
    """

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, Any]:
        """The embedding of ``text``.

        Raises:
            TypeError: ``text`` is not a text.
        """
        if not isinstance(text, str):
            raise TypeError(f"text: expected a text, found {type(text).__name__}; FewbitDocumentEmbedder embeds documents")
        return {"embedding": self._embed(self._open().queries, [text])[0]}


@component
class FewbitDocumentEmbedder(_Embedder):
    """Embeds the contents of documents.

    Args:
        model: A model directory.
        batch_size: Texts that are run together.
        threads: Worker threads; by default :func:`fewbit.get_num_threads`.
        options: Further arguments of :meth:`fewbit.Encoder.open`.
    """

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """Copies of ``documents`` with embeddings.

        Raises:
            TypeError: ``documents`` is not a list of documents.
        """
        if not isinstance(documents, list) or not all(isinstance(document, Document) for document in documents):
            raise TypeError("documents: expected a list of documents; FewbitTextEmbedder embeds a query")
        embeddings = self._embed(self._open().documents, [document.content or "" for document in documents])
        return {"documents": [dataclasses.replace(document, embedding=row) for document, row in zip(documents, embeddings, strict=True)]}
