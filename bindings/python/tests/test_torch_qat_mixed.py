"""Layers of one model that are trained to have different weights, inputs and tables: by configs of their own, and by recipes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import encoder_models  # noqa: E402
import qat_models  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from torch import nn  # noqa: E402

import fewbit  # noqa: E402
import fewbit.torch as ft  # noqa: E402
from fewbit import FewbitError, _fewbit  # noqa: E402
from fewbit.torch import encoder_directory  # noqa: E402
from fewbit.torch.layers import QuantizedEmbedding, QuantizedLinear  # noqa: E402
from fewbit.torch.native_encoder import NativeEncoder  # noqa: E402

torch.set_num_threads(1)

INT4 = ft.Int4WeightOnlyConfig(group_size=16)
W4A8 = ft.Int8DynamicActivationInt4WeightConfig(group_size=16, scales="learned")

#: The config of most layers, and those of others.
MIXTURES: dict[str, tuple[Any, dict[Any, Any]]] = {
    "weight-only": (INT4, {"*.output.dense": "weight-only", "*.query": ft.Int4WeightOnlyConfig(group_size=None), "encoder.layer.1.attention.self.key": ft.Int4WeightOnlyConfig(group_size=8, asymmetric=True, scales="learned")}),
    "dynamic": (W4A8, {"*.output.dense": "dynamic", "encoder.layer.0.attention.self.query": ft.Int8DynamicActivationInt8WeightConfig(scales="learned")}),
    "dynamic and weight-only": ("dynamic", {"*.0.intermediate.dense": INT4, "*.0.*.value": W4A8, "encoder.layer.1": ft.Int8WeightOnlyConfig()}),
    "static and dynamic": ("static", {"*.value": "dynamic", "*.intermediate.dense": W4A8}),
    "dynamic, int8 table": (W4A8, {"*.query": "dynamic", nn.Embedding: "dynamic"}),
    "weight-only, int8 table": (INT4, {"*.query": "weight-only", nn.Embedding: "weight-only"}),
    "nf4, NF4 table": (ft.NF4WeightOnlyConfig(block_size=32), {nn.Embedding: ft.NF4WeightOnlyConfig(block_size=32)}),
    "nf4, doubly quantized table": (ft.NF4WeightOnlyConfig(32, True), {nn.Embedding: ft.NF4WeightOnlyConfig(32, True)}),
}  # fmt: skip


def trained(model: Any, config: Any, **options: Any) -> Any:
    prepared = ft.prepare_qat(model, config, **options)
    batch = encoder_models.batch()
    qat_models.train(prepared, lambda: prepared(**batch).last_hidden_state.pow(2).mean())
    return prepared


def weights_of(layer: Any) -> Any:
    """What the layer computes with for all rows, in evaluation mode."""
    return layer.weight_fake_quant.eval()(layer.float_matrix()).detach()


@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert", "qwen3"])
@pytest.mark.parametrize("mixture", MIXTURES)
def test_the_file_of_a_mixture_has_the_codes_of_the_last_forward_pass(mixture: str, family: str, tmp_path: Path) -> None:
    config, others = MIXTURES[mixture]
    if family != "bert":
        # By the names of their layers.
        types = {key: value for key, value in others.items() if not isinstance(key, str)}
        values = [value for key, value in others.items() if isinstance(key, str)]
        names = [name for name, module in encoder_models.encoder(family).named_modules() if isinstance(module, nn.Linear)]
        others = {**types, **{names[2 * index + 1]: value for index, value in enumerate(values)}}
    prepared = trained(encoder_models.encoder(family), config, module_configs=others)
    batch = encoder_models.batch(seed=5)
    with qat_models.used_weights(prepared) as used:
        prepared(**batch)
    converted = ft.convert(prepared)
    assert isinstance(converted, NativeEncoder), ft.report_of(converted)
    converted.save_pretrained(tmp_path)
    written = {name: torch.from_numpy(weight) for name, weight in _fewbit.dequantized_weights(str(tmp_path))}
    layers = qat_models.layers(prepared)
    assert written.keys() == layers.keys() == used.keys()
    for name, layer in layers.items():
        assert written[name].equal(weights_of(layer)), name
        if not isinstance(layer, nn.Embedding):
            assert written[name].equal(used[name]), name
    recipe = json.loads(_fewbit.read_recipe(file=str(tmp_path / "recipe.toml")))
    if "nf4" not in mixture:
        assert recipe["method"] == mixture.split(",")[0].split(" and ")[0]
        assert recipe["modules"]
    if family != "qwen3":
        with torch.no_grad():
            prepared.eval()
            seen = batch["attention_mask"].bool()
            trained_states, native = prepared(**batch).last_hidden_state[seen], converted(**batch).last_hidden_state[seen]
            ft.disable_fake_quant(prepared)
            float_states = prepared(**batch).last_hidden_state[seen]
        # As of schemes that are not mixed: less than what quantizing every input and weight did.
        assert (native - trained_states).norm() < 0.5 * (trained_states - float_states).norm()


@pytest.mark.parametrize("mixture", ["weight-only", "dynamic", "static and dynamic", "weight-only, int8 table"])
def test_transformers_loads_the_directory_of_a_mixture(mixture: str, tmp_path: Path) -> None:
    config, others = MIXTURES[mixture]
    prepared = trained(encoder_models.encoder("bert"), config, module_configs=others)
    ft.convert(prepared).save_pretrained(tmp_path)
    loaded, info = transformers.AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    batch = encoder_models.batch()
    with torch.no_grad():
        expected, found = prepared.eval()(**batch).last_hidden_state, loaded.eval()(**batch).last_hidden_state
        ft.disable_fake_quant(prepared)
        float_states = prepared(**batch).last_hidden_state
    assert (expected - found).norm() < 0.5 * (expected - float_states).norm()


RECIPE = """
version = 1
method = "weight-only"
weights = "int4"
group_size = 16
embeddings = "int8"
skip = ["encoder.layer.0.intermediate.dense"]

[modules."*.attention.self.*"]
weights = "int4"
group_size = 8
scales = "absmax"

[modules."encoder.layer.0.attention.self.key"]
weights = "int8"

[modules."encoder.layer.1.output.dense"]
weights = "int8"
"""


@pytest.mark.parametrize("scales", [None, "learned"])
def test_a_recipe_is_what_is_trained_and_written(scales: Any, tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(RECIPE)
    model = encoder_models.encoder("bert")
    prepared = trained(model, file, scales=scales)
    found = {name: layer.weight_fake_quant for name, layer in qat_models.layers(prepared).items()}
    assert "encoder.layer.0.intermediate.dense" not in found
    assert found["encoder.layer.1.attention.self.key"].group_size == 8
    assert str(ft.report_of(prepared).of("encoder.layer.0.attention.self.key").reason).startswith("int8 weights")
    assert "embeddings.word_embeddings" in found
    ft.convert(prepared).save_pretrained(tmp_path / "trained")
    # What `fewbit quantize` makes of the same recipe differs by codes and scales alone.
    (tmp_path / "float").mkdir()
    encoder_directory.write_float(model, str(tmp_path / "float"))
    fewbit.quantize_model(tmp_path / "float", tmp_path / "quantized", recipe=file)
    ours, others = (load_file(tmp_path / name / "model.safetensors") for name in ("trained", "quantized"))
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in ours.items()} == {name: (tensor.shape, tensor.dtype) for name, tensor in others.items()}
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("trained", "quantized")]
    groups = [sorted(json.dumps({**group, "targets": sorted(group["targets"])}) for group in config["quantization_config"]["config_groups"].values()) for config in configs]
    assert groups[0] == groups[1]
    # The same as keys, and by the names of a model around the encoder.
    classifier = transformers.BertForSequenceClassification(model.config)
    again = ft.prepare_qat(classifier, json.loads(_fewbit.read_recipe(file=str(file))), scales=scales)
    schemes = [{entry.name.removeprefix("bert."): entry.reason for entry in ft.report_of(found) if "classifier" not in entry.name} for found in (prepared, again)]
    assert schemes[0] == schemes[1]


def test_the_recipe_that_sensitivity_writes_is_a_config(tiny_model: str, tmp_path: Path) -> None:
    texts, choices = ["the cat sat on the mat", "ann lives in new york", "a", "where does bob live?"], ["int8", "int4+channel"]
    least = fewbit.sensitivity(tiny_model, texts, min_cosine=-1.0, weights=choices)
    report = fewbit.sensitivity(tiny_model, texts, max_bytes=(least.file_bytes + least.uniform[0].file_bytes) // 2, weights=choices)
    chosen = {module: group.chosen for group in report.groups for module in group.modules}
    assert set(chosen.values()) == set(choices)
    model = transformers.AutoModel.from_pretrained(tiny_model)
    prepared = ft.prepare_qat(model, report.recipe)
    ids = torch.tensor([[2, 5, 6, 7, 3]])
    qat_models.train(prepared, lambda: prepared(ids).last_hidden_state.pow(2).mean())
    for module, weights in chosen.items():
        reason = ft.report_of(prepared).of(module).reason
        assert reason.startswith("int8 weights" if weights == "int8" else "int4 weights by output"), module
    converted = ft.convert(prepared)
    assert isinstance(converted, NativeEncoder)
    converted.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size == pytest.approx(report.file_bytes, rel=0.05)


def test_recipes_of_static_and_dynamic_say_which_inputs_are_static_and_float() -> None:
    model = encoder_models.encoder("bert")
    inputs = {"encoder.layer.0.attention.self.query": {"scale": 0.1, "zero_point": 3}}
    prepared = ft.prepare_qat(model, {"method": "static", "static_inputs": inputs})
    kinds = {name: type(layer.input_fake_quant).__name__ for name, layer in qat_models.layers(prepared).items()}
    assert [name for name, kind in kinds.items() if kind == "StaticFakeQuantize"] == list(inputs)
    assert set(kinds.values()) == {"StaticFakeQuantize", "TokenFakeQuantize"}
    recipe = {"method": "dynamic", "weights": "int4", "group_size": 16, "weight_only": ["*.query", "*.output.dense"], "modules": {"*.query": {"weights": "int8"}}}
    prepared = ft.prepare_qat(model, recipe)
    report = ft.report_of(prepared)
    assert report.of("encoder.layer.0.attention.self.query").reason == "int8 weights, inputs float"
    assert report.of("encoder.layer.0.output.dense").reason == "int4 weights in groups of 16, scales mse, inputs float"
    assert report.of("encoder.layer.0.attention.self.value").reason == "int4 weights in groups of 16, scales mse, inputs per-token"


def test_a_recipe_is_about_the_merged_weights_of_adapters() -> None:
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(encoder_models.encoder("bert"), peft.LoraConfig(r=4, target_modules=["query"], lora_dropout=0.0))
    recipe = {"method": "weight-only", "weights": "int4", "group_size": 16, "modules": {"encoder.layer.0.attention.self.query": {"weights": "int8"}}, "skip": ["*.value"]}
    prepared = trained(adapted, recipe, inplace=True)
    report = ft.report_of(prepared)
    assert report.of("base_model.model.encoder.layer.0.attention.self.query").reason == "int8 weights, inputs float"
    assert report.of("base_model.model.encoder.layer.1.attention.self.query").reason == "int4 weights in groups of 16, scales mse, inputs float"
    assert report.of("base_model.model.encoder.layer.1.attention.self.value").action == "float"
    assert isinstance(ft.convert(prepared), NativeEncoder)


@pytest.mark.parametrize("reason", ["NF4", "float", "table"])
def test_mixtures_that_no_directory_holds_are_run_layer_by_layer(reason: str) -> None:
    nf4 = ft.NF4WeightOnlyConfig(32)
    config, others, words = {
        "NF4": ("weight-only", {"*.query": nf4}, "beside NF4 layers a directory has none of another kind"),
        "float": ("static", {"*.query": INT4}, "layers with static inputs and with float ones do not go into one directory"),
        "table": (INT4, {nn.Embedding: nf4}, "beside integers a directory has no table of NF4 codes"),
    }[reason]
    prepared = trained(encoder_models.encoder("bert"), config, module_configs=others)
    converted = ft.convert(prepared)
    assert not isinstance(converted, NativeEncoder)
    assert words in ft.report_of(converted).of("").reason
    for name, layer in qat_models.layers(prepared).items():
        assert converted.get_submodule(name).weight.detach().equal(weights_of(layer)), name


@pytest.mark.parametrize("double_quant", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nf4_tables_compute_the_same_bits(double_quant: bool, dtype: Any) -> None:
    torch.manual_seed(3)
    table = nn.Embedding(20, 64, padding_idx=1).to(dtype)
    config = ft.NF4WeightOnlyConfig(block_size=32, double_quant=double_quant)
    prepared = ft.prepare_qat(nn.Sequential(table), config, {nn.Embedding})
    ids = torch.tensor([[1, 2, 5], [7, 19, 2]])
    qat_models.train(prepared, lambda: (prepared(ids) - 1).pow(2).mean())
    gradient = prepared[0].weight.grad
    assert gradient[1].abs().max() == 0
    assert gradient[7].abs().max() > 0
    assert gradient[8].abs().max() == 0
    converted = ft.convert(prepared)
    assert isinstance(converted[0], QuantizedEmbedding)
    expected = prepared.eval()(ids).detach()
    assert converted(ids).equal(expected)
    assert expected.dtype == dtype
    assert ft.load_state_dict(nn.Sequential(table), converted.state_dict())(ids).equal(expected)
    assert converted(torch.zeros((0, 2), dtype=torch.int64)).shape == (0, 2, 64)
    with pytest.raises(IndexError):
        converted(torch.tensor([-1]))


def test_names_go_before_patterns_and_patterns_before_types() -> None:
    model = nn.ModuleDict({"a": nn.Sequential(nn.Linear(32, 16), nn.Linear(16, 16)), "b": nn.Linear(16, 4), "c": nn.Conv1d(2, 2, 2)})
    others: dict[Any, Any] = {nn.Linear: "static", "a": "int4", "a.1": W4A8, "c": "dynamic"}
    prepared = ft.prepare_qat(model, "weight-only", module_configs={**others, "a": INT4})
    report = ft.report_of(prepared)
    assert report.of("a.0").reason == "int4 weights in groups of 16, scales mse, inputs float"
    assert report.of("a.1").reason == "int4 weights in groups of 16, scales learned, inputs per-token"
    assert report.of("b").reason == "int8 weights, inputs static"
    # A name asks for its layer, of whatever type.
    assert report.of("c").reason == "int8 weights, inputs per-token"


def test_layers_of_ones_own_are_converted_by_their_configs() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(10, 32), nn.Linear(32, 16), nn.Linear(16, 16), nn.Linear(16, 8))
    configs = {nn.Embedding: ft.NF4WeightOnlyConfig(32), "1": W4A8, "2": ft.NF4WeightOnlyConfig(32)}
    prepared = ft.prepare_qat(model, "static", module_configs=configs)
    ids = torch.arange(10)
    qat_models.train(prepared, lambda: prepared(ids).pow(2).mean())
    converted = ft.convert(prepared)
    assert [layer.method for layer in converted] == ["nf4", "dynamic", "nf4", "static"]
    assert all(isinstance(layer, QuantizedLinear) for layer in converted[1:])
    for name, layer in qat_models.layers(prepared).items():
        assert converted.get_submodule(name).weight.detach().equal(weights_of(layer)), name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"module_configs": {"*.query": "int4", "encoder.layer.0": "dynamic"}}, "encoder.layer.0.attention.self.query: expected one config, found two: by"),
        ({"module_configs": {"*.head": "int4"}}, r"found '\*.head', which matches none"),
        ({"module_configs": {"head": "int4"}}, "modules: expected names of modules, found 'head'"),
        ({"module_configs": {nn.Conv2d: "dynamic"}}, "which matches none"),
        ({"module_configs": {"*.query": "int3"}}, "config: expected one of dynamic, static"),
        ({"scales": "best"}, "scales: expected one of absmax, mse, learned, found 'best'"),
        ({"config": {"method": "fp16"}}, "expected the method dynamic, static, weight-only or nf4, found `fp16`"),
        ({"config": {"method": "static", "weights": "int4", "static_inputs": {"a": {"scale": 1.0, "zero_point": 0}}}}, "weights: expected int8, or with"),
        ({"config": {"method": "weight-only", "weights": "int4", "layout": "gptq"}}, "layout: expected none, found `gptq`"),
        ({"config": {"method": "weight-only", "weights": "int4", "scales": "activation-weighted"}}, "which needs calibration texts"),
        ({"config": {"method": "weight-only", "group_size": 16}}, "expected int8 with a scale for each output"),
        ({"config": {"method": "nf4", "scales": "mse"}}, "scales: expected `absmax` of NF4 blocks"),
        ({"config": {"method": "nf4", "embeddings": "int8"}}, "embeddings: expected one that training has with `nf4`, found `int8`"),
        ({"config": {"method": "dynamic", "float_dtype": "fp16"}}, "found `float_dtype`"),
        ({"config": {"method": "dynamic", "modules": {"*.head": {"weights": "int4"}}}}, r"modules: expected names of linear layers, or globs, found '\*.head'"),
    ],
)
def test_what_cannot_be_meant_is_a_value_error(arguments: dict[str, Any], words: str) -> None:
    model = encoder_models.encoder("bert")
    with pytest.raises(ValueError, match=words):
        ft.prepare_qat(model, **{"config": INT4, **arguments})
    # Nothing of the model was changed where it is the one that was given.
    with pytest.raises(ValueError, match=words):
        ft.prepare_qat(model, **{"config": INT4, "inplace": True, **arguments})
    assert not qat_models.layers(model)


def test_files_that_are_no_recipes_are_errors_that_name_the_key(tmp_path: Path) -> None:
    model = encoder_models.encoder("bert")
    with pytest.raises(FewbitError, match="nothing.toml"):
        ft.prepare_qat(model, tmp_path / "nothing.toml")
    with pytest.raises(FewbitError, match="weihgts"):
        ft.prepare_qat(model, {"method": "dynamic", "weihgts": "int4"})


def test_what_training_does_otherwise_than_a_recipe_says_is_told() -> None:
    model = encoder_models.encoder("bert")
    with pytest.warns(UserWarning, match="gptq: training begins with the nearest codes"):
        ft.prepare_qat(model, {"method": "dynamic", "gptq": True})
    with pytest.warns(UserWarning, match="written as `int-quantized`"):
        ft.prepare_qat(model, {"method": "weight-only", "weights": "int4", "group_size": 16, "asymmetric": True})
