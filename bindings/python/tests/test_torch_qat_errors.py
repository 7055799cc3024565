"""What quantization-aware training refuses, and in which words."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import encoder_models  # noqa: E402
import qat_models  # noqa: E402
from torch import nn  # noqa: E402

import fewbit.torch as ft  # noqa: E402
from fewbit import FewbitError  # noqa: E402

torch.set_num_threads(1)


def prepared(config: Any = "dynamic") -> Any:
    torch.manual_seed(0)
    return ft.prepare_qat(nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4)), config)


@pytest.mark.parametrize("config", ["dynamic", "static", "weight-only", ft.Int4WeightOnlyConfig(group_size=8), "nf4"])
def test_a_loss_that_became_nan_is_an_error_that_names_the_layer(config: Any) -> None:
    model = prepared(config)
    x = torch.ones(2, 16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    (model.train()(x).sum() * float("nan")).backward()
    optimizer.step()
    for call in (lambda: model(x), lambda: ft.convert(model)):
        with pytest.raises(FewbitError, match="0, weight, element [0-9]+: expected a finite number, found NaN\n  hint: the loss was not finite"):
            call()


def test_a_learned_range_that_became_nan_is_an_error_that_names_the_layer() -> None:
    model = prepared(ft.Int8StaticActivationInt8WeightConfig(input_scales="learned", observed_steps=1)).train()
    x = torch.ones(2, 16)
    model(x)
    optimizer = torch.optim.SGD([model[2].input_fake_quant.scale], lr=0.1)
    (model(x).sum() * float("nan")).backward()
    optimizer.step()
    for call in (lambda: model(x), lambda: ft.convert(model)):
        with pytest.raises(FewbitError, match="2, inputs, scale: expected a normal number other than 0 .*, found nan and .*\n  hint: the loss was not finite"):
            call()


@pytest.mark.parametrize("config", ["dynamic", "static"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_inputs_that_are_not_finite_are_errors_and_no_ranges(config: str, value: float) -> None:
    model = prepared(config).train()
    model(torch.ones(2, 16))
    bad = torch.ones(2, 16)
    bad[1, 2] = value
    with pytest.raises(FewbitError, match="0, inputs, element 18: expected a finite number, found"):
        model(bad)
    if config == "static":
        assert model[0].input_fake_quant.max_val.item() == 1
    # What comes afterwards is not touched by it.
    assert model(torch.ones(2, 16)).isfinite().all()


def test_converting_before_a_step_is_an_error() -> None:
    model = prepared()
    model.eval()(torch.ones(2, 16))
    with pytest.raises(ValueError, match="expected a model that was trained after prepare_qat, found one that has run no step"):
        ft.convert(model)
    with pytest.raises(ValueError, match=r"Must call prepare\(\) first!"):
        ft.convert(nn.Linear(2, 2))


def test_static_layers_without_a_range_are_an_error_before_anything_is_changed() -> None:
    model = prepared("static").train()
    ft.disable_observer(model)
    model(torch.ones(2, 16)).sum().backward()
    with pytest.raises(ValueError, match="0: expected a range of inputs, found none"):
        ft.convert(model, inplace=True)
    ft.enable_observer(model)
    model(torch.ones(2, 16))
    ft.convert(model)


def test_a_layer_that_has_run_no_step_is_told() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(16, 8), nn.Linear(16, 8)

        def forward(self, x: Any) -> Any:
            return self.used(x)

    model = ft.prepare_qat(Branches())
    model.train()(torch.ones(1, 16))
    with pytest.warns(UserWarning, match="unused has run no step in training"):
        ft.convert(model)


def test_converting_while_fake_quantization_is_off_is_told() -> None:
    model = prepared()
    ft.disable_fake_quant(model)
    model.train()(torch.ones(1, 16))
    with pytest.warns(UserWarning, match="fake quantization of 2 layers was off, such as 0"):
        ft.convert(model)


def test_models_are_prepared_once() -> None:
    model = prepared()
    with pytest.raises(ValueError, match=r"expected a float model, found one that is prepared already \(0\)"):
        ft.prepare_qat(model)
    model.train()(torch.ones(1, 16))
    with pytest.raises(ValueError, match="expected a float model, found a quantized QuantizedLinear"):
        ft.prepare_qat(ft.convert(model))
    with pytest.raises(ValueError, match="found one with observers of `prepare`"):
        ft.prepare_qat(ft.prepare(nn.Sequential(nn.Linear(4, 4))))
    with pytest.raises(ValueError, match="expected a model of prepare_qat, found one without fake quantization"):
        ft.freeze(nn.Linear(4, 4))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"config": "int3"}, "config: expected one of dynamic, static, weight-only, w4a8, int4, nf4, found 'int3'"),
        ({"modules": {"head"}}, "modules: expected names of modules, found 'head'"),
        ({"skip": ["*.query"]}, r"skip: expected patterns of names of modules, found '\*.query', which matches none"),
        ({"modules": {nn.Conv2d}}, "expected layers to quantize, found none in Sequential"),
    ],
)
def test_arguments_that_mean_nothing_are_value_errors(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ft.prepare_qat(nn.Sequential(nn.Linear(4, 4)), **arguments)


def test_other_objects_are_type_errors() -> None:
    with pytest.raises(TypeError, match="config: expected a config of fewbit.torch or one of dynamic"):
        ft.prepare_qat(nn.Linear(4, 4), 8)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="config: expected a QATConfig of fewbit.torch, found str"):
        ft.quantize_(nn.Linear(4, 4), "dynamic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="QATSchedule: expected 0 <= start <= freeze, found start=5, freeze=2"):
        ft.QATSchedule(prepared(), 5, 2)


def test_layers_that_cannot_be_done_stay_float_with_a_warning() -> None:
    model = nn.Sequential(nn.Linear(20, 8), nn.Linear(8, 16))
    with pytest.warns(UserWarning, match=r"0 \(Linear\) stays float: groups of 8 do not divide its 20 inputs"):
        found = ft.prepare_qat(model, ft.Int4WeightOnlyConfig(group_size=8))
    assert [entry.action for entry in ft.report_of(found)] == ["float", "fake-quantized"]
    with pytest.warns(UserWarning, match="convolutions are int8"), pytest.raises(ValueError, match="expected layers to quantize, found none"):
        ft.prepare_qat(nn.Sequential(nn.Conv1d(2, 2, 2)), "nf4", {nn.Conv1d})
    bad = nn.Linear(16, 8)
    nn.init.constant_(bad.weight, float("inf"))
    half = nn.Sequential(nn.Linear(16, 8), bad)
    with pytest.raises(FewbitError, match="expected a finite number, found inf"):
        ft.prepare_qat(half, ft.Int4WeightOnlyConfig(group_size=8), inplace=True)
    assert [type(module) for module in half] == [nn.Linear, nn.Linear]
    assert list(half.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_layers_that_are_skipped_stay_float_in_encoders_and_files() -> None:
    model = ft.prepare_qat(encoder_models.encoder("bert"), "dynamic", skip=["encoder.layer.0.attention", "*.intermediate.dense"])
    assert len(qat_models.layers(model)) == 12 - 4 - 2
    batch = encoder_models.batch()
    qat_models.train(model, lambda: model(**batch).last_hidden_state.pow(2).mean())
    converted = ft.convert(model)
    weights = converted.dequantize().state_dict()
    for name in ("encoder.layer.0.attention.self.query", "encoder.layer.1.intermediate.dense"):
        assert weights[f"{name}.weight"].equal(model.get_submodule(name).weight)
