"""Other libraries by fewbit: the embeddings are those of fewbit.Encoder, and what the libraries do with them works."""

import asyncio
import json
import pickle
import shutil

import numpy
import pytest

import fewbit


@pytest.fixture(scope="module")
def expected(sample_model, texts):
    return fewbit.Encoder.open(sample_model).encode(texts)


@pytest.fixture
def asymmetric_model(sample_model, tmp_path):
    """The sample model with a prompt for queries."""
    directory = tmp_path / "asymmetric"
    shutil.copytree(sample_model, directory)
    settings = {"prompts": {"query": "query: ", "document": ""}, "default_prompt_name": None}
    (directory / "config_sentence_transformers.json").write_text(json.dumps(settings))
    return directory


def test_langchain(sample_model, texts, expected):
    langchain = pytest.importorskip("fewbit.integrations.langchain", exc_type=ImportError)
    embeddings = langchain.FewbitEmbeddings(sample_model, batch_size=2)
    assert numpy.array_equal(numpy.float32(embeddings.embed_documents(texts)), expected)
    assert numpy.array_equal(numpy.float32(embeddings.embed_query(texts[1])), expected[1])
    assert numpy.array_equal(numpy.float32(asyncio.run(embeddings.aembed_documents(texts))), expected)
    assert embeddings.embed_documents([]) == []


def test_langchain_gives_queries_their_prompt(asymmetric_model, sample_model, texts, expected):
    langchain = pytest.importorskip("fewbit.integrations.langchain", exc_type=ImportError)
    embeddings = langchain.FewbitEmbeddings(asymmetric_model)
    prompted = fewbit.Encoder.open(sample_model).encode("query: " + texts[0])
    assert numpy.array_equal(numpy.float32(embeddings.embed_query(texts[0])), prompted)
    assert numpy.array_equal(numpy.float32(embeddings.embed_documents(texts)), expected)


def test_llama_index(sample_model, texts, expected):
    llama_index = pytest.importorskip("fewbit.integrations.llama_index", exc_type=ImportError)
    embedding = llama_index.FewbitEmbedding(sample_model, embed_batch_size=3)
    assert numpy.array_equal(numpy.float32(embedding.get_text_embedding_batch(texts)), expected)
    assert numpy.array_equal(numpy.float32(embedding.get_query_embedding(texts[1])), expected[1])
    assert numpy.array_equal(numpy.float32(asyncio.run(embedding.aget_query_embedding(texts[1]))), expected[1])
    assert embedding.model_name == str(sample_model)


def test_haystack(sample_model, texts, expected):
    haystack = pytest.importorskip("fewbit.integrations.haystack", exc_type=ImportError)
    from haystack import Document, Pipeline

    query = haystack.FewbitTextEmbedder(str(sample_model))
    assert numpy.array_equal(numpy.float32(query.run(texts[1])["embedding"]), expected[1])
    pipeline = Pipeline()
    pipeline.add_component("embedder", haystack.FewbitDocumentEmbedder(str(sample_model), batch_size=2))
    # A pipeline is saved and loaded without the model.
    pipeline = Pipeline.loads(pipeline.dumps(), allowed_modules=["fewbit.integrations.haystack"])
    given = [Document(content=text) for text in texts]
    found = pipeline.run({"embedder": {"documents": given}})["embedder"]["documents"]
    assert numpy.array_equal(numpy.float32([document.embedding for document in found]), expected)
    assert given[0].embedding is None
    with pytest.raises(TypeError, match="FewbitDocumentEmbedder embeds documents"):
        query.run(given)


def test_sentence_transformers_runs_a_transformer_of_fewbit(sample_model, texts, tmp_path):
    module = pytest.importorskip("fewbit.integrations.sentence_transformers", exc_type=ImportError)
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

    transformer = module.FewbitTransformer(sample_model)
    model = SentenceTransformer(modules=[transformer, Pooling(transformer.get_embedding_dimension()), Normalize()], device="cpu")
    found = model.encode(texts)
    expected = SentenceTransformer(str(sample_model), device="cpu").encode(texts)
    # Both are in float32, and sum in another order.
    assert numpy.abs(found - expected).max() < 2e-6
    # Processes of their own get the model pickled.
    assert numpy.array_equal(pickle.loads(pickle.dumps(model)).encode(texts), found)
    model.save(str(tmp_path / "saved"))
    assert numpy.array_equal(SentenceTransformer(str(tmp_path / "saved"), trust_remote_code=True, device="cpu").encode(texts), found)
