"""Embeddings of texts and hidden states of token ids."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy
import pytest
from conftest import GOLDEN

import fewbit
from fewbit import Encoder

TEXTS = ["a", "The cat sat on the mat; the dog did not.", "Ann lives in Washington.", "...", "two  spaces"]


@pytest.fixture(scope="module")
def encoder(tiny_model: str) -> Encoder:
    return Encoder.open(tiny_model)


def padded(rows: list[list[int]]) -> tuple[numpy.ndarray, numpy.ndarray]:
    length = max(len(row) for row in rows)
    ids = numpy.array([row + [0] * (length - len(row)) for row in rows])
    mask = numpy.array([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return ids, mask


def test_a_text_has_the_same_bits_alone_and_in_any_batch_with_any_threads(encoder: Encoder) -> None:
    """(pitfall 27)"""
    together = encoder.encode(TEXTS, threads=1)
    for batch_size, threads in [(1, 1), (2, 2), (32, 3)]:
        assert numpy.array_equal(encoder.encode(TEXTS, batch_size=batch_size, threads=threads), together)
    alone = [encoder.encode(text) for text in TEXTS]
    assert numpy.array_equal(numpy.stack(alone), together)
    assert together.dtype == numpy.float32 and together.shape == (len(TEXTS), encoder.columns)
    assert together.flags.c_contiguous and together.flags.owndata is not None and together.flags.writeable


def test_no_text_gives_an_array_without_rows(encoder: Encoder) -> None:
    assert encoder.encode([]).shape == (0, encoder.columns)


def test_the_sample_model_makes_the_embeddings_of_sentence_transformers(sample_model: str) -> None:
    """The golden embeddings are those of sentence-transformers; rounding differs by the order of float sums alone."""
    folder = GOLDEN / "sentences/all-MiniLM-L6-v2"
    encoder = Encoder.open(sample_model)
    texts = [json.loads(line)["text"] for line in (folder / "expected.jsonl").read_text().splitlines()]
    stored = (folder / "expected.safetensors").read_bytes()
    start = 8 + int.from_bytes(stored[:8], "little")
    expected = numpy.frombuffer(stored[start:], numpy.float32).reshape(len(texts), 384)
    found = encoder.encode(texts)
    cosine = (found * expected).sum(1) / numpy.linalg.norm(found, axis=1) / numpy.linalg.norm(expected, axis=1)
    assert cosine.min() > 1 - 1e-5


def test_settings_replace_those_of_the_model(tiny_model: str) -> None:
    by_default, first = Encoder.open(tiny_model), Encoder.open(tiny_model, pooling="cls", normalize=True, max_tokens=8)
    assert not numpy.array_equal(by_default.encode("a b c"), first.encode("a b c"))
    assert numpy.linalg.norm(first.encode("a b c")) == pytest.approx(1, abs=1e-6)
    assert (first.max_tokens, first.normalizes) == (8, True)
    prompted = Encoder.open(tiny_model, prompt="the ")
    assert numpy.array_equal(prompted.encode("cat"), by_default.encode("the cat"))


def test_settings_that_there_are_not_are_value_errors(tiny_model: str) -> None:
    for settings, text in [
        ({"pooling": "middle"}, "pooling: expected mean, cls, max or last, found \"middle\""),
        ({"weight_only_in": "words"}, "weight_only_in: expected integers or floats"),
        ({"prompt": "a", "prompt_name": "b"}, "prompt and prompt_name: expected one of them"),
    ]:
        with pytest.raises(ValueError, match=text):
            Encoder.open(tiny_model, **settings)
    with pytest.raises(fewbit.FewbitError, match="max_tokens"):
        Encoder.open(tiny_model, max_tokens=100_000)


def test_a_pickled_encoder_opens_its_directory_with_its_settings(tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that was opened by a relative path, elsewhere."""
    monkeypatch.chdir(Path(tiny_model).parent)
    encoder = Encoder.open(Path(tiny_model).name, pooling="max")
    pickled = pickle.dumps(encoder)
    monkeypatch.chdir(tmp_path)
    assert numpy.array_equal(pickle.loads(pickled).encode(TEXTS), encoder.encode(TEXTS))
    with pytest.raises((pickle.UnpicklingError, EOFError)):
        pickle.loads(pickled[:-5])


def test_sparse_embeddings_are_the_values_other_than_0() -> None:
    encoder = Encoder.open(GOLDEN / "sentence_modules/splade")
    assert encoder.is_sparse
    dense = encoder.encode(["a cat", "the dog"])
    for row, sparse in zip(dense, encoder.encode_sparse(["a cat", "the dog"]), strict=True):
        again = numpy.zeros_like(row)
        again[sparse.indices] = sparse.values
        assert numpy.array_equal(again, row) and (sparse.values != 0).all()


def test_dense_models_have_no_sparse_embeddings(encoder: Encoder) -> None:
    with pytest.raises(ValueError, match="expected a SPLADE model"):
        encoder.encode_sparse(["a"])


def test_progress_is_told_and_ends_at_the_number_of_texts(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    tqdm = pytest.importorskip("tqdm.auto")
    counts: list[int] = []
    real = tqdm.tqdm.update
    monkeypatch.setattr(tqdm.tqdm, "update", lambda bar, step: (counts.append(step), real(bar, step))[1])
    encoder.encode(TEXTS, batch_size=2, show_progress=True)
    assert counts == [2, 2, 1]


def test_padding_left_right_and_in_the_middle_leaves_the_tokens_as_they_are(encoder: Encoder) -> None:
    """(pitfalls 19, 20 and 21)"""
    rows = [[1, 5, 9, 2], [1, 7, 2]]
    alone = [encoder.forward([row]) for row in rows]
    ids, mask = padded(rows)
    ids, mask = numpy.pad(ids, ((0, 0), (2, 3))), numpy.pad(mask, ((0, 0), (2, 3)))
    found = encoder.forward(ids, mask)
    assert found.shape == (2, 9, encoder.hidden_size)
    for row, (tokens, own) in enumerate(zip(rows, alone, strict=True)):
        assert numpy.array_equal(found[row, 2 : 2 + len(tokens)], own[0])
    assert not found[mask == 0].any()
    hole = numpy.array([[1, 99, 5, 9, 2]]) % 80
    assert numpy.array_equal(encoder.forward(hole, [[1, 0, 1, 1, 1]])[0, [0, 2, 3, 4]], alone[0][0])


def test_arrays_of_any_order_and_dtype_of_integers_give_the_same_bits(encoder: Encoder) -> None:
    """(pitfall 16, of token ids)"""
    ids = numpy.array([[1, 5, 9, 2], [1, 7, 8, 2]])
    expected = encoder.forward(ids)
    wide = numpy.zeros((4, 8), int)
    wide[::2, ::2] = ids
    for same in [numpy.asfortranarray(ids), wide[::2, ::2], ids.astype(numpy.int32), ids.astype(numpy.uint8), ids.tolist()]:
        assert numpy.array_equal(encoder.forward(same), expected)
    assert numpy.array_equal(encoder.forward(ids, numpy.ones((2, 4), bool)), expected)
    assert numpy.array_equal(encoder.forward(ids[::-1])[::-1], expected)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (([[1.0, 2.0]],), "input_ids: expected integers, found float64"),
        (([["a"]],), "input_ids: expected integers"),
        (([1, 2],), r"input_ids: expected the shape \(sequences, length\), found \(2,\)"),
        (([[1, 2]], [[1]]), "attention_mask: expected the shape of input_ids"),
        (([[1, 2]], [[0, 0]]), "attention_mask, sequence 0: expected at least one token"),
        (([[1, -100]],), "input_ids, sequence 0, token 1: expected a number from 0"),
        (([[1, 10**6]],), "1000000"),
        (([[1, 2]], None, [[0, 9]]), "9"),
        (([[1] * 5000],), "5000"),
        (([[float("nan")]],), "input_ids: expected integers, found float64"),
        (([[]],), "expected"),
    ],
)
def test_token_ids_that_cannot_be_run_are_errors(encoder: Encoder, arguments: tuple[object, ...], text: str) -> None:
    with pytest.raises(fewbit.FewbitError, match=text):
        encoder.forward(*arguments)


def test_an_empty_batch_of_token_ids_gives_no_states(encoder: Encoder) -> None:
    assert encoder.forward(numpy.zeros((0, 7), int)).shape == (0, 7, encoder.hidden_size)


def test_what_is_no_text_is_a_type_error(encoder: Encoder) -> None:
    with pytest.raises(TypeError, match="texts, number 1: expected a text, found int"):
        encoder.encode(["a", 1])  # type: ignore[list-item]


def test_numbers_out_of_range_are_errors(encoder: Encoder) -> None:
    for options in [{"batch_size": 0}, {"threads": 0}, {"threads": 5000}]:
        with pytest.raises(fewbit.FewbitError):
            encoder.encode(["a"], **options)


def test_models_that_are_not_there_are_errors(tmp_path: Path) -> None:
    for model, kind in [("no/such-model", fewbit.FewbitError), (tmp_path, fewbit.FewbitError), (" ", ValueError), (b"a", TypeError)]:
        with pytest.raises(kind):
            Encoder.open(model)  # type: ignore[arg-type]


def test_a_hub_id_is_found_in_the_cache(tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout of the cache is that of huggingface_hub."""
    snapshot = tmp_path / "hub/models--owner--name/snapshots/0123456789012345678901234567890123456789"
    snapshot.mkdir(parents=True)
    for file in Path(tiny_model).iterdir():
        (snapshot / file.name).symlink_to(file)
    references = tmp_path / "hub/models--owner--name/refs"
    references.mkdir()
    (references / "main").write_text(snapshot.name)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert numpy.array_equal(Encoder.open("owner/name").encode(TEXTS), Encoder.open(tiny_model).encode(TEXTS))
