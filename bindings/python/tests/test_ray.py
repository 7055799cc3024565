"""Embeddings by Ray: the bits of one process, the other columns kept."""

import numpy
import pyarrow
import pytest

import fewbit

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
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
