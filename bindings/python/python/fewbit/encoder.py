"""Texts in, embeddings out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy

from fewbit import _fewbit
from fewbit.arrays import integers
from fewbit.models import resolve_model
from fewbit.progress import progress_bar
from fewbit.threads import resolve_threads

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from fewbit.predictor import Input, Prediction

# Texts whose sparse embeddings are dense for a moment.
_SPARSE_TEXTS = 256


class SparseEmbedding(NamedTuple):
    """The values other than 0 of an embedding, and their columns."""

    indices: NDArray[numpy.int64]
    """Ascending columns: ids of the vocabulary (values)."""
    values: NDArray[numpy.float32]
    """The values there (values)."""


class Encoder:
    """Tokenizer, network and pooling of one model directory.

    An encoder can be used by several threads at once, after a fork, and in other processes that it is pickled to: what is pickled is its
    directory and its settings.

    >>> encoder = Encoder.open("models/all-MiniLM-L6-v2")
    >>> encoder.encode(["A first text.", "A second one."]).shape
    (2, 384)
    """

    def __init__(self, native: _fewbit.Encoder, directory: str, settings: dict[str, Any]) -> None:
        self._native = native
        self._directory = directory
        self._settings = settings

    @staticmethod
    def open(
        model: str | os.PathLike[str],
        *,
        pooling: str | None = None,
        normalize: bool | None = None,
        max_tokens: int | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        task: str | None = None,
        weight_only_in: str | None = None,
    ) -> Encoder:
        """Opens a model directory, or a model of the Hugging Face Hub, which is downloaded first.

        Args:
            model: The directory, or a Hub id (``owner/name``, ``owner/name@revision``).
            pooling: How hidden states become one vector: ``mean``, ``cls``, ``max`` or ``last``; by default as the model's files say.
            normalize: Whether embeddings are L2-normalized; by default as the model's files say.
            max_tokens: Longest input in tokens, special tokens included; longer texts are cut.
            prompt: A text that is put before every text.
            prompt_name: The prompt of this name in the model's files.
            task: ``query`` or ``document``, or another task that the model knows.
            weight_only_in: What layers compute in whose weights alone are int8: ``integers`` or ``floats``.

        Raises:
            FewbitError: A file is missing or damaged, or the model asks for something that fewbit does not have.
            ValueError: A setting that there is not, or ``prompt`` and ``prompt_name`` together.
        """
        if prompt is not None and prompt_name is not None:
            raise ValueError("prompt and prompt_name: expected one of them, found both")
        settings: dict[str, Any] = {
            "pooling": pooling,
            "normalize": normalize,
            "max_tokens": max_tokens,
            "prompt": prompt,
            "prompt_name": prompt_name,
            "task": task,
            "weight_only_in": weight_only_in,
        }
        return _open(os.path.abspath(resolve_model(model)), settings)

    def __reduce__(self) -> tuple[Any, tuple[str, dict[str, Any]]]:
        return _open, (self._directory, self._settings)

    def __repr__(self) -> str:
        return f"Encoder({self._directory!r}, columns={self.columns})"

    def encode(
        self,
        texts: str | Sequence[str],
        *,
        batch_size: int = 32,
        threads: int | None = None,
        show_progress: bool = False,
    ) -> NDArray[numpy.float32]:
        """One embedding for each text: (texts, columns), or (columns) for a single text.

        A text's embedding has the same bits whatever other texts there are, with any batch size and any number of threads. Ctrl-C stops it
        between two batches.

        Args:
            texts: A text, or several; none give (0, columns).
            batch_size: Texts that are run together; bounds memory.
            threads: Worker threads; by default :func:`fewbit.get_num_threads`.
            show_progress: Whether to show a progress bar.

        Raises:
            FewbitError: An option is out of range, or a value overflowed.
            TypeError: Something is no text.
        """
        batch = as_texts("texts", texts)
        with progress_bar(show_progress) as progress:
            embeddings, _ = self._native.encode(batch, threads=resolve_threads(threads), batch_size=batch_size, progress=progress)
        return embeddings[0] if isinstance(texts, str) else embeddings

    def encode_sparse(
        self,
        texts: Sequence[str],
        *,
        batch_size: int = 32,
        threads: int | None = None,
    ) -> list[SparseEmbedding]:
        """The values other than 0 of each text's embedding, for SPLADE models, whose embeddings have a column for each token of the vocabulary.

        Args:
            texts: Several texts.
            batch_size: Texts that are run together; bounds memory.
            threads: Worker threads; by default :func:`fewbit.get_num_threads`.

        Raises:
            FewbitError: As :meth:`encode`.
            ValueError: The embeddings of this model are not sparse.
        """
        if not self.is_sparse:
            raise ValueError("encode_sparse: expected a SPLADE model, found one of dense embeddings\n  hint: use encode")
        batch = as_texts("texts", texts)
        found: list[SparseEmbedding] = []
        for start in range(0, len(batch), _SPARSE_TEXTS):
            for row in self.encode(batch[start : start + _SPARSE_TEXTS], batch_size=batch_size, threads=threads):
                indices = numpy.flatnonzero(row)
                found.append(SparseEmbedding(indices=indices, values=row[indices]))
        return found

    def forward(
        self,
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None = None,
        token_type_ids: ArrayLike | None = None,
        *,
        threads: int | None = None,
    ) -> NDArray[numpy.float32]:
        """Last hidden states (sequences, length, hidden size); 0 where ``attention_mask`` leaves a token out.

        Args:
            input_ids: Token ids (sequences, length).
            attention_mask: 1 for a token, 0 for padding; the shape of ``input_ids``. Without it every token counts.
            token_type_ids: Token types, the shape of ``input_ids``; 0 by default.
            threads: Worker threads; by default :func:`fewbit.get_num_threads`.

        Raises:
            FewbitError: An array of another shape or dtype, an id that the model does not know, a sequence that is empty or too long.
        """
        return self._native.forward(
            integers("input_ids", input_ids),
            None if attention_mask is None else integers("attention_mask", attention_mask),
            None if token_type_ids is None else integers("token_type_ids", token_type_ids),
            threads=resolve_threads(threads),
        )

    def predict(self, inputs: Input | Sequence[Input], *, threads: int | None = None) -> list[Prediction]:
        """What the task head of the model says of texts: :meth:`fewbit.Predictor.predict`, of the same directory.

        The head is loaded with the first call, and with it the model once more: a :class:`fewbit.Predictor` needs no encoder beside it.

        Raises:
            FewbitError: The model has no head that fewbit runs.
        """
        from fewbit.predictor import Predictor

        predictor = self.__dict__.get("_predictor")
        if not isinstance(predictor, Predictor):
            settings = {name: self._settings[name] for name in ("max_tokens", "weight_only_in")}
            predictor = Predictor.open(self._directory, **settings)
            self.__dict__["_predictor"] = predictor
        return predictor.predict(inputs, threads=threads)

    @property
    def directory(self) -> str:
        """The model directory."""
        return self._directory

    @property
    def columns(self) -> int:
        """Length of an embedding."""
        return self._native.columns

    @property
    def hidden_size(self) -> int:
        """Length of a hidden state."""
        return self._native.hidden_size

    @property
    def is_sparse(self) -> bool:
        """Whether embeddings have a value for each token of the vocabulary, most of them 0: :meth:`encode_sparse`."""
        return self._native.is_sparse

    @property
    def normalizes(self) -> bool:
        """Whether embeddings have length 1."""
        return self._native.normalizes

    @property
    def max_tokens(self) -> int:
        """Longest input in tokens, special tokens included."""
        return self._native.max_tokens

    @property
    def memory_bytes(self) -> int:
        """Bytes of parameters held in memory."""
        return self._native.memory_bytes


def _open(directory: str, settings: dict[str, Any]) -> Encoder:
    return Encoder(_fewbit.Encoder.open(directory, **settings), directory, settings)


def as_texts(name: str, texts: str | Sequence[str]) -> list[str]:
    """A text or several, as a list.

    Raises:
        TypeError: Something is no text.
    """
    batch = [texts] if isinstance(texts, str) else list(texts)
    for index, text in enumerate(batch):
        # What is called without types gives other things, too.
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"{name}, number {index}: expected a text, found {type(text).__name__}")
    return batch
