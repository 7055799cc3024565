"""Writes `sentence_settings.json`: what sentence-transformers makes of one setting of a model directory each.

    python generate_sentence_settings.py

Pinned: Python 3.11, torch 2.15.0, transformers 5.23.0, tokenizers 0.23.3, sentence-transformers 6.2.0, on a CPU, one thread.
A case is the model of `pooling/lower-case-in-settings` with other settings; README.md beside this file says what the file holds.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import torch
import transformers
from sentence_transformers import SentenceTransformer

HERE = Path(__file__).resolve().parent
MODEL = HERE / "pooling" / "lower-case-in-settings"
TEXT = "the Cat sat on the Mat"
QUERY = {"query": "a dog: "}

torch.set_num_threads(1)
transformers.logging.disable_progress_bar()


def case(name, transformer=None, model=None, pooling=None, prompt_name=None, prompt=None, modules=True):
    """Contents of sentence_bert_config.json and config_sentence_transformers.json (none if None), keys changed in the pooling configuration,
    arguments of encode, and whether there is a modules.json."""
    return dict(name=name, transformer=transformer, model=model, pooling=pooling, prompt_name=prompt_name, prompt=prompt, modules=modules)


CASES = [
    case("nothing"),
    case("max_seq_length", {"max_seq_length": 5}),
    case("max_seq_length null", {"max_seq_length": None}),
    case("max_seq_length 2, as many as special tokens", {"max_seq_length": 2}),
    case("max_seq_length 0", {"max_seq_length": 0}),
    case("max_seq_length beyond the positions", {"max_seq_length": 100000}),
    case("max_seq_length text", {"max_seq_length": "5"}),
    case("max_seq_length fraction", {"max_seq_length": 5.0}),
    case("do_lower_case", {"do_lower_case": True}),
    case("do_lower_case false", {"do_lower_case": False}),
    case("do_lower_case null", {"do_lower_case": None}),
    case("do_lower_case text", {"do_lower_case": "yes"}),
    case("unknown key of the transformer", {"max_length": 5}),
    case("similarity_fn_name cosine", model={"similarity_fn_name": "cosine"}),
    case("similarity_fn_name dot", model={"similarity_fn_name": "dot"}),
    case("similarity_fn_name null", model={"similarity_fn_name": None}),
    case("unknown key of the model", model={"max_seq_length": 5}),
    case("truncate_dim", model={"truncate_dim": 4}),
    case("truncate_dim null", model={"truncate_dim": None}),
    case("truncate_dim beyond the columns", model={"truncate_dim": 1000}),
    case("truncate_dim text", model={"truncate_dim": "4"}),
    case("prompts alone", model={"prompts": QUERY}),
    case("prompts text", model={"prompts": "query"}),
    case("prompts number", model={"prompts": {"query": 5}}, prompt_name="query"),
    case("default_prompt_name", model={"prompts": QUERY, "default_prompt_name": "query"}),
    case("default_prompt_name before prompts", model={"default_prompt_name": "query", "prompts": QUERY}),
    case("default_prompt_name null", model={"prompts": QUERY, "default_prompt_name": None}),
    case("default_prompt_name of no prompt", model={"prompts": QUERY, "default_prompt_name": "passage"}),
    case("default_prompt_name empty", model={"prompts": QUERY, "default_prompt_name": ""}),
    case("default_prompt_name query without prompts", model={"default_prompt_name": "query"}),
    case("default_prompt_name document beside others", model={"prompts": QUERY, "default_prompt_name": "document"}),
    case("default_prompt_name of a null prompt", model={"prompts": {"passage": None}, "default_prompt_name": "passage"}),
    case("prompt_name", model={"prompts": QUERY}, prompt_name="query"),
    case("prompt_name document beside others", model={"prompts": QUERY}, prompt_name="document"),
    case("prompt_name instead of the default", model={"prompts": {**QUERY, "other": "mat "}, "default_prompt_name": "query"}, prompt_name="other"),
    case("prompt_name of a null prompt", model={"prompts": {"passage": None}}, prompt_name="passage"),
    case("prompt_name of no prompt", model={"prompts": QUERY}, prompt_name="passage"),
    case("prompt_name query without settings", prompt_name="query"),
    case("prompt_name document without settings", prompt_name="document"),
    case("prompt_name passage without settings", prompt_name="passage"),
    case("prompt_name query without modules", model={"prompts": QUERY}, prompt_name="query", modules=False),
    case("default_prompt_name without modules", model={"prompts": QUERY, "default_prompt_name": "query"}, modules=False),
    case("do_lower_case without modules", {"do_lower_case": True}, modules=False),
    case("prompt", prompt="a dog: "),
    case("prompt instead of the default", model={"prompts": QUERY, "default_prompt_name": "query"}, prompt="mat "),
    case("prompt empty instead of the default", model={"prompts": QUERY, "default_prompt_name": "query"}, prompt=""),
    case("include_prompt true", model={"prompts": QUERY}, pooling={"include_prompt": True}, prompt_name="query"),
    case("include_prompt false", model={"prompts": QUERY}, pooling={"include_prompt": False}, prompt_name="query"),
    case("include_prompt false without a prompt", model={"prompts": QUERY}, pooling={"include_prompt": False}),
    case("include_prompt false with an empty prompt", model={"prompts": QUERY}, pooling={"include_prompt": False}, prompt_name="document"),
    case("unknown key of pooling", pooling={"exclude_prompt": True}),
]


def run(one, directory):
    """The embedding, or the error."""
    settings = {"sentence_bert_config.json": one["transformer"], "config_sentence_transformers.json": one["model"]}
    for file, content in settings.items():
        (directory / file).unlink(missing_ok=True)
        if content is not None:
            (directory / file).write_text(json.dumps(content))
    if not one["modules"]:
        (directory / "modules.json").unlink()
    pooling = directory / "1_Pooling/config.json"
    pooling.write_text(json.dumps(json.loads(pooling.read_text()) | (one["pooling"] or {})))
    try:
        model = SentenceTransformer(str(directory), device="cpu", local_files_only=True)
        return {"embedding": model.encode(TEXT, prompt_name=one["prompt_name"], prompt=one["prompt"]).tolist()}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}


def main():
    cases = []
    for one in CASES:
        with tempfile.TemporaryDirectory() as scratch:
            directory = Path(scratch) / "model"
            shutil.copytree(MODEL, directory)
            cases.append(one | run(one, directory))
    lines = ",\n".join(json.dumps(one) for one in cases)
    (HERE / "sentence_settings.json").write_text(f'{{"text": {json.dumps(TEXT)}, "cases": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
