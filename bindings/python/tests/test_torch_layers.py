"""Single layers of torch: what they compute."""

from __future__ import annotations

import copy
import threading

import integer_arithmetic as reference
import pytest
import torch
from torch import nn
from torch.nn import functional

import fewbit
from fewbit import FewbitError
from fewbit.torch.layers import QuantizedEmbedding, Unsupported, convert_layer

torch.set_num_threads(1)

METHODS = ["dynamic", "weight-only", "fp16", "bf16", "nf4", "fp4"]


def linear(inside: int = 48, out: int = 40, *, bias: bool = True, seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(inside, out, bias=bias)


def converted(layer: nn.Module, method: str) -> nn.Module:
    static = {"input_scale": 0.03, "input_zero_point": 3} if method == "static" else {}
    return convert_layer(layer, method, **static)


@pytest.mark.parametrize("rows", [1, 7, 300])
@pytest.mark.parametrize("bias", [True, False])
def test_dynamic_layer_has_the_bits_of_integer_arithmetic(rows: int, bias: bool) -> None:
    layer, x = linear(bias=bias), torch.randn(rows, 48) * 3
    expected = reference.dynamic_linear(x, layer.weight.detach(), None if layer.bias is None else layer.bias.detach())
    assert torch.equal(convert_layer(layer, "dynamic")(x), expected)


def test_weight_only_layer_has_the_bits_of_twelve_bit_inputs() -> None:
    layer, x = linear(), torch.randn(20, 48)
    expected = reference.dynamic_linear(x, layer.weight.detach(), layer.bias.detach(), largest=4095)
    assert torch.equal(convert_layer(layer, "weight-only")(x), expected)


def test_static_layer_has_the_bits_of_integer_arithmetic_and_clamps() -> None:
    layer, x = linear(), torch.randn(20, 48) * 4
    expected = reference.static_linear(x, layer.weight.detach(), layer.bias.detach(), 0.03, 3)
    assert torch.equal(converted(layer, "static")(x), expected)


@pytest.mark.parametrize("method", ["fp16", "bf16", "nf4", "fp4"])
def test_layers_with_float_inputs_multiply_with_the_weight_that_they_show(method: str) -> None:
    layer, x = linear(), torch.randn(20, 48)
    quantized = convert_layer(layer, method)
    exact = x.double() @ quantized.weight.detach().double().t() + layer.bias.double()
    # One rounding for each of the 48 terms and the bias: at most 49 half units of the sum of magnitudes.
    bound = 49 * 2.0**-24 * (x.double().abs() @ quantized.weight.detach().double().abs().t() + layer.bias.double().abs())
    assert bool(((quantized(x).double() - exact).abs() <= bound).all())


@pytest.mark.parametrize("method", [*METHODS, "static"])
@pytest.mark.parametrize("shape", [(48,), (3, 48), (2, 3, 48), (2, 2, 3, 48), (0, 48), (2, 0, 48)])
def test_inputs_of_one_to_four_axes_give_the_shapes_of_torch(method: str, shape: tuple[int, ...]) -> None:
    """(pitfalls 14, 15)"""
    layer = linear()
    assert converted(layer, method)(torch.zeros(shape)).shape == layer(torch.zeros(shape)).shape


@pytest.mark.parametrize("method", METHODS)
def test_layers_without_inputs_or_outputs_give_what_torch_gives(method: str) -> None:
    """(pitfall 14)"""
    for inside, out in [(10, 0), (0, 3)]:
        layer, x = nn.Linear(inside, out), torch.ones(4, inside)
        assert torch.equal(convert_layer(layer, method)(x), layer(x))
    with pytest.raises(fewbit.FewbitError, match=r"expected inputs of shape \(\.\.\., 10\), found \(4, 9\)"):
        convert_layer(nn.Linear(10, 2), method)(torch.ones(4, 9))


@pytest.mark.parametrize("method", [*METHODS, "static"])
def test_strided_inputs_have_the_bits_of_contiguous_ones(method: str) -> None:
    """(pitfall 16)"""
    quantized, x = converted(linear(), method), torch.randn(48, 6, 2)
    for view in (x[:, :, 0].t(), x.permute(2, 1, 0), x[::1, ::2, 1].t(), torch.randn(1, 48).expand(5, 48)):
        assert not view.is_contiguous()
        assert torch.equal(quantized(view), quantized(view.contiguous()))


@pytest.mark.parametrize("method", [*METHODS, "static"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_keep_their_dtype(method: str, dtype: torch.dtype) -> None:
    """(pitfall 17)"""
    quantized, x = converted(linear(), method), torch.randn(5, 48).to(dtype)
    y = quantized(x)
    assert y.dtype == dtype
    assert torch.equal(y, quantized(x.float()).to(dtype))


def test_models_in_half_precision_keep_their_dtype() -> None:
    """(pitfall 17)"""
    layer = linear().to(torch.bfloat16)
    quantized = convert_layer(layer, "dynamic")
    assert quantized.weight.dtype == quantized.bias.dtype == torch.bfloat16
    x = torch.randn(5, 48, dtype=torch.bfloat16)
    assert torch.equal(quantized(x), reference.dynamic_linear(x.float(), layer.weight.float(), layer.bias.float()).to(torch.bfloat16))


@pytest.mark.parametrize("method", ["dynamic", "fp16"])
def test_autocast_gives_the_dtype_of_a_float_layer(method: str) -> None:
    """(pitfall 18)"""
    layer = linear()
    quantized = convert_layer(layer, method)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype=dtype), torch.no_grad():
            for x in (torch.randn(2, 48), torch.randn(2, 48).to(dtype)):
                assert quantized(x).dtype == layer(x).dtype == dtype
    with torch.autocast("cpu", enabled=False):
        assert quantized(torch.randn(2, 48)).dtype == torch.float32


def test_weights_are_float_tensors_that_can_be_read_and_not_changed() -> None:
    """(pitfalls 3, 4)"""
    layer = linear()
    quantized = convert_layer(layer, "dynamic")
    codes, scales = reference.weight_codes(layer.weight.detach())
    assert isinstance(quantized.weight, torch.Tensor) and isinstance(quantized.weight, nn.Parameter)
    assert quantized.weight.dtype == torch.float32 and quantized.weight.device.type == "cpu"
    assert torch.equal(quantized.weight.t(), (codes * scales.unsqueeze(1)).t())
    assert torch.equal(quantized.bias + 0, layer.bias)
    assert (quantized.in_features, quantized.out_features) == (48, 40)
    assert convert_layer(linear(bias=False), "dynamic").bias is None
    for name in ("weight", "bias"):
        with pytest.raises(AttributeError, match="set it in the float model"):
            setattr(quantized, name, nn.Parameter(torch.zeros(1)))
        with pytest.raises(fewbit.FewbitError, match="change the float model and quantize it again"):
            nn.init.zeros_(getattr(quantized, name))
        with pytest.raises(fewbit.FewbitError, match="change the float model and quantize it again"):
            getattr(quantized, name).data.add_(1)
    assert torch.equal(torch.zeros(40, 48).add_(quantized.weight), quantized.weight + 0)


def test_inputs_that_are_not_numbers_or_not_here_are_errors() -> None:
    quantized = convert_layer(linear(), "dynamic")
    for value in (float("nan"), float("inf")):
        x = torch.zeros(300, 48)
        x[201, 5] = value
        with pytest.raises(fewbit.FewbitError, match="201"):
            quantized(x)
    with pytest.raises(fewbit.FewbitError, match="expected float32, float16 or bfloat16, found torch.float64"):
        quantized(torch.zeros(1, 48, dtype=torch.float64))
    with pytest.raises(fewbit.FewbitError, match="weight, element 7: expected a finite number, found NaN"):
        broken = linear()
        broken.weight.data.view(-1)[7] = float("nan")
        convert_layer(broken, "dynamic")
    with pytest.raises(fewbit.FewbitError, match="expected numbers that fp16 has, found 100000"):
        broken.weight.data.view(-1)[7] = 1e5
        convert_layer(broken, "fp16")


@pytest.mark.parametrize("method", [*METHODS, "static"])
def test_gradients_reach_the_inputs_as_through_the_dequantized_weight(method: str) -> None:
    """(pitfall 36)"""
    quantized = converted(linear(), method)
    x = torch.randn(2, 3, 48, requires_grad=True)
    y = quantized(x)
    assert torch.equal(y.detach(), quantized(x.detach()))
    gradient = torch.randn_like(y)
    y.backward(gradient)
    torch.testing.assert_close(x.grad, gradient @ (quantized.weight + 0))
    assert all(parameter.grad is None for parameter in quantized.parameters())
    with pytest.raises(fewbit.FewbitError, match="train the float model"):
        quantized.requires_grad_(True)


def test_several_threads_at_once_get_the_same_bits() -> None:
    """(pitfall 44)"""
    quantized, inputs = convert_layer(linear(), "dynamic"), [torch.randn(100, 48) for _ in range(8)]
    expected = [quantized(x) for x in inputs]
    found: dict[int, list[torch.Tensor]] = {}
    quantized = copy.deepcopy(quantized)  # Not packed yet: the first calls do it, all at once.

    def run(thread: int) -> None:
        found[thread] = [quantized(x) for x in inputs]

    threads = [threading.Thread(target=run, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(torch.equal(y, e) for ys in found.values() for y, e in zip(ys, expected, strict=True))


def test_the_number_of_threads_changes_no_bit() -> None:
    # Enough products for three threads.
    x = torch.randn(2500, 48)
    quantized = {method: convert_layer(linear(out=450), method) for method in METHODS}
    expected = {method: layer(x) for method, layer in quantized.items()}
    try:
        fewbit.set_num_threads(3)
        for method, layer in quantized.items():
            assert torch.equal(layer(x), expected[method])
            assert torch.equal(layer(x[:5]), expected[method][:5])
    finally:
        fewbit.set_num_threads(None)


@pytest.mark.parametrize("method", ["dynamic", "fp16", "bf16"])
def test_embeddings_look_up_the_rows_that_their_weight_shows(method: str) -> None:
    torch.manual_seed(0)
    table = nn.Embedding(30, 16, padding_idx=2)
    quantized = convert_layer(table, method)
    assert isinstance(quantized, QuantizedEmbedding) and quantized.padding_idx == 2
    for ids in (torch.tensor([[1, 2], [29, 0]]), torch.tensor(3), torch.tensor([], dtype=torch.int64), torch.tensor([4], dtype=torch.int32)):
        rows = quantized(ids)
        assert rows.shape == table(ids).shape
        assert torch.equal(rows, functional.embedding(ids, quantized.weight + 0))
    codes, scales = reference.weight_codes(table.weight.detach())
    if method == "dynamic":
        assert torch.equal(quantized.weight + 0, codes * scales.unsqueeze(1))
        for ids in ([1, 30], [-1]):
            with pytest.raises(fewbit.FewbitError, match="expected a number from 0 to 29, found"):
                quantized(torch.tensor(ids))
        with pytest.raises(fewbit.FewbitError, match="expected int64 or int32"):
            quantized(torch.tensor([1.0]))


def test_layers_that_cannot_be_done_say_why() -> None:
    """(pitfall 13)"""

    class Scaled(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) * 2

    for module, method, words in [
        (nn.Embedding(3, 4, max_norm=1.0), "dynamic", "max_norm changes the table while it is read"),
        (nn.Embedding(3, 4), "nf4", "no 4-bit form"),
        (nn.LSTM(3, 4), "dynamic", "fewbit has no quantized LSTM"),
        (Scaled(3, 4), "dynamic", "Scaled has a forward of its own"),
        (nn.Linear(3, 4).double(), "dynamic", "its weight is torch.float64"),
        (nn.Linear(3, 4, device="meta"), "dynamic", "its weight is on meta"),
        (nn.LazyLinear(4), "dynamic", "run the model once"),
        (nn.Linear(65_794, 1), "dynamic", "at most 65793 input features"),
        (nn.Conv2d(3, 4, 3), "nf4", "convolutions are int8"),
    ]:
        with pytest.raises(Unsupported, match=words):
            convert_layer(module, method)
    with pytest.raises(ValueError, match="expected input_scale and input_zero_point"):
        convert_layer(nn.Linear(3, 4), "static")
    with pytest.raises(ValueError, match="expected one of dynamic, static"):
        convert_layer(nn.Linear(3, 4), "int3")
    with pytest.raises(fewbit.FewbitError, match="expected a power of two from 32 to 4096, found 48"):
        convert_layer(nn.Linear(3, 4), "nf4", block_size=48)


def test_four_bit_codes_are_those_of_bitsandbytes() -> None:
    functional_4bit = pytest.importorskip("bitsandbytes.functional")
    layer = linear(64, 48)
    for kind in ("nf4", "fp4"):
        packed, state = functional_4bit.quantize_4bit(layer.weight.detach(), blocksize=64, quant_type=kind)
        found = convert_layer(layer, kind).stored
        assert torch.equal(found.packed, packed.reshape(-1))
        assert torch.equal(found.absmax, state.absmax)
        assert torch.equal(found.matrix(), functional_4bit.dequantize_4bit(packed, state))


def test_double_quantization_halves_what_absmax_values_take() -> None:
    layer = linear(256, 256)
    plain, double = (convert_layer(layer, "nf4", double_quant=double_quant).state_dict() for double_quant in (False, True))
    assert plain["weight_absmax"].dtype == torch.float32 and double["weight_absmax"].dtype == torch.uint8
    weights = [sum(tensor.numel() * tensor.element_size() for key, tensor in state.items() if "absmax" in key) for state in (plain, double)]
    # 1024 blocks: 4 bytes each, or 1 byte each and 4 for each 256 of them.
    assert weights == [4096, 1024 + 16]


@pytest.mark.parametrize("write", [lambda w: w.__setitem__(0, 1.0), lambda w: w.t().zero_(), lambda w: w.view(-1).zero_(), lambda w: w[0].fill_(1.0), lambda w: w.unbind()[0].zero_()])
def test_views_of_weights_cannot_be_written(write: Any) -> None:
    """What is written to them would not reach the layer (pitfall 4)."""
    quantized: Any = convert_layer(linear(), "dynamic")
    before = quantized.weight + 0
    with pytest.raises(FewbitError, match="expected a tensor that can be changed"):
        write(quantized.weight)
    assert torch.equal(quantized.weight + 0, before)
    assert torch.equal(quantized.weight[1] * 2, before[1] * 2)
