"""A transformer for sentence-transformers that fewbit runs (needs sentence-transformers).

>>> from sentence_transformers import SentenceTransformer  # doctest: +SKIP
>>> from sentence_transformers.sentence_transformer.modules import Normalize, Pooling  # doctest: +SKIP
>>> from fewbit.integrations.sentence_transformers import FewbitTransformer  # doctest: +SKIP
>>> transformer = FewbitTransformer("models/minilm-int8")  # doctest: +SKIP
>>> model = SentenceTransformer(modules=[transformer, Pooling(transformer.get_embedding_dimension()), Normalize()])  # doctest: +SKIP
"""

# The library is typed in parts only.
# pyright: basic

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers.base.modules import InputModule
from transformers import AutoTokenizer

from fewbit.encoder import Encoder
from fewbit.models import resolve_model


class FewbitTransformer(InputModule):
    """Tokenizer and network of a model directory: hidden states of texts, on a CPU, for the pooling that follows.

    Args:
        model: A model directory or a Hub id, quantized or not.
        max_seq_length: Longest input in tokens; by default as the model's files say.
        threads: Worker threads; by default :func:`fewbit.get_num_threads`.

    Raises:
        FewbitError: As :meth:`fewbit.Encoder.open`.
    """

    config_file_name = "fewbit_transformer.json"
    config_keys = ["max_seq_length"]
    # A folder of its own: modules.json, which names this class, then does not lie beside the model's files.
    save_in_root = False

    def __init__(self, model: str | os.PathLike[str], *, max_seq_length: int | None = None, threads: int | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._model = resolve_model(model)
        self._threads = threads
        self._encoder = Encoder.open(self._model, max_tokens=max_seq_length)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(self._model)

    @property
    def max_seq_length(self) -> int:
        """Longest input in tokens, special tokens included."""
        return self._encoder.max_tokens

    def get_embedding_dimension(self) -> int:
        """Size of a hidden state."""
        return self._encoder.hidden_size

    def get_word_embedding_dimension(self) -> int:
        """Size of a hidden state, by the name that older versions ask for."""
        return self.get_embedding_dimension()

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Token ids of texts or of pairs of texts, padded."""
        texts = self._prepend_prompt(list(inputs), prompt) if prompt else list(inputs)
        tokens = self.tokenizer(texts, padding=True, truncation="longest_first", max_length=self.max_seq_length, return_tensors="pt")
        return dict(tokens)

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Adds ``token_embeddings`` (texts, length, hidden size); 0 at padding."""
        ids = features["input_ids"]
        states = self._encoder.forward(
            ids.numpy(force=True),
            features["attention_mask"].numpy(force=True),
            features["token_type_ids"].numpy(force=True) if "token_type_ids" in features else None,
            threads=self._threads,
        )
        return {**features, "token_embeddings": torch.from_numpy(states).to(ids.device)}

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Copies the model's files, which transformers loads without fewbit, too."""
        for name in os.listdir(self._model):
            source = os.path.join(self._model, name)
            if os.path.isfile(source) and name not in ("modules.json", "config_sentence_transformers.json", "README.md"):
                shutil.copy2(source, os.path.join(output_path, name))
        self.save_config(output_path)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> FewbitTransformer:  # type: ignore[override]
        """The transformer of a directory that was saved."""
        directory = os.path.join(model_name_or_path, subfolder)
        settings = cls.load_config(directory)
        return cls(directory, max_seq_length=settings.get("max_seq_length"))
