"""Writes the Parquet files beside this script with the real library, and the same rows as JSONL.

Versions: pyarrow 26.0.1.
Run, in this folder: python generate.py
"""

import json

import pyarrow as pa
import pyarrow.parquet as pq

assert pa.__version__ == "26.0.1", pa.__version__


def rows(count):
    """Texts of every length from 0, ids padded on the right or on the left, or not at all."""
    for index in range(count):
        tokens = index % 5 + 1
        padding = (index // 5) % 3
        ids = [5 + (index * 7 + token * 13) % 45 for token in range(tokens)]
        before, after = (padding, 0) if index % 2 else (0, padding)
        yield {
            "text": "ভাষা-" * (index % 4) + f"row {index}",
            "input_ids": [0] * before + ids + [0] * after,
            "attention_mask": [0] * before + [1] * tokens + [0] * after,
            "token_type_ids": [0] * before + [token % 2 for token in range(tokens)] + [0] * after,
        }


def jsonl(name, table):
    with open(name, "w", encoding="utf-8") as file:
        for row in table.to_pylist():
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def table(rows, text, ids, small, nullable=True):
    fields = {"text": text, "input_ids": ids, "attention_mask": small, "token_type_ids": small}
    schema = pa.schema([pa.field(name, kind, nullable=nullable) for name, kind in fields.items()])
    return pa.Table.from_pylist(rows, schema=schema)


ROWS = list(rows(600))
# As the datasets library writes them: 32-bit ids, 8-bit masks, snappy. Row groups that do not divide a reader's chunks.
DATASETS = table(ROWS, pa.string(), pa.list_(pa.int32()), pa.list_(pa.int8()))
jsonl("rows.jsonl", DATASETS)
pq.write_table(DATASETS, "snappy.parquet", compression="snappy", row_group_size=257)
pq.write_table(
    table(ROWS, pa.large_string(), pa.large_list(pa.int64()), pa.list_(pa.int64())),
    "zstd.parquet",
    compression="zstd",
    data_page_version="2.0",
    row_group_size=500,
)
pq.write_table(
    table(ROWS, pa.string(), pa.list_(pa.field("element", pa.uint32(), nullable=False)), pa.list_(pa.uint8()), nullable=False),
    "gzip.parquet",
    compression="gzip",
    use_dictionary=False,
    data_page_size=512,
)
pq.write_table(
    table(ROWS, pa.string(), pa.list_(pa.int32()), pa.list_(pa.int8())),
    "plain.parquet",
    compression="none",
    use_dictionary=False,
    use_compliant_nested_type=False,
)

# What cannot be read as texts or ids.
ODD = pa.table(
    {
        "text": pa.array(["a", None, "c"]),
        "bytes": pa.array([b"a", b"\xff", b"c"], pa.binary()),
        "number": pa.array([1, 2, 3]),
        "null_list": pa.array([[1], None, [3]], pa.list_(pa.int32())),
        "null_element": pa.array([[1], [2, None, 3], [4]], pa.list_(pa.int32())),
        "empty": pa.array([[1], [], [3]], pa.list_(pa.int32())),
        "floats": pa.array([[1.5], [2.5], [3.5]], pa.list_(pa.float32())),
        "nested": pa.array([[[1]], [[2]], [[3]]], pa.list_(pa.list_(pa.int32()))),
        "structures": pa.array([{"a": 1, "b": 2}] * 3),
        "large": pa.array([[1], [2**32 - 1], [3]], pa.list_(pa.uint32())),
    }
)
pq.write_table(ODD, "odd.parquet", compression="snappy")
pq.write_table(ODD.select(["text"]), "brotli.parquet", compression="brotli")
