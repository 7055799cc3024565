"""What was trained is what is written: codes and scales bit for bit, and outputs up to the order of sums."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import encoder_models  # noqa: E402
import qat_models  # noqa: E402
from qat_models import CONFIGS  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from torch import nn  # noqa: E402

import fewbit.torch as ft  # noqa: E402
from fewbit import _fewbit  # noqa: E402
from fewbit.torch.layers import QuantizedConvolution, QuantizedEmbedding, QuantizedLinear  # noqa: E402
from fewbit.torch.native_encoder import NativeEncoder  # noqa: E402

torch.set_num_threads(1)

#: The unit of rounding of float32.
UNIT = 2.0**-24


def gamma(operations: int) -> float:
    """The relative error of so many roundings, one after the other (Higham 2002, 3.1)."""
    return operations * UNIT / (1 - operations * UNIT)


def trained_encoder(family: str, config: Any, **options: Any) -> Any:
    prepared = ft.prepare_qat(encoder_models.encoder(family), config, **options)
    batch = encoder_models.batch()
    qat_models.train(prepared, lambda: prepared(**batch).last_hidden_state.pow(2).mean())
    return prepared


@pytest.mark.parametrize("scheme", CONFIGS)
def test_the_file_has_the_codes_of_the_last_forward_pass(scheme: str, tmp_path: Path) -> None:
    prepared = trained_encoder("bert", CONFIGS[scheme])
    batch = encoder_models.batch(seed=5)
    with qat_models.used_weights(prepared) as used:
        prepared(**batch)
    converted = ft.convert(prepared)
    assert isinstance(converted, NativeEncoder)
    converted.save_pretrained(tmp_path)
    written = {name: torch.from_numpy(weight) for name, weight in _fewbit.dequantized_weights(str(tmp_path))}
    assert written.keys() == used.keys()
    assert len(used) == 12
    for name, weight in used.items():
        assert written[name].equal(weight), name
    # In evaluation mode it uses the same, and so does the model that its parts were converted of.
    with qat_models.used_weights(prepared) as again:
        prepared.eval()(**batch)
    assert all(again[name].equal(weight) for name, weight in used.items())


@pytest.mark.parametrize("scheme", ["dynamic", "dynamic, learned", "static", "static, learned"])
def test_int8_codes_and_scales_lie_in_the_file_as_they_are(scheme: str, tmp_path: Path) -> None:
    prepared = trained_encoder("bert", CONFIGS[scheme])
    ft.convert(prepared).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    for name, layer in qat_models.layers(prepared).items():
        stored = layer.stored()
        assert tensors[f"{name}.weight"].equal(stored.codes)
        assert tensors[f"{name}.weight_scale"].reshape(-1).equal(stored.scales)
        if "static" in scheme:
            scale, zero_point = layer.input_fake_quant.parameters_of_codes()
            assert tensors[f"{name}.input_scale"].item() == scale
            assert tensors[f"{name}.input_zero_point"].item() == zero_point


def test_learned_scales_have_moved_and_are_written() -> None:
    float_model = encoder_models.encoder("bert")
    prepared = ft.prepare_qat(float_model, CONFIGS["W4A8, learned"])
    before = {name: layer.weight_fake_quant.scale.detach().clone() for name, layer in qat_models.layers(prepared).items()}
    batch = encoder_models.batch()
    qat_models.train(prepared, lambda: prepared(**batch).last_hidden_state.pow(2).mean())
    for name, layer in qat_models.layers(prepared).items():
        assert not layer.weight_fake_quant.scale.equal(before[name])
        assert layer.stored().scales.equal(layer.weight_fake_quant.scale.detach())


@pytest.mark.parametrize("family", encoder_models.CONFIGS)
@pytest.mark.parametrize("scheme", ["dynamic", "static", "W4A8, learned", "nf4"])
def test_every_family_is_swapped_whole_and_computes_what_it_was_trained_with(family: str, scheme: str) -> None:
    original = encoder_models.encoder(family)
    prepared = trained_encoder(family, CONFIGS[scheme])
    converted = ft.convert(prepared)
    assert isinstance(converted, NativeEncoder), ft.report_of(converted)
    batch = encoder_models.batch()
    seen = batch["attention_mask"].bool()
    prepared.eval()
    with torch.no_grad():
        trained = prepared(**batch).last_hidden_state[seen]
        native = converted(**batch).last_hidden_state[seen]
        ft.disable_fake_quant(prepared)
        float_states = prepared(**batch).last_hidden_state[seen]
        ft.enable_fake_quant(prepared)
    # The order of sums may move an input across a tie, and then one code is another: less than quantizing every input and weight, which fake quantization did.
    assert (native - trained).norm() < 0.5 * (trained - float_states).norm()
    assert [name for name, _ in original.named_parameters()] == [name for name, _ in prepared.named_parameters() if "fake_quant" not in name]


def bound_of_linear(fake: Any, x: Any, groups: int = 1) -> Any:
    """How far apart float sums in any order and sums of integers may be, for each output.

    Of K products a float sum has at most K + 3 roundings a term, with those of both factors and the bias. The executor sums integers exactly, group by group, and puts the
    zero point right afterwards: 2 G + 8 roundings of sums of codes as they are.
    """
    weight = fake._quantized_weight().double().reshape(fake.out_features, -1)
    values = fake._quantized_inputs(x).double()
    bias = 0 if fake.bias is None else fake.bias.double().abs()
    sums = values.abs() @ weight.abs().t() + bias
    # Codes and zero points apart: both are at most the range of the row.
    widths = (values.amax(-1, keepdim=True).clamp(min=0) - values.amin(-1, keepdim=True).clamp(max=0)) if groups else 0
    apart = sums + 2 * widths * weight.abs().sum(1)
    return gamma(x.shape[-1] + 3) * sums + gamma(2 * groups + 8) * apart


@pytest.mark.parametrize("scheme", ["dynamic", "dynamic, learned", "static", "static, learned", "W4A8, mse", "W4A8, absmax", "W4A8, asymmetric", "W4A8, learned"])
def test_layers_differ_by_the_order_of_sums_alone(scheme: str) -> None:
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(96, 40), nn.Tanh(), nn.Linear(40, 16, bias=False), nn.Linear(16, 5))
    config = ft.Int8DynamicActivationInt4WeightConfig(group_size=8, scales=CONFIGS[scheme].scales, asymmetric="asym" in scheme) if "W4" in scheme else CONFIGS[scheme]
    prepared = ft.prepare_qat(model, config)
    x = torch.randn(50, 96) * torch.logspace(-2, 2, 50).unsqueeze(1)
    qat_models.train(prepared, lambda: (prepared(x) - 1).pow(2).mean())
    prepared.eval()
    converted = ft.convert(prepared)
    for name in ("0", "2", "3"):
        fake, native = prepared.get_submodule(name), converted.get_submodule(name)
        assert isinstance(native, QuantizedLinear)
        inputs = torch.randn(33, fake.in_features) * 3
        with torch.no_grad():
            bound = bound_of_linear(fake, inputs, groups=fake.in_features // 8)
            assert ((fake(inputs).double() - native(inputs).double()).abs() <= bound).all()
        assert native.weight.detach().equal(fake._quantized_weight().detach())


@pytest.mark.parametrize("arithmetic", ["floats", "integers"])
@pytest.mark.parametrize("scheme", ["weight-only", "W4A16", "nf4"])
def test_layers_with_float_inputs_differ_by_sums_or_by_twelve_bits(scheme: str, arithmetic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWBIT_WEIGHT_ONLY", arithmetic)
    torch.manual_seed(4)
    config = ft.Int4WeightOnlyConfig(group_size=32) if scheme == "W4A16" else CONFIGS[scheme]
    prepared = ft.prepare_qat(nn.Sequential(nn.Linear(64, 24)), config)
    x = torch.randn(20, 64)
    qat_models.train(prepared, lambda: prepared(x).pow(2).mean())
    prepared.eval()
    converted = ft.convert(prepared)
    with torch.no_grad():
        fake, native = prepared(x).double(), converted(x).double()
        bound = 2 * bound_of_linear(prepared[0], x, groups=2)
        if arithmetic == "integers":
            # Half a step of 12 bits for each input, and the rounding of the zero point.
            step = (x.amax(1, keepdim=True).clamp(min=0) - x.amin(1, keepdim=True).clamp(max=0)).double() / 4095
            bound = bound + 0.5 * (1 + 2.0**-10) * step * prepared[0]._quantized_weight().double().abs().sum(1)
    assert ((fake - native).abs() <= bound).all()


@pytest.mark.parametrize("scheme", ["dynamic", "dynamic, learned", "static", "weight-only"])
@pytest.mark.parametrize(
    ("kind", "settings", "shape"),
    [
        (nn.Conv1d, {"in_channels": 6, "out_channels": 8, "kernel_size": 3, "padding": "same"}, (4, 6, 11)),
        (nn.Conv1d, {"in_channels": 6, "out_channels": 8, "kernel_size": 4, "stride": 2, "groups": 2, "padding": 1, "bias": False}, (4, 6, 12)),
        (nn.Conv2d, {"in_channels": 4, "out_channels": 6, "kernel_size": (3, 2), "stride": (2, 1), "dilation": (1, 2), "padding": (1, 2)}, (3, 4, 9, 8)),
        (nn.Conv2d, {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "padding": 1, "padding_mode": "reflect", "groups": 2}, (3, 4, 7, 7)),
    ],
)
def test_convolutions_compute_what_they_were_trained_with(scheme: str, kind: Any, settings: dict[str, Any], shape: tuple[int, ...]) -> None:
    torch.manual_seed(2)
    model = nn.Sequential(kind(**settings), nn.ReLU())
    prepared = ft.prepare_qat(model, CONFIGS[scheme], {kind})
    x = torch.randn(shape)
    qat_models.train(prepared, lambda: prepared(x).pow(2).mean())
    prepared.eval()
    converted = ft.convert(prepared)
    layer = converted[0]
    assert isinstance(layer, QuantizedConvolution)
    assert layer.weight.detach().equal(prepared[0]._quantized_weight().detach())
    with torch.no_grad():
        fake, native = prepared[0](x).double(), layer(x).double()
        weight = layer.weight.detach().double().abs()
        products = weight[0].numel()
        # Sums of products in either order, and the zero point put right, which is at most the range of all inputs.
        most = 3 * x.abs().max().double() * weight.flatten(1).sum(1) + (0 if layer.bias is None else layer.bias.detach().double().abs())
        bound = (gamma(products + 3) + gamma(10)) * most
        if scheme == "weight-only":
            bound = bound + 0.5 * (1 + 2.0**-10) * (2 * x.abs().max().double() / 4095) * weight.flatten(1).sum(1)
        bound = bound.reshape(-1, *([1] * (x.dim() - 2)))
    assert ((fake - native).abs() <= bound).all()
    # A convolution without images, too.
    with torch.no_grad():
        assert prepared[0](x[0]).shape == layer(x[0]).shape


def test_embedding_tables_compute_the_same_bits() -> None:
    torch.manual_seed(3)
    table = nn.Embedding(20, 12, padding_idx=1)
    prepared = ft.prepare_qat(nn.Sequential(table), "dynamic", {nn.Embedding})
    ids = torch.tensor([[1, 2, 5], [7, 19, 2]])
    qat_models.train(prepared, lambda: (prepared(ids) - 1).pow(2).mean())
    gradient = prepared[0].weight.grad
    assert gradient is not None
    assert gradient[1].abs().max() == 0
    assert gradient[7].abs().max() > 0
    converted = ft.convert(prepared)
    assert isinstance(converted[0], QuantizedEmbedding)
    prepared.eval()
    assert converted(ids).equal(prepared(ids).detach())


def test_the_table_of_an_encoder_is_trained_and_written(tmp_path: Path) -> None:
    prepared = trained_encoder("bert", CONFIGS["dynamic"], modules={nn.Linear, nn.Embedding})
    report = ft.report_of(prepared)
    assert report.of("embeddings.word_embeddings").action == "fake-quantized"
    assert report.of("embeddings.position_embeddings").action == "float"
    converted = ft.convert(prepared)
    assert isinstance(converted, NativeEncoder)
    converted.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    stored = prepared.embeddings.word_embeddings.stored()
    assert tensors["embeddings.word_embeddings.weight"].equal(stored.codes)


def test_a_model_of_ones_own_keeps_its_forward_and_its_heads_are_layers() -> None:
    model = encoder_models.TwoHeads(encoder_models.encoder("bert"))
    prepared = ft.prepare_qat(model, "dynamic")
    batch = encoder_models.batch()
    qat_models.train(prepared, lambda: prepared(**batch)["topic"].pow(2).mean() + prepared(**batch)["tone"].pow(2).mean())
    converted = ft.convert(prepared)
    assert isinstance(converted.encoder, NativeEncoder)
    assert isinstance(converted.topic, QuantizedLinear)
    report = ft.report_of(converted)
    assert [(entry.name, entry.action) for entry in report] == [
        ("encoder", "swapped"),
        ("topic", "quantized"),
        ("tone.0", "quantized"),
        ("tone.2", "quantized"),
    ]
    # The prepared model is there as before.
    prepared(**batch)["topic"].sum().backward()


@pytest.mark.parametrize("scheme", ["dynamic", "static", "weight-only", "W4A8, mse", "int4, learned, asymmetric", "nf4, double"])
def test_a_classifier_is_written_as_a_directory_that_transformers_loads(scheme: str, tmp_path: Path) -> None:
    config = encoder_models.CONFIGS["bert"]()
    if "nf4" in scheme:
        # bitsandbytes has neither values nor products of rows that are shorter than a block.
        config.hidden_size, config.intermediate_size = 64, 128
    torch.manual_seed(1)
    model = transformers.BertForSequenceClassification(config)
    prepared = ft.prepare_qat(model, CONFIGS[scheme])
    assert ft.report_of(prepared).of("classifier").action == "float"
    batch = {**encoder_models.batch(), "labels": torch.tensor([0, 1, 0])}
    qat_models.train(prepared, lambda: prepared(**batch).loss)
    converted = ft.convert(prepared)
    converted.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["quantization_config"]["quant_method"] == ("bitsandbytes" if "nf4" in scheme else "compressed-tensors")
    loaded, info = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    del batch["labels"]
    prepared.eval()
    with torch.no_grad(), qat_models.used_weights(prepared) as used:
        expected = prepared(**batch).logits
        if "nf4" in scheme:
            from bitsandbytes.functional import dequantize_4bit

            for name, weight in used.items():
                stored = loaded.get_submodule(name).weight
                assert dequantize_4bit(stored.data, stored.quant_state).float().equal(weight), name
        found, float_logits = loaded.eval()(**batch).logits, model.eval()(**batch).logits
    # transformers divides by scales where fewbit multiplies by reciprocals: a code may be another.
    assert (expected - found).norm() < 0.5 * (expected - float_logits).norm()


def test_converting_in_place_exchanges_the_layers_of_the_model() -> None:
    model = nn.Sequential(nn.Linear(16, 8), nn.Linear(8, 4))
    ft.quantize_(model, ft.QATConfig(ft.Int8DynamicActivationInt8WeightConfig(), step="prepare"), lambda module, name: name != "1")
    assert ft.report_of(model).of("1").reason == "filter_fn says so"
    qat_models.train(model, lambda: model(torch.ones(2, 16)).sum())
    ft.quantize_(model, ft.QATConfig(step="convert"))
    assert isinstance(model[0], QuantizedLinear)
    assert type(model[1]) is nn.Linear
    single = ft.prepare_qat(nn.Linear(16, 8))
    qat_models.train(single, lambda: single(torch.ones(2, 16)).sum())
    with pytest.raises(ValueError, match="in whose place another comes"):
        ft.quantize_(single, ft.QATConfig(step="convert"))
    assert isinstance(ft.convert(single), QuantizedLinear)


def test_int4_layers_are_saved_copied_and_loaded() -> None:
    model = nn.Sequential(nn.Linear(33, 8), nn.ReLU(), nn.Linear(8, 3))
    config = ft.Int4WeightOnlyConfig(group_size=None, asymmetric=True, scales="learned")
    prepared = ft.prepare_qat(model, config)
    x = torch.randn(4, 33)
    qat_models.train(prepared, lambda: prepared(x).pow(2).mean())
    converted = ft.convert(prepared)
    expected = converted(x)
    loaded = ft.load_state_dict(model, converted.state_dict())
    assert loaded(x).equal(expected)
    assert sum(parameter.numel() for parameter in converted.parameters()) == sum(parameter.numel() for parameter in model.parameters())
