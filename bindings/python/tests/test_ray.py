"""Embeddings by Ray: the bits of one process, the other columns kept."""

import subprocess
import sys
from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet
import pytest

import fewbit

ray = pytest.importorskip("ray")

EXAMPLE = Path(__file__).resolve().parents[1] / "examples/embed_parquet.py"


@pytest.fixture(scope="module")
def cluster():
    # Two actors, and room for the tasks that cut the data set into blocks: with fewer CPUs these would wait for the actors, and they for them.
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


def test_two_actors_give_the_bits_of_one_process_and_keep_the_other_columns(cluster, sample_model):
    import fewbit.ray

    texts = [f"text number {i} " + "word " * (i % 17) for i in range(60)]
    dataset = ray.data.from_arrow(pyarrow.table({"id": range(60), "text": texts})).repartition(6)
    found = fewbit.ray.embed(dataset, sample_model, actors=2, threads=1, rows_per_call=8).to_pandas().sort_values("id")
    expected = fewbit.Encoder.open(sample_model).encode(texts)
    assert list(found["text"]) == texts
    assert numpy.array_equal(numpy.stack(list(found["embedding"])), expected)


def test_embeddings_are_lists_of_one_length_and_replace_a_column_of_that_name(sample_model):
    from fewbit.ray import Embedder

    table = pyarrow.table({"embedding": ["old"], "text": ["a text"]})
    out = Embedder(str(sample_model), threads=1)(table)
    assert out.column_names == ["text", "embedding"]
    assert out.schema.field("embedding").type == pyarrow.list_(pyarrow.float32(), 384)
    empty = Embedder(str(sample_model), threads=1)(table.slice(0, 0))
    assert empty.num_rows == 0 and empty.schema == out.schema


def test_a_column_that_is_not_there_and_a_text_that_is_missing_are_named(sample_model):
    from fewbit.ray import Embedder

    embedder = Embedder(str(sample_model), threads=1)
    with pytest.raises(KeyError, match="text: expected a column of texts, found body"):
        embedder(pyarrow.table({"body": ["a"]}))
    with pytest.raises(ValueError, match="text: expected texts, found 1 nulls"):
        embedder(pyarrow.table({"text": ["a", None]}))


def test_the_parquet_example_does_what_an_interrupted_run_left_undone(cluster, sample_model, tmp_path):
    source, output = tmp_path / "texts", tmp_path / "embeddings"
    (source / "year=2026").mkdir(parents=True)
    texts = [f"text {i}" for i in range(9)]
    for name, part in (("year=2026/a.parquet", texts[:5]), ("b.parquet", texts[5:])):
        pyarrow.parquet.write_table(pyarrow.table({"text": part}), source / name)
    arguments = [sys.executable, EXAMPLE, sample_model, source, output]
    first = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    assert first.count("rows") == 2
    finished = output / "b.parquet"
    before = finished.stat().st_mtime_ns
    # As a run that was killed leaves it.
    (output / "year=2026/a.parquet").unlink()
    (output / "year=2026/.a.parquet.unfinished").write_bytes(b"half")
    again = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    assert "b.parquet: there already" in again and finished.stat().st_mtime_ns == before
    table = pyarrow.parquet.read_table(output / "year=2026/a.parquet", partitioning=None)
    assert table["text"].to_pylist() == texts[:5]
    expected = fewbit.Encoder.open(sample_model).encode(texts[:5])
    assert numpy.array_equal(numpy.float32(table["embedding"].to_pylist()), expected)


def test_statistics_of_several_actors_are_those_of_one_process(cluster, sample_model, tmp_path):
    import fewbit.ray

    texts = [f"text number {i}" for i in range(24)]
    dataset = ray.data.from_arrow(pyarrow.table({"text": texts})).repartition(4)
    parts = fewbit.ray.calibrate(dataset, sample_model, tmp_path / "parts", actors=2, rows_per_call=6, observer="min-max")
    assert len(parts) == 4
    fewbit.calibrate(sample_model, texts, tmp_path / "whole", observer="min-max")
    for name, stats in (("of-parts", parts), ("of-whole", tmp_path / "whole")):
        fewbit.quantize_model(sample_model, tmp_path / name, "static", stats=stats)
    of_parts, of_whole = (tmp_path / name / "model.safetensors" for name in ("of-parts", "of-whole"))
    assert of_parts.read_bytes() == of_whole.read_bytes()
