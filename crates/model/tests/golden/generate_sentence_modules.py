"""Writes `sentence_modules/`: what sentence-transformers makes of the modules that may follow an encoder.

    python generate_sentence_modules.py

Pinned: Python 3.11, torch 2.15.0, transformers 5.23.0, tokenizers 0.23.3, sentence-transformers 6.2.0, safetensors 0.8.0, on a CPU,
one thread. The encoders are those of `pooling/`, whose files are not copied; README.md beside this file says what the files hold.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import sentence_transformers
import torch
import transformers
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.base.modules import Dense, Normalize, Router, Transformer
from sentence_transformers.sentence_transformer.modules import Dropout, LayerNorm, Pooling
from sentence_transformers.sparse_encoder.modules import SpladePooling
from transformers import BertForMaskedLM

HERE = Path(__file__).resolve().parent
ENCODER_FILES = ["config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt"]
HIDDEN = 16
TEXTS = ["", "hello world", "the cat sat on the mat", "o", "zzz unbelievable 42, playing " + "the " * 40]

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)
transformers.logging.disable_progress_bar()


def encoder(name):
    return Transformer(str(HERE / "pooling" / name))


def call(name, task=None, prompt_name=None, prompt=None, change=None):
    """Arguments of encode, and fields of JSON files (file -> field, with dots for those inside -> value, null to take it away) that are changed first."""
    return {"name": name, "task": task, "prompt_name": prompt_name, "prompt": prompt, "change": change or {}}


def put_encoders(folder, encoders):
    for place, name in encoders.items():
        for file in ENCODER_FILES:
            shutil.copy(HERE / "pooling" / name / file, folder / place / file)


def change_files(folder, changes):
    for name, fields in changes.items():
        file = folder / name
        content = json.loads(file.read_text())
        for field, value in fields.items():
            inner, last = content, field.split(".")
            for part in last[:-1]:
                inner = inner[part]
            if value is None:
                inner.pop(last[-1], None)
            else:
                inner[last[-1]] = value
        file.write_text(json.dumps(content))


def encode(folder, one):
    settings = json.loads((folder / "config_sentence_transformers.json").read_text())
    sparse = settings["model_type"] == "SparseEncoder"
    model = (SparseEncoder if sparse else SentenceTransformer)(str(folder), device="cpu", local_files_only=True)
    arguments = {"batch_size": 1, "prompt_name": one["prompt_name"], "prompt": one["prompt"]}
    arguments |= {"convert_to_sparse_tensor": False} if sparse else {"convert_to_tensor": True}
    match one["task"]:
        case None:
            return model.encode(TEXTS, **arguments)
        case "query":
            return model.encode_query(TEXTS, **arguments)
        case "document":
            return model.encode_document(TEXTS, **arguments)
        case other:
            return model.encode(TEXTS, task=other, **arguments)


def case(name, modules, encoders, calls, *, seed, prompts=None, safe=True, edit=None):
    folder = HERE / "sentence_modules" / name
    generator = torch.Generator().manual_seed(seed)
    model = SentenceTransformer(modules=modules, device="cpu", prompts=prompts)
    for key, parameter in sorted(model.named_parameters()):
        if ".linear." in key or ".norm." in key or ".residual." in key:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.5 + (1.0 if key.endswith("norm.weight") else 0.0))
    model.save(str(folder), create_model_card=False, safe_serialization=safe)
    for place in encoders:
        for file in (folder / place).iterdir():
            if file.name in ENCODER_FILES or file.name in ("tokenizer.json", "pytorch_model.bin", "special_tokens_map.json"):
                file.unlink()
    if edit:
        edit(folder)
    expected = {}
    for index, one in enumerate(calls):
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch) / "model"
            shutil.copytree(folder, copy)
            put_encoders(copy, encoders)
            change_files(copy, one["change"])
            try:
                found = encode(copy, one)
            except Exception as error:
                one["error"] = f"{type(error).__name__}: {str(error).splitlines()[0]}".replace(str(copy), "DIR")
                continue
        assert found.dtype == torch.float32
        if torch.isfinite(found).all():
            expected[f"call.{index}"] = found.contiguous()
        else:
            one["error"] = "not finite"
    (folder / "calls.json").write_text(json.dumps({"encoders": encoders, "texts": TEXTS, "calls": calls}, indent=1) + "\n")
    save_file(expected, folder / "expected.safetensors")
    print(f"sentence_modules/{name}: {len(expected)} results, errors: {[one['name'] for one in calls if 'error' in one]}")


ONE = {"": "mean-normalize"}
ACTIVATIONS = ["Tanh", "ReLU", "GELU", "SiLU", "Sigmoid", "LeakyReLU", "ELU"]
DENSE = "2_Dense/config.json"


def activation(path):
    return {DENSE: {"activation_function": path}}


def dense():
    calls = [call("as saved"), call("task query", task="query"), call("no activation given", change=activation(None))]
    calls += [call(name, change=activation(f"torch.nn.modules.activation.{name}")) for name in ACTIVATIONS]
    calls += [
        call("Identity", change=activation("torch.nn.modules.linear.Identity")),
        call("torch.nn.Tanh", change=activation("torch.nn.Tanh")),
        call("a function", change=activation("torch.tanh")),
        call("no class of torch", change=activation("torch.nn.modules.activation.Swish")),
        call("in_features of another width", change={DENSE: {"in_features": 12}}),
        call("out_features of another width", change={DENSE: {"out_features": 7}}),
        call("no bias, but one in the file", change={DENSE: {"bias": False}}),
        call("in_features missing", change={DENSE: {"in_features": None}}),
        call("an unknown field", change={DENSE: {"dropout": 0.1}}),
        call("use_residual without its weights", change={DENSE: {"use_residual": True}}),
        call("an input that is not there", change={DENSE: {"module_input_name": "all_layer_embeddings"}}),
        call("concatenated modes that do not fit", change={"1_Pooling/config.json": {"pooling_mode": ["mean", "cls"]}}),
    ]
    modules = [encoder("mean-normalize"), Pooling(HIDDEN), Dense(HIDDEN, 6), Normalize()]
    case("dense", modules, ONE, calls, seed=1)
    modules = [encoder("mean-normalize"), Pooling(HIDDEN, "max"), Dense(HIDDEN, 6, bias=False, activation_function=None)]
    case("dense-pickle", modules, ONE, [call("as saved")], seed=2, safe=False)


def embedding_gemma():
    prompts = {"query": "task: search result | query: ", "document": "title: none | text: ", "web": "the web: "}
    identity = torch.nn.Identity()
    dense = [Dense(HIDDEN, 48, bias=False, activation_function=identity), Dense(48, HIDDEN, bias=False, activation_function=identity)]
    modules = [encoder("mean-normalize"), Pooling(HIDDEN), *dense, Normalize()]
    calls = [
        call("no prompt"),
        call("prompt name", prompt_name="query"),
        call("task query", task="query"),
        call("task document", task="document"),
        call("task and prompt name", task="query", prompt_name="web"),
        call("task and prompt", task="document", prompt="a cat: "),
        call("no such prompt", prompt_name="passage"),
        call("truncated", change={"config_sentence_transformers.json": {"truncate_dim": 5}}),
        call("queries of 4 tokens", task="query", change={"sentence_bert_config.json": {"query_length": 4}}),
        call("documents are not queries", task="document", change={"sentence_bert_config.json": {"query_length": 4}}),
        call("expanded queries", task="query", change={"sentence_bert_config.json": {"query_expansion": {"strategy": "fixed", "length": 8, "token": "[MASK]"}}}),
    ]
    case("embedding-gemma", modules, ONE, calls, seed=3, prompts=prompts)


def layer_norm():
    modules = [
        encoder("mean-normalize"),
        Pooling(HIDDEN, ("cls", "max")),
        LayerNorm(2 * HIDDEN),
        Dropout(0.3),
        Dense(2 * HIDDEN, 8, activation_function=torch.nn.GELU(), use_residual=True),
        Dense(8, 8, activation_function=torch.nn.SiLU(), use_residual=True),
        Normalize(),
        Dense(8, 5),
    ]
    calls = [
        call("as saved"),
        call("another dimension", change={"2_LayerNorm/config.json": {"dimension": HIDDEN}}),
        call("an unknown field", change={"2_LayerNorm/config.json": {"eps": 1e-3}}),
        call("a dropout beyond 1", change={"3_Dropout/config.json": {"dropout": 1.5}}),
    ]
    case("layer-norm", modules, ONE, calls, seed=4)


def tokens():
    modules = [
        encoder("mean-normalize"),
        Normalize(),
        Dense(HIDDEN, 10, activation_function=torch.nn.ReLU(), module_input_name="token_embeddings"),
        Normalize(module_input_name="token_embeddings"),
        Pooling(10, ("mean", "lasttoken")),
        Dense(10, 3, module_input_name="token_embeddings"),
    ]
    case("token-embeddings", modules, ONE, [call("as saved")], seed=5)
    modules = [*modules, Pooling(3, "max"), Normalize()]
    case("pooled-twice", modules, ONE, [call("as saved")], seed=6)


def include_prompt():
    modes = ("cls", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
    prompts = {"query": "the cat: ", "document": "", "long": "the cat " * 40, "part": "hell"}
    calls = [
        call("no prompt"),
        call("by name", prompt_name="query"),
        call("by task", task="query"),
        call("an empty one", prompt_name="document"),
        call("a text", prompt="play"),
        call("of spaces", prompt="  "),
        call("as long as the limit", prompt_name="long"),
        call("with more tokens than the text that it is a part of", prompt_name="part"),
        call("maximum", prompt_name="query", change={"1_Pooling/config.json": {"pooling_mode": "max"}}),
        call("maximum of no token", prompt_name="part", change={"1_Pooling/config.json": {"pooling_mode": "max"}}),
        call("by default", change={"config_sentence_transformers.json": {"default_prompt_name": "query"}}),
        call("included after all", prompt_name="query", change={"1_Pooling/config.json": {"include_prompt": True}}),
    ]
    case("include-prompt", [encoder("mean-normalize"), Pooling(HIDDEN, modes, include_prompt=False)], ONE, calls, seed=7, prompts=prompts)


ROUTER = "2_Router/router_config.json"


def routes(file, tasks):
    def parameters(**fields):
        return {file: {f"parameters.{field}": value for field, value in fields.items()}}

    first, second = tasks
    return [
        call("default"),
        call(f"task {first}", task=first),
        call(f"task {second}", task=second),
        call("no such task", task="passage"),
        call("another default", change=parameters(default_route=first)),
        call("no such default", change=parameters(default_route="passage")),
        call("the first by default", change=parameters(default_route=None)),
        call("no default", change=parameters(default_route=None, allow_empty_key=False)),
        call("no default, but a task", task=second, change=parameters(default_route=None, allow_empty_key=False)),
        call("an unknown parameter", change=parameters(default="query")),
    ]


def routers():
    after = Router.for_query_document([Dense(HIDDEN, 6)], [Dense(HIDDEN, 6, activation_function=None), Normalize()])
    calls = routes(ROUTER, ["query", "document"])
    calls += [
        call("mapped", task="query", change={ROUTER: {"parameters.route_mappings": {"('query', 'text')": "document"}}}),
        call("mapped for any task", task="passage", change={ROUTER: {"parameters.route_mappings": {"(None, 'text')": "query"}}}),
        call("mapped by task", task="passage", change={ROUTER: {"parameters.route_mappings": {"('passage', None)": "query", "(None, None)": "document"}}}),
        call("mapped without a task", change={ROUTER: {"parameters.route_mappings": {"('query', None)": "document", "(None, None)": "query"}}}),
        call("mapped for images", task="query", change={ROUTER: {"parameters.route_mappings": {"('query', 'image')": "document", "(None, ('image', 'text'))": "document"}}}),
        call("mapped to no route", task="query", change={ROUTER: {"parameters.route_mappings": {"('query', 'text')": "passage"}}}),
        call("mapped by what is no pair", task="query", change={ROUTER: {"parameters.route_mappings": {"query and text": "document"}}}),
        call("a module that is not there", task="query", change={ROUTER: {"structure.query": ["query_1_Dense"]}}),
        call("no modules", task="query", change={ROUTER: {"structure.query": []}}),
    ]
    case("router", [encoder("mean-normalize"), Pooling(HIDDEN), after], ONE, calls, seed=8, prompts={"query": "the cat: "})

    def as_asym(folder):
        """As versions before Router wrote it."""
        (folder / ROUTER).rename(folder / "2_Router" / "config.json")
        (folder / "2_Router").rename(folder / "2_Asym")
        file = folder / "2_Asym" / "config.json"
        content = json.loads(file.read_text())
        content["types"] = {name: "sentence_transformers.models." + kind.split(".")[-1] for name, kind in content["types"].items()}
        content["parameters"] = {"allow_empty_key": True}
        file.write_text(json.dumps(content, indent=4))
        listed = json.loads((folder / "modules.json").read_text())
        kinds = ["sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling", "sentence_transformers.models.Asym"]
        for entry, kind in zip(listed, kinds):
            entry["type"] = kind
        listed[2]["path"] = "2_Asym"
        (folder / "modules.json").write_text(json.dumps(listed, indent=2))

    after = Router({"query": [Dense(HIDDEN, 6)], "doc": [Dense(HIDDEN, 6, activation_function=None), Normalize()]})
    calls = [call("default"), call("task query", task="query"), call("task doc", task="doc"), call("task document", task="document")]
    case("asym", [encoder("mean-normalize"), Pooling(HIDDEN), after], ONE, calls, seed=9, edit=as_asym)

    whole = Router.for_query_document(
        [encoder("cls"), Pooling(HIDDEN, "cls"), Dense(HIDDEN, 5)],
        [encoder("mean-normalize"), Pooling(HIDDEN, "mean", include_prompt=False), Dense(HIDDEN, 5)],
    )
    encoders = {"query_0_Transformer": "cls", "document_0_Transformer": "mean-normalize"}
    calls = routes("router_config.json", ["query", "document"])
    case("router-of-encoders", [whole, Normalize()], encoders, calls, seed=10, prompts={"query": "hello ", "document": "the "})


def splade():
    """A tiny BertForMaskedLM, whose decoder is its word embeddings."""
    folder = HERE / "sentence_modules" / "splade"
    generator = torch.Generator().manual_seed(11)
    source = HERE / "pooling" / "mean-normalize"
    with tempfile.TemporaryDirectory() as scratch:
        masked = BertForMaskedLM.from_pretrained(source)
        for key, parameter in sorted(masked.named_parameters()):
            if key.startswith("cls."):
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.data.copy_(1.0 + 0.3 * noise if key.endswith("LayerNorm.weight") else 0.5 * noise)
        masked.save_pretrained(scratch)
        for file in ENCODER_FILES[2:]:
            shutil.copy(source / file, scratch)
        modules = [Transformer(scratch, transformer_task="fill-mask"), SpladePooling()]
        SparseEncoder(modules=modules, device="cpu", prompts={"query": "the cat: "}).save(str(folder), create_model_card=False)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink()
    for file in ENCODER_FILES[2:]:
        shutil.copy(source / file, folder)
    pooling, transformer, settings = "1_SpladePooling/config.json", "sentence_bert_config.json", "config_sentence_transformers.json"
    calls = [
        call("as saved"),
        call("task query", task="query"),
        call("sum", change={pooling: {"pooling_strategy": "sum"}}),
        call("log1p_relu", change={pooling: {"activation_function": "log1p_relu"}}),
        call("sum of log1p_relu", change={pooling: {"pooling_strategy": "sum", "activation_function": "log1p_relu"}}),
        call("in chunks", change={pooling: {"chunk_size": 2}}),
        call("the largest values", change={settings: {"max_active_dims": 7}}),
        call("another strategy", change={pooling: {"pooling_strategy": "mean"}}),
        call("another activation", change={pooling: {"activation_function": "gelu"}}),
        call("an unknown field", change={pooling: {"top_k": 7}}),
        call("hidden states", change={transformer: {"transformer_task": "feature-extraction", "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}}}),
    ]
    expected = {}
    for index, one in enumerate(calls):
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch) / "model"
            shutil.copytree(folder, copy)
            change_files(copy, one["change"])
            try:
                expected[f"call.{index}"] = encode(copy, one).contiguous()
            except Exception as error:
                one["error"] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    (folder / "calls.json").write_text(json.dumps({"encoders": {}, "texts": TEXTS, "calls": calls}, indent=1) + "\n")
    save_file(expected, folder / "expected.safetensors")
    print("sentence_modules/splade:", [one.get("error") for one in calls], expected["call.0"].shape, (expected["call.0"] != 0).sum(1))


if __name__ == "__main__":
    assert transformers.__version__ == "5.23.0" and sentence_transformers.__version__ == "6.2.0"
    shutil.rmtree(HERE / "sentence_modules", ignore_errors=True)
    dense()
    embedding_gemma()
    layer_norm()
    tokens()
    include_prompt()
    routers()
    splade()
