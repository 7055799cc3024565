"""What task heads say, against what transformers and sentence-transformers said when the golden files were made."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy
import pytest
from conftest import GOLDEN

import fewbit
from fewbit import Encoder, Predictor

FOLDER = GOLDEN / "predictions"


def expected(name: str) -> Any:
    return json.loads((FOLDER / name / "expected.json").read_text())


# Scores are sums of some dozens of float products in another order.
def close(score: float) -> Any:
    return pytest.approx(score, abs=2e-5)


def test_labels_are_those_of_the_pipeline_of_transformers() -> None:
    predictor, cases = Predictor.open(FOLDER / "bert-single-label"), expected("bert-single-label")["texts"]
    found = predictor.classify([case["text"] for case in cases])
    for one, case in zip(found, cases, strict=True):
        assert [label.label for label in one.labels] == [label["label"] for label in case["labels"]]
        assert [label.score for label in one.labels] == [close(label["score"]) for label in case["labels"]]
        assert (one.label, one.score) == (one.labels[0].label, one.labels[0].score)
    assert predictor.task == "sequence classification" and sorted(predictor.labels) == ["bad", "fair", "good"]


def test_pairs_are_read_together() -> None:
    predictor, cases = Predictor.open(FOLDER / "bert-cross-encoder"), expected("bert-cross-encoder")["pairs"]
    pairs = [(case["text"], case["pair"]) for case in cases]
    scores = [one.score for one in predictor.classify(pairs)]
    assert scores == [close(case["labels"][0]["score"]) for case in cases]
    assert predictor.classify(pairs[0])[0].score == scores[0]


def test_logits_are_one_row_for_each_text() -> None:
    predictor = Predictor.open(FOLDER / "bert-single-label")
    logits = predictor.logits(["a", "the cat"])
    assert logits.shape == (2, 3) and logits.dtype == numpy.float32
    scores = numpy.exp(logits[0]) / numpy.exp(logits[0]).sum()
    assert {one.label: one.score for one in predictor.classify("a")[0].labels} == {
        label: close(score) for label, score in zip(predictor.labels, scores, strict=True)
    }


@pytest.mark.parametrize("aggregation", ["none", "simple", "first", "average", "max"])
def test_entities_are_those_of_the_pipeline_of_transformers(aggregation: str) -> None:
    predictor = Predictor.open(FOLDER / "bert-token-classification")
    for case in expected("bert-token-classification"):
        (found,) = predictor.tag(case["text"], aggregation=aggregation)
        assert len(found.entities) == len(case[aggregation])
        for entity, known in zip(found.entities, case[aggregation], strict=True):
            assert entity.score == close(known["score"])
            for name in ["entity", "entity_group", "index", "word", "start", "end"]:
                assert getattr(entity, name) == known.get(name)


def test_answers_are_those_of_the_pipeline_of_transformers() -> None:
    predictor = Predictor.open(FOLDER / "bert-question-answering")
    case = next(case for case in expected("bert-question-answering") if case.get("top_k") == 3)
    (found,) = predictor.answer([(case["question"], case["context"])], top_k=3)
    assert [(answer.answer, answer.start, answer.end) for answer in found] == [
        (answer["answer"], answer["start"], answer["end"]) for answer in case["answers"]
    ]


def test_words_for_masks_are_those_of_the_pipeline_of_transformers() -> None:
    predictor = Predictor.open(FOLDER / "bert-masked-lm")
    for case in expected("bert-masked-lm"):
        (found,) = predictor.fill_masks(case["text"], top_k=len(case["masks"][0]))
        for words, known in zip(found.masks, case["masks"], strict=True):
            assert [word.token for word in words] == [word["token"] for word in known]
            assert [word.score for word in words] == [close(word["score"]) for word in known]


def test_predict_goes_by_the_task_of_the_model() -> None:
    texts = ["the cat", "a"]
    for name, method in [("bert-single-label", "classify"), ("bert-token-classification", "tag")]:
        predictor = Predictor.open(FOLDER / name)
        assert predictor.predict(texts) == getattr(predictor, method)(texts)
    assert Encoder.open(FOLDER / "bert-single-label").predict("a") == Predictor.open(FOLDER / "bert-single-label").classify("a")
    question = ("where is it?", "the cat is on the mat")
    answers = Predictor.open(FOLDER / "bert-question-answering")
    assert answers.predict(question) == [tuple(answers.answer([question])[0])]
    masks = Predictor.open(FOLDER / "bert-masked-lm")
    assert masks.predict("the [MASK]") == masks.fill_masks("the [MASK]")


def test_a_pickled_predictor_opens_its_directory() -> None:
    predictor = Predictor.open(FOLDER / "bert-single-label", max_tokens=8)
    again = pickle.loads(pickle.dumps(predictor))
    assert again.classify("the cat sat on the mat") == predictor.classify("the cat sat on the mat")


def test_misuse_is_told() -> None:
    predictor = Predictor.open(FOLDER / "bert-token-classification")
    with pytest.raises(fewbit.FewbitError, match="expected a model for sequence classification, found one for token classification"):
        predictor.classify("a")
    with pytest.raises(ValueError, match="aggregation: expected one of none, simple"):
        predictor.tag("a", aggregation="words")
    with pytest.raises(TypeError, match="found a pair"):
        predictor.predict([("a", "b")])
    with pytest.raises(TypeError, match="number 0: expected a text or two"):
        Predictor.open(FOLDER / "bert-single-label").classify([(1, 2)])  # type: ignore[list-item]
    with pytest.raises(fewbit.FewbitError, match="has no head|head"):
        Predictor.open(GOLDEN / "architectures/bert")
