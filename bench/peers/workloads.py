"""What every engine is given: token ids. Fixed shapes of random ids, and sentences in batches, padded as the peers' users do."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy

SEED = 17
# Ids of BERT's vocabulary. Random words are drawn from its whole words, beyond the reserved ids.
CLS, SEP, PAD, FIRST_WORD, LAST_WORD = 101, 102, 0, 1996, 28_000


@dataclass
class Workload:
    """A named pass over some batches of token ids."""

    name: str
    # Batches of sequences of token ids.
    batches: list
    # One shape only: an engine may compile for it.
    fixed: bool

    @property
    def texts(self):
        return sum(len(batch) for batch in self.batches)

    @property
    def tokens(self):
        return sum(len(sequence) for batch in self.batches for sequence in batch)


def pad(sequences):
    """`input_ids`, `attention_mask`, `token_type_ids`, int64 (sequences, tokens of the longest)."""
    shape = (len(sequences), max(map(len, sequences)))
    ids, mask = numpy.full(shape, PAD, numpy.int64), numpy.zeros(shape, numpy.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": numpy.zeros(shape, numpy.int64)}


def shape(text):
    """`8x128`: 8 sequences of 128 random words, [CLS] and [SEP] included."""
    batch, tokens = map(int, text.split("x"))
    if batch < 1 or tokens < 3:
        raise ValueError(f"shape {text!r}: expected BATCHxTOKENS with at least 1x3")
    generator = random.Random(SEED)
    words = lambda: [generator.randint(FIRST_WORD, LAST_WORD) for _ in range(tokens - 2)]
    return Workload(text, [[[CLS, *words(), SEP] for _ in range(batch)]], True)


def sentences(sequences, batch):
    """The same sequences twice: sorted by length and in file order, in batches of `batch`."""
    chunks = lambda rows: [rows[start : start + batch] for start in range(0, len(rows), batch)]
    return [Workload("sorted", chunks(sorted(sequences, key=len)), False), Workload("file order", chunks(sequences), False)]


def read_texts(file, count):
    """`count` texts, evenly spaced through a file of lines, or of JSON objects with `sentence1` and `sentence2` (or `text`)."""
    texts = []
    for number, line in enumerate(Path(file).read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        if Path(file).suffix == ".jsonl":
            row = json.loads(line)
            found = [row[name] for name in ("sentence1", "sentence2", "text") if name in row]
            if not found:
                raise ValueError(f"{file}, line {number}: expected `sentence1`, `sentence2` or `text`, found {sorted(row)}")
            texts.extend(found)
        else:
            texts.append(line)
    if len(texts) < count:
        raise ValueError(f"{file}: expected at least {count} texts, found {len(texts)}")
    return [texts[index * len(texts) // count] for index in range(count)]


def tokenize(model, texts):
    """Token ids of each text, cut at the model's `max_seq_length`."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(model) / "tokenizer.json"))
    settings = Path(model) / "sentence_bert_config.json"
    tokenizer.enable_truncation(json.loads(settings.read_text())["max_seq_length"] if settings.exists() else 512)
    tokenizer.no_padding()
    return [encoding.ids for encoding in tokenizer.encode_batch(texts)]
