"""Embeds a Parquet data set of many files with Ray, file by file: what an interruption left undone, the next run does.

    python embed_parquet.py MODEL texts/ embeddings/ --actors 2 --threads 4

Every file of the source becomes a file of the same name in the output, with a column of embeddings. It gets its name when it is whole, so a
file that is there is finished, and is passed over.
"""

import argparse
import os
from pathlib import Path

import pyarrow
import pyarrow.parquet
import ray.data

import fewbit.ray


def embed_file(source: Path, target: Path, model: Path, *, column: str, actors: int, threads: int) -> None:
    """Writes ``source`` with embeddings to ``target``, which is whole or not there."""
    table = pyarrow.parquet.read_table(source)
    # A row keeps its place: Ray hands blocks back in any order.
    numbered = table.append_column("__row", pyarrow.array(range(table.num_rows), pyarrow.int64()))
    dataset = ray.data.from_arrow(numbered).repartition(4 * actors)
    embedded = fewbit.ray.embed(dataset, model, column=column, actors=actors, threads=threads)
    blocks = [block for block in ray.get(embedded.to_arrow_refs()) if block.num_rows > 0]
    if not blocks:
        raise SystemExit(f"{source}: expected rows, found none")
    whole = pyarrow.concat_tables(blocks).sort_by("__row").drop_columns(["__row"])
    unfinished = target.with_name(f".{target.name}.unfinished")
    pyarrow.parquet.write_table(whole, unfinished)
    os.replace(unfinished, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("source", type=Path, help="folder of Parquet files, in subfolders too")
    parser.add_argument("output", type=Path)
    parser.add_argument("--column", default="text")
    parser.add_argument("--actors", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of each actor")
    arguments = parser.parse_args()
    files = sorted(arguments.source.rglob("*.parquet"))
    if not files:
        raise SystemExit(f"{arguments.source}: expected Parquet files, found none")
    for number, source in enumerate(files, 1):
        target = arguments.output / source.relative_to(arguments.source)
        if target.exists():
            print(f"{number}/{len(files)} {target}: there already")
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        embed_file(source, target, arguments.model, column=arguments.column, actors=arguments.actors, threads=arguments.threads)
        print(f"{number}/{len(files)} {target}: {pyarrow.parquet.read_metadata(target).num_rows} rows")


if __name__ == "__main__":
    main()
