"""Embeddings by many processes, with Ray Data (needs ray[data]).

>>> import ray  # doctest: +SKIP
>>> import fewbit.ray  # doctest: +SKIP
>>> dataset = ray.data.read_parquet("texts/")  # doctest: +SKIP
>>> fewbit.ray.embed(dataset, "models/minilm-int8", actors=2, threads=4).write_parquet("embeddings/")  # doctest: +SKIP
"""

# The library is typed in parts only.
# pyright: basic

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy
import pyarrow  # type: ignore[import-untyped]
import ray.data

from fewbit.calibration import calibrate as calibrate_here
from fewbit.encoder import Encoder


class Embedder:
    """What ``Dataset.map_batches`` calls: an Arrow table of texts in, the same table with a column of embeddings out.

    Each actor opens the model by its path; actors of a node share the mapped file.

    Args:
        model: A model directory, there on every node.
        column: The column of texts.
        output: The column that is added: a fixed-size list of float32. One of that name is replaced.
        batch_size: Texts that are run together.
        threads: Worker threads; by default :func:`fewbit.get_num_threads`, which follows the ``OMP_NUM_THREADS`` that Ray sets to the
            actor's number of CPUs.
        options: Further arguments of :meth:`fewbit.Encoder.open`.

    Raises:
        FewbitError: As :meth:`fewbit.Encoder.open`.
    """

    def __init__(
        self,
        model: str,
        *,
        column: str = "text",
        output: str = "embedding",
        batch_size: int = 32,
        threads: int | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        self._encoder = Encoder.open(model, **(options or {}))
        self._column = column
        self._output = output
        self._batch_size = batch_size
        self._threads = threads

    def __call__(self, table: pyarrow.Table) -> pyarrow.Table:
        """The table with embeddings.

        Raises:
            KeyError: There is no column of texts.
            ValueError: A text is missing (null).
        """
        if self._column not in table.column_names:
            raise KeyError(f"{self._column}: expected a column of texts, found {', '.join(table.column_names)}; `column` names it")
        texts = table[self._column]
        if texts.null_count:
            raise ValueError(f"{self._column}: expected texts, found {texts.null_count} nulls; filter them out, or fill them with an empty text")
        embeddings = self._encoder.encode(texts.to_pylist(), batch_size=self._batch_size, threads=self._threads)
        values = pyarrow.array(numpy.ascontiguousarray(embeddings).reshape(-1))
        column = pyarrow.FixedSizeListArray.from_arrays(values, self._encoder.columns)
        if self._output in table.column_names:
            table = table.drop_columns([self._output])
        return table.append_column(self._output, column)


def embed(
    dataset: ray.data.Dataset,
    model: str | os.PathLike[str],
    *,
    column: str = "text",
    output: str = "embedding",
    actors: int = 1,
    threads: int = 1,
    batch_size: int = 32,
    rows_per_call: int = 1024,
    **options: Any,
) -> ray.data.Dataset:
    """``dataset`` with a column of embeddings, made by ``actors`` processes of ``threads`` threads each, when it is consumed.

    The embeddings have the same bits with any number of either. A data set of few blocks keeps few actors busy:
    ``dataset.repartition(4 * actors)`` makes more. The cluster needs at least one CPU beside those of the actors, for the tasks that read and cut
    the data set.

    Args:
        dataset: Rows with a column of texts.
        model: A model directory, there on every node.
        column: The column of texts.
        output: The column that is added.
        actors: Processes; each opens the model once.
        threads: Worker threads of each, for which as many CPUs are reserved.
        batch_size: Texts that are run together.
        rows_per_call: Rows that Ray hands to an actor at a time.
        options: Further arguments of :meth:`fewbit.Encoder.open`.
    """
    return dataset.map_batches(
        Embedder,
        fn_constructor_args=(os.path.abspath(model),),
        fn_constructor_kwargs={
            "column": column,
            "output": output,
            "batch_size": batch_size,
            "threads": threads,
            "options": options,
        },
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=threads,
        batch_size=rows_per_call,
        batch_format="pyarrow",
    )


class _Calibrator:
    """Observes a model on each batch of texts, and gives the statistics as a file's bytes."""

    def __init__(self, model: str, column: str, options: dict[str, Any]) -> None:
        self._model = model
        self._column = column
        self._options = options

    def __call__(self, table: pyarrow.Table) -> pyarrow.Table:
        with tempfile.TemporaryDirectory() as folder:
            stats = Path(folder, "statistics")
            calibrate_here(self._model, table[self._column].to_pylist(), stats, **self._options)
            return pyarrow.table({"statistics": [stats.read_bytes()]})


def calibrate(
    dataset: ray.data.Dataset,
    model: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    column: str = "text",
    actors: int = 1,
    rows_per_call: int = 256,
    **options: Any,
) -> list[Path]:
    """Observes a float model's activations on ``dataset``, in ``actors`` processes, for :func:`fewbit.quantize_model` with the method
    ``static`` and ``stats=`` what this returns: merged, the statistics of parts are those of one process.

    Args:
        dataset: Rows with a column of texts like those that the model will see; a few hundred are enough.
        model: A float model directory, there on every node.
        folder: Where to write the files of statistics; made if it is not there.
        column: The column of texts.
        actors: Processes.
        rows_per_call: Texts of a file of statistics.
        options: ``observer``, ``backend`` and ``batch_size`` of :func:`fewbit.calibrate`.

    Raises:
        ValueError: The data set has no rows.
    """
    observed = dataset.map_batches(
        _Calibrator,
        fn_constructor_args=(os.path.abspath(model), column, options),
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=1,
        batch_size=rows_per_call,
        batch_format="pyarrow",
    )
    Path(folder).mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    for row in observed.iter_rows():
        file = Path(folder, f"statistics-{len(files):05}")
        file.write_bytes(row["statistics"])
        files.append(file)
    if not files:
        raise ValueError(f"dataset: expected rows with a column `{column}`, found none")
    return files
