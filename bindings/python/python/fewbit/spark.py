"""Embeddings by many processes, with Spark (needs pyspark, pandas and pyarrow).

>>> import fewbit.spark  # doctest: +SKIP
>>> embed = fewbit.spark.embed_udf("models/minilm-int8")  # doctest: +SKIP
>>> frame.withColumn("embedding", embed("text")).write.parquet("embeddings")  # doctest: +SKIP
"""

# The library is typed in parts only.
# pyright: basic

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy
from numpy.typing import NDArray
from pyspark.ml.functions import predict_batch_udf
from pyspark.sql.types import ArrayType, FloatType


def embed_udf(
    model: str | os.PathLike[str], *, batch_size: int = 32, rows_per_call: int = 1024, threads: int = 1, **options: Any
) -> Callable[..., Any]:
    """A column function from texts to embeddings (``array<float>``).

    Every Python worker of Spark opens the model once. The embeddings have the same bits with any number of workers and threads.

    Args:
        model: A model directory, there on every node.
        batch_size: Texts that are run together.
        rows_per_call: Rows that Spark hands over at a time.
        threads: Worker threads of each Python worker; what ``spark.task.cpus`` says.
        options: Further arguments of :meth:`fewbit.Encoder.open`.
    """
    directory = os.path.abspath(model)

    def make_predict_fn() -> Callable[[NDArray[numpy.object_]], NDArray[numpy.float32]]:
        # Imported where it runs: on a worker.
        from fewbit.encoder import Encoder

        encoder = Encoder.open(directory, **options)

        def embed(texts: NDArray[numpy.object_]) -> NDArray[numpy.float32]:
            # By way of pandas a null may have become NaN.
            missing = sum(not isinstance(text, str) for text in texts)
            if missing:
                raise ValueError(f"expected texts, found {missing} nulls; filter them out, or fill them with an empty text")
            return encoder.encode(list(texts), batch_size=batch_size, threads=threads)

        return embed

    udf: Callable[..., Any] = predict_batch_udf(make_predict_fn, return_type=ArrayType(FloatType()), batch_size=rows_per_call)
    return udf
