"""fewbit in other libraries, one small module each, imported only by those who have the library:

- ``fewbit.integrations.sentence_transformers``: a module for ``SentenceTransformer(modules=[…])``
- ``fewbit.integrations.langchain``, ``fewbit.integrations.llama_index``, ``fewbit.integrations.haystack``: embeddings for retrieval
"""
