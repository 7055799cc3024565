"""Texts in, predictions of a task head out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Union

from fewbit import _fewbit
from fewbit.encoder import as_texts
from fewbit.models import resolve_model
from fewbit.records import read_records
from fewbit.threads import resolve_threads

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

Input = Union[str, tuple[str, str]]
"""A text, or two that are read together: a query and a passage, a question and a context."""


@dataclass(frozen=True)
class LabelScore:
    """A label and its score."""

    label: str
    """The name that the model gives it."""
    score: float
    """Its probability; a number of any size for a model that gives none."""


@dataclass(frozen=True)
class Classification:
    """The labels of a text, the one with the largest score first."""

    labels: tuple[LabelScore, ...]
    truncated: bool
    """Whether the text was cut at the model's limit."""

    @property
    def label(self) -> str:
        """The label with the largest score."""
        return self.labels[0].label

    @property
    def score(self) -> float:
        """The largest score; of a model with one label, a reranker for instance, the score of the text."""
        return self.labels[0].score


@dataclass(frozen=True)
class Entity:
    """A part of a text and its label."""

    score: float
    """Probability of the label; the mean of those of the words or tokens of a group."""
    word: str
    """What the tokens spell: not always as in the text, of which ``start`` and ``end`` are a part."""
    start: int
    """The first character in the text."""
    end: int
    """The character behind the last one."""
    entity: str | None = None
    """The token's label as the model names it, with the aggregation ``none``."""
    entity_group: str | None = None
    """The label without ``B-`` and ``I-``, with every other aggregation."""
    index: int | None = None
    """Place among all tokens, special ones included, with the aggregation ``none``."""


@dataclass(frozen=True)
class Tagging:
    """The entities of a text, in order."""

    entities: tuple[Entity, ...]
    truncated: bool
    """Whether the text was cut at the model's limit: beyond it there are none."""


@dataclass(frozen=True)
class Answer:
    """A part of a context that answers a question."""

    answer: str
    """Its text; empty where there is no answer."""
    score: float
    """Its probability within its part of the context; the sum of them where several spans have the same text."""
    start: int
    """Its first character in the context."""
    end: int
    """The character behind its last one."""


@dataclass(frozen=True)
class MaskCandidate:
    """A token that may stand where a mask is."""

    score: float
    """Its probability among all tokens of the vocabulary."""
    token: int
    """Its id."""
    token_str: str
    """Its text."""
    sequence: str
    """The whole text with this token in place of the mask; other masks stay."""


@dataclass(frozen=True)
class FilledMasks:
    """For each mask of a text, in order, the likeliest tokens, the likeliest first."""

    masks: tuple[tuple[MaskCandidate, ...], ...]
    truncated: bool
    """Whether the text was cut at the model's limit."""


Prediction = Union[Classification, Tagging, tuple[Answer, ...], FilledMasks]
"""What a model says of a text, by its task."""


class Predictor:
    """Tokenizer, network and task head of one model directory.

    Scores are those of the pipelines of transformers, and of the CrossEncoder of sentence-transformers where it wrote the model.

    >>> predictor = Predictor.open("crates/model/tests/golden/predictions/bert-single-label")
    >>> len(predictor.classify(["A first text.", "A second one."]))
    2
    """

    def __init__(self, native: _fewbit.Predictor, directory: str, settings: dict[str, Any]) -> None:
        self._native = native
        self._directory = directory
        self._settings = settings

    @staticmethod
    def open(
        model: str | os.PathLike[str],
        *,
        max_tokens: int | None = None,
        weight_only_in: str | None = None,
    ) -> Predictor:
        """Opens a model directory, or a model of the Hugging Face Hub, which is downloaded first.

        Args:
            model: The directory, or a Hub id.
            max_tokens: Longest input in tokens, special tokens included; longer texts are cut, long contexts read in parts.
            weight_only_in: What layers compute in whose weights alone are int8: ``integers`` or ``floats``.

        Raises:
            FewbitError: A file is missing or damaged, or the model has no head that fewbit runs.
            ValueError: A setting that there is not.
        """
        settings: dict[str, Any] = {"max_tokens": max_tokens, "weight_only_in": weight_only_in}
        return _open(os.path.abspath(resolve_model(model)), settings)

    def __reduce__(self) -> tuple[Any, tuple[str, dict[str, Any]]]:
        return _open, (self._directory, self._settings)

    def __repr__(self) -> str:
        return f"Predictor({self._directory!r}, task={self.task!r})"

    def predict(self, inputs: Input | Sequence[Input], *, threads: int | None = None) -> list[Prediction]:
        """What the model says of each input, by its task and with that task's defaults: :meth:`classify`, :meth:`tag`, :meth:`answer` or
        :meth:`fill_masks`.

        Args:
            inputs: Texts, pairs of texts for a model that reads two, (question, context) for question answering; one of them, or several.
            threads: Worker threads; by default :func:`fewbit.get_num_threads`.

        Raises:
            FewbitError: As these.
        """
        batch = _inputs(inputs)
        if self.task == "sequence classification":
            return [*self.classify(batch, threads=threads)]
        if self.task == "question answering":
            if not all(isinstance(one, tuple) for one in batch):
                raise TypeError("inputs: expected pairs of a question and a context, found a text alone")
            return [tuple(answers) for answers in self.answer([one for one in batch if isinstance(one, tuple)], threads=threads)]
        texts = [one for one in batch if isinstance(one, str)]
        if len(texts) < len(batch):
            raise TypeError(f"inputs: expected texts, which models for {self.task} read one by one, found a pair")
        if self.task == "token classification":
            return [*self.tag(texts, threads=threads)]
        return [*self.fill_masks(texts, threads=threads)]

    def classify(
        self, inputs: Input | Sequence[Input], *, batch_size: int = 32, threads: int | None = None
    ) -> list[Classification]:
        """The labels of texts, or of pairs of texts, all of them with their scores.

        Args:
            inputs: Texts, or pairs of texts that are read together.
            batch_size: Texts that are run together; bounds memory, never changes a result.
            threads: Worker threads; by default :func:`fewbit.get_num_threads`.

        Raises:
            FewbitError: The model is for another task, or knows no pairs.
        """
        found = self._native.classify(_pairs(inputs), threads=resolve_threads(threads), batch_size=batch_size)
        return read_records(Classification, found)

    def logits(
        self, inputs: Input | Sequence[Input], *, batch_size: int = 32, threads: int | None = None
    ) -> NDArray[numpy.float32]:
        """The logits (texts, labels) of a model that classifies texts.

        Args:
            inputs: Texts, or pairs of texts that are read together.
            batch_size: Texts that are run together; bounds memory, never changes a result.
            threads: Worker threads; by default :func:`fewbit.get_num_threads`.

        Raises:
            FewbitError: As :meth:`classify`.
        """
        return self._native.logits(_pairs(inputs), threads=resolve_threads(threads), batch_size=batch_size)

    def tag(
        self,
        texts: str | Sequence[str],
        *,
        aggregation: str = "simple",
        batch_size: int = 32,
        threads: int | None = None,
    ) -> list[Tagging]:
        """The entities of texts.

        Args:
            texts: A text, or several.
            aggregation: How the tokens of an entity are put together: ``none``, ``simple``, ``first``, ``average`` or ``max``.
            batch_size: Texts that are run together; bounds memory, never changes a result.
            threads: Worker threads; by default :func:`fewbit.get_num_threads`.

        Raises:
            FewbitError: The model is for another task.
            ValueError: There is no such aggregation.
        """
        found = self._native.tag(
            as_texts("texts", texts), aggregation=aggregation, threads=resolve_threads(threads), batch_size=batch_size
        )
        return read_records(Tagging, found)

    def answer(
        self,
        questions: Sequence[tuple[str, str]],
        *,
        top_k: int = 1,
        max_answer_tokens: int = 15,
        allow_no_answer: bool = False,
        batch_size: int = 32,
        threads: int | None = None,
    ) -> list[list[Answer]]:
        """Answers to questions, found in contexts: for each the best ones, the best first.

        Args:
            questions: Pairs of a question and a context; a long context is read in parts that overlap.
            top_k: Answers at most.
            max_answer_tokens: Longest answer in tokens.
            allow_no_answer: Whether an empty answer may say that there is none, for models that learnt to.
            batch_size: Texts that are run together; bounds memory, never changes a result.
            threads: Worker threads; by default :func:`fewbit.get_num_threads`.

        Raises:
            FewbitError: The model is for another task, or a question or context is empty.
        """
        found = self._native.answer(
            [(question, context) for question, context in questions],
            top_k=top_k,
            max_answer_tokens=max_answer_tokens,
            allow_no_answer=allow_no_answer,
            threads=resolve_threads(threads),
            batch_size=batch_size,
        )
        return [list(answers.answers) for answers in read_records(_Answers, found)]

    def fill_masks(
        self,
        texts: str | Sequence[str],
        *,
        top_k: int = 5,
        batch_size: int = 32,
        threads: int | None = None,
    ) -> list[FilledMasks]:
        """The likeliest words for the mask tokens of texts.

        Args:
            texts: A text, or several, each with at least one mask token.
            top_k: Words for each mask.
            batch_size: Texts that are run together; bounds memory, never changes a result.
            threads: Worker threads; by default :func:`fewbit.get_num_threads`.

        Raises:
            FewbitError: The model is for another task, or a text has no mask.
        """
        found = self._native.fill_masks(
            as_texts("texts", texts), top_k=top_k, threads=resolve_threads(threads), batch_size=batch_size
        )
        return read_records(FilledMasks, found)

    @property
    def directory(self) -> str:
        """The model directory."""
        return self._directory

    @property
    def task(self) -> str:
        """What the model is for: ``sequence classification``, ``token classification``, ``question answering`` …"""
        return self._native.task

    @property
    def labels(self) -> list[str]:
        """The names of a classifier's labels, in the order of the logits."""
        return self._native.labels

    @property
    def max_tokens(self) -> int:
        """Longest input in tokens, special tokens included."""
        return self._native.max_tokens

    @property
    def memory_bytes(self) -> int:
        """Bytes of parameters held in memory."""
        return self._native.memory_bytes


@dataclass(frozen=True)
class _Answers:
    answers: tuple[Answer, ...]


def _open(directory: str, settings: dict[str, Any]) -> Predictor:
    return Predictor(_fewbit.Predictor.open(directory, **settings), directory, settings)


def _inputs(inputs: Input | Sequence[Input]) -> list[Input]:
    """One input, or several. A tuple of two texts is a pair."""
    if isinstance(inputs, str):
        return [inputs]
    if isinstance(inputs, tuple) and len(inputs) == 2 and all(isinstance(one, str) for one in inputs):
        return [(str(inputs[0]), str(inputs[1]))]
    return list(inputs)


def _pairs(inputs: Input | Sequence[Input]) -> list[tuple[str, str | None]]:
    found: list[tuple[str, str | None]] = []
    for index, one in enumerate(_inputs(inputs)):
        text, pair = (one, None) if isinstance(one, str) else one
        # What is called without types gives other things, too.
        if not isinstance(text, str) or not isinstance(pair, str | None):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"inputs, number {index}: expected a text or two, found {one!r}")
        found.append((text, pair))
    return found
