"""Embeddings by Spark: the bits of one process."""

import os
import shutil
import sys

import numpy
import pytest

import fewbit

pyspark = pytest.importorskip("pyspark")


@pytest.fixture(scope="module")
def session():
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java, which is not installed")
    from pyspark.sql import SparkSession

    # The workers are processes of the Python that runs this.
    os.environ["PYSPARK_PYTHON"] = sys.executable

    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .getOrCreate()
    )
    yield spark
    spark.stop()


def test_two_workers_give_the_bits_of_one_process(session, sample_model):
    import fewbit.spark

    texts = [f"text number {i} " + "word " * (i % 17) for i in range(40)]
    frame = session.createDataFrame(list(enumerate(texts)), "id int, text string").repartition(4)
    embed = fewbit.spark.embed_udf(sample_model, rows_per_call=8)
    rows = sorted(frame.withColumn("embedding", embed("text")).collect(), key=lambda row: row["id"])
    assert [row["text"] for row in rows] == texts
    found = numpy.array([row["embedding"] for row in rows], dtype=numpy.float32)
    assert numpy.array_equal(found, fewbit.Encoder.open(sample_model).encode(texts))


def test_a_missing_text_is_an_error(session, sample_model):
    import fewbit.spark

    frame = session.createDataFrame([("a",), (None,)], "text string")
    embed = fewbit.spark.embed_udf(sample_model)
    with pytest.raises(Exception) as raised:
        frame.withColumn("embedding", embed("text")).collect()
    assert "expected texts, found 1 nulls" in str(raised.value)
