"""The script: the names, defaults, keys and errors that users know."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from encoder_models import TwoHeads, batch, encoder  # noqa: E402

from fewbit.torch.manager import (  # noqa: E402
    ModuleQuantizationManager,
    apply_int4_quantization,
    benchmark_inference_speed,
    profile_memory,
    quantize_module,
)
from fewbit.torch.native_encoder import NativeEncoder  # noqa: E402
from fewbit.torch.qat import Int8DynamicActivationInt4WeightConfig  # noqa: E402

torch.set_num_threads(1)

BATCHES = [batch(seed=seed) for seed in range(3)]


def model() -> TwoHeads:
    return TwoHeads(encoder("electra"))


def test_names_and_defaults_are_those_of_the_script() -> None:
    def defaults(function: Any) -> dict[str, Any]:
        parameters = inspect.signature(function).parameters.values()
        return {parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty}

    assert defaults(ModuleQuantizationManager.__init__) == {"method": "dynamic", "dtype": "int8"}
    assert defaults(ModuleQuantizationManager.prepare_static_quantization) == {"backend": "fbgemm"}
    assert defaults(ModuleQuantizationManager.calibrate) == {"device": "cpu", "num_batches": 100, "use_student_input_ids": False}
    speed = defaults(benchmark_inference_speed)
    assert speed == {"device": "cpu", "num_iterations": 100, "warmup": 10, "use_student_input_ids": False}
    order = ["model", "method", "config", "calibration_loader", "device", "use_student_input_ids"]
    assert list(inspect.signature(quantize_module).parameters) == order
    assert list(inspect.signature(apply_int4_quantization).parameters) == ["model", "device"]


def test_dynamic(capsys: pytest.CaptureFixture[str]) -> None:
    original = model()
    before = {name: tensor.clone() for name, tensor in original.state_dict().items()}
    manager = ModuleQuantizationManager(original, method="dynamic", dtype="int8")
    quantized: Any = manager.apply_dynamic_quantization()
    assert isinstance(quantized.encoder, NativeEncoder)
    assert manager.quantized_model is quantized
    sizes = manager.compare_sizes()
    assert list(sizes) == ["original_size_mb", "quantized_size_mb", "compression_ratio", "size_reduction_pct"]
    assert sizes["compression_ratio"] == pytest.approx(sizes["original_size_mb"] / sizes["quantized_size_mb"])
    assert sizes["size_reduction_pct"] == pytest.approx((1 - sizes["quantized_size_mb"] / sizes["original_size_mb"]) * 100)
    assert sizes["compression_ratio"] > 1.5
    assert "Compression ratio" in capsys.readouterr().out
    assert all(torch.equal(tensor, before[name]) for name, tensor in original.state_dict().items())
    assert original.training


def test_sizes_are_those_of_the_tensors() -> None:
    """Of a float model what its parameters and buffers take; the number of parameters stays."""
    original = model()
    manager = ModuleQuantizationManager(original)
    size = manager.get_model_size()
    expected = sum(parameter.numel() * 4 for parameter in original.parameters()) / 1024**2
    assert size["param_size_mb"] == pytest.approx(expected)
    assert size["total_size_mb"] == pytest.approx(size["param_size_mb"] + size["buffer_size_mb"])
    assert size["num_parameters"] == sum(parameter.numel() for parameter in original.parameters())
    manager.apply_int4_quantization()
    assert manager.get_model_size()["num_parameters"] == size["num_parameters"]
    assert manager.get_model_size()["total_size_mb"] < size["total_size_mb"]
    assert manager.get_model_size(original) == size


def test_sizes_before_quantizing_are_a_value_error() -> None:
    with pytest.raises(ValueError, match="Must quantize"):
        ModuleQuantizationManager(model()).compare_sizes()


def test_static() -> None:
    original = model()
    manager = ModuleQuantizationManager(original, method="static")
    manager.prepare_static_quantization(backend="fbgemm")
    manager.calibrate(BATCHES, device="cpu", num_batches=2)
    quantized: Any = manager.convert_static_quantization()
    assert isinstance(quantized.encoder, NativeEncoder)
    assert quantized.encoder.method == "static"
    assert not isinstance(original.encoder, NativeEncoder)


def test_steps_in_the_wrong_order_have_the_words_of_the_script() -> None:
    manager = ModuleQuantizationManager(model())
    with pytest.raises(ValueError, match=r"^Must call prepare_static_quantization\(\) first!$"):
        manager.calibrate(BATCHES)
    with pytest.raises(ValueError, match=r"^Must call prepare_static_quantization\(\) first!$"):
        manager.convert_static_quantization()
    manager.prepare_static_quantization()
    with pytest.raises(ValueError, match=r"^Must call calibrate\(\) first!$"):
        manager.convert_static_quantization()
    manager.apply_dynamic_quantization()
    with pytest.raises(ValueError, match=r"^Must call prepare_static_quantization\(\) first!$"):
        manager.calibrate(BATCHES)


def test_student_ids_stand_for_ids_where_they_are_asked_for() -> None:
    given = [
        {"input_ids": torch.full((1, 2), 10**6), "student_input_ids": one["input_ids"], "student_attention_mask": one["attention_mask"]}
        for one in BATCHES
    ]
    manager = ModuleQuantizationManager(model())
    manager.prepare_static_quantization()
    manager.calibrate(given, use_student_input_ids=True)
    quantized = manager.convert_static_quantization()
    benchmark_inference_speed(quantized, given, num_iterations=2, warmup=0, use_student_input_ids=True)
    with pytest.raises(Exception):  # noqa: B017, PT011
        benchmark_inference_speed(quantized, given, num_iterations=2, warmup=0)


@pytest.mark.parametrize(("dtype", "method"), [("int8", "fp16"), ("fp16", "fp16"), ("bf16", "bf16")])
def test_half_precision(dtype: str, method: str) -> None:
    manager = ModuleQuantizationManager(model(), method="fp16", dtype=dtype)
    quantized: Any = manager.apply_fp16_quantization("cpu")
    assert quantized.encoder.method == method
    assert quantized(**BATCHES[0])["topic"].dtype == torch.float32


def test_int4_is_nf4_with_double_quantization() -> None:
    original = model()
    quantized: Any = apply_int4_quantization(original, "cpu")
    assert quantized.encoder.method == "nf4"
    assert any("nested_absmax" in name for name in quantized.state_dict())
    assert not isinstance(original.encoder, NativeEncoder)
    with pytest.raises(ValueError, match="cpu"):
        apply_int4_quantization(original, "cuda")


def test_speed_and_memory_have_the_keys_of_the_script() -> None:
    quantized = ModuleQuantizationManager(model()).apply_dynamic_quantization()
    speed = benchmark_inference_speed(quantized, BATCHES, "cpu", num_iterations=6, warmup=1)
    assert speed["mean_latency_ms"] > 0
    assert speed["p50_latency_ms"] <= speed["p95_latency_ms"] <= speed["p99_latency_ms"]
    # Three samples a batch.
    assert speed["throughput_samples_per_sec"] == pytest.approx(3 / speed["mean_latency_ms"] * 1000)
    memory = profile_memory(quantized, BATCHES, "cpu")
    assert memory["peak_memory_mb"] > memory["model_size_mb"] > 0
    for function in (benchmark_inference_speed, profile_memory):
        with pytest.raises(ValueError, match="at least one batch"):
            function(quantized, [])
        with pytest.raises(ValueError, match="num_iterations"):
            function(quantized, BATCHES, num_iterations=0)


@pytest.mark.parametrize("method", ["dynamic", "static", "fp16", "int4"])
def test_quantize_model_knows_every_method(method: str) -> None:
    config = SimpleNamespace(quant_dtype="int8", quant_calibration_batches=2)
    original = model()
    quantized: Any = quantize_module(original, method, config, calibration_loader=BATCHES, device="cpu")
    assert isinstance(quantized.encoder, NativeEncoder)
    assert not isinstance(original.encoder, NativeEncoder)
    original.eval()
    expected = original(**BATCHES[0])["topic"]
    assert (quantized(**BATCHES[0])["topic"] - expected).abs().max() < 0.5 * expected.abs().max()


def test_quantize_model_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="Unknown quantization method: ternary"):
        quantize_module(model(), "ternary", None)
    with pytest.raises(ValueError, match="calibration_loader"):
        quantize_module(model(), "static", None)
    not_a_model: Any = "a path"
    with pytest.raises(TypeError, match="nn.Module"):
        ModuleQuantizationManager(not_a_model)


def test_a_model_without_an_encoder_and_without_parameters() -> None:
    empty = ModuleQuantizationManager(torch.nn.ReLU())
    empty.apply_dynamic_quantization()
    assert empty.get_model_size()["total_size_mb"] == 0
    with pytest.raises(ValueError, match="parameters"):
        empty.compare_sizes()


def test_unknown_methods_dtypes_and_numbers_are_value_errors() -> None:
    with pytest.raises(ValueError, match="Unknown quantization method: foo"):
        ModuleQuantizationManager(model(), method="foo")
    with pytest.raises(ValueError, match="dtype: expected one of"):
        ModuleQuantizationManager(model(), dtype="int9")
    manager = ModuleQuantizationManager(model())
    manager.prepare_static_quantization()
    with pytest.raises(ValueError, match="num_batches: expected at least 1, found 0"):
        manager.calibrate([], "cpu", num_batches=0)


def test_qat_is_trained_between_two_calls() -> None:
    original = model()
    before = {name: tensor.clone() for name, tensor in original.state_dict().items()}
    manager = ModuleQuantizationManager(original, method="qat")
    with pytest.raises(ValueError, match=r"Must call prepare_qat\(\) first!"):
        manager.convert_qat()
    prepared = manager.prepare_qat(Int8DynamicActivationInt4WeightConfig(group_size=32), skip=["topic", "tone.*"])
    assert manager.quantized_model is prepared and prepared is not original
    optimizer = torch.optim.AdamW(prepared.parameters(), lr=1e-4)
    prepared.train()
    for ids in BATCHES:
        outputs = prepared(**ids)
        loss = outputs["topic"].square().mean() + outputs["tone"].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    quantized: Any = manager.convert_qat()
    assert manager.quantized_model is quantized and isinstance(quantized.encoder, NativeEncoder)
    assert manager.compare_sizes()["compression_ratio"] > 1.5
    with pytest.raises(ValueError, match=r"Must call prepare_qat\(\) first!"):
        manager.convert_qat()
    assert all(torch.equal(tensor, before[name]) for name, tensor in original.state_dict().items())


def test_qat_in_one_call_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="method qat: expected a loop that trains the model(.|\n)*prepare_qat(.|\n)*data=texts"):
        quantize_module(model(), "qat")
