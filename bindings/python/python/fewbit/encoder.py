"""Texts in, embeddings out."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy
from numpy.typing import ArrayLike, NDArray

from fewbit import _fewbit
from fewbit.arrays import integers
from fewbit.progress import progress_bar
from fewbit.threads import resolve_threads


class Encoder:
    """Tokenizer, network and pooling of one model directory.

    >>> encoder = Encoder.open("models/all-MiniLM-L6-v2")  # doctest: +SKIP
    >>> encoder.encode(["A first text.", "A second one."]).shape  # doctest: +SKIP
    (2, 384)
    """

    def __init__(self, native: _fewbit.Encoder) -> None:
        self._native = native

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
    ) -> Encoder:
        """Opens a model directory.

        Args:
            model: The directory.
            pooling: How hidden states become one vector: ``mean``, ``cls``, ``max`` or ``last``; by default as the model's files say.
            normalize: Whether embeddings are L2-normalized; by default as the model's files say.
            max_tokens: Longest input in tokens, special tokens included; longer texts are cut.
            prompt: A text that is put before every text.
            prompt_name: The prompt of this name in the model's files.
            task: ``query`` or ``document``, or another task that the model knows.

        Raises:
            FewbitError: A file is missing or damaged, or the model asks for something that fewbit does not have.
        """
        native = _fewbit.Encoder.open(
            os.fspath(model),
            pooling=pooling,
            normalize=normalize,
            max_tokens=max_tokens,
            prompt=prompt,
            prompt_name=prompt_name,
            task=task,
        )
        return Encoder(native)

    def encode(
        self,
        texts: str | Sequence[str],
        *,
        batch_size: int = 32,
        threads: int | None = None,
        show_progress: bool = False,
    ) -> NDArray[numpy.float32]:
        """One embedding for each text: (texts, columns), or (columns) for a single text.

        A text's embedding has the same bits whatever other texts there are, with any batch size and any number of threads.

        Args:
            texts: A text, or several.
            batch_size: Texts that are run together; bounds memory.
            threads: Worker threads; by default :func:`fewbit.get_num_threads`.
            show_progress: Whether to show a progress bar.

        Raises:
            FewbitError: An option is out of range, or a value overflowed.
        """
        single = isinstance(texts, str)
        batch = [texts] if isinstance(texts, str) else list(texts)
        with progress_bar(show_progress) as progress:
            embeddings, _ = self._native.encode(batch, threads=resolve_threads(threads), batch_size=batch_size, progress=progress)
        return embeddings[0] if single else embeddings

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

    @property
    def columns(self) -> int:
        """Length of an embedding."""
        return self._native.columns

    @property
    def hidden_size(self) -> int:
        """Size of a hidden state."""
        return self._native.hidden_size

    @property
    def max_tokens(self) -> int:
        """Longest input in tokens, special tokens included."""
        return self._native.max_tokens

    @property
    def memory_bytes(self) -> int:
        """Bytes of parameters held in memory."""
        return self._native.memory_bytes
