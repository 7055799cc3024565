"""Convolutions: what they compute, bit by bit and against float models."""

from __future__ import annotations

from typing import Any

import integer_arithmetic as reference
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import fewbit
import fewbit.torch
from fewbit.torch.layers import convert_layer

torch.set_num_threads(1)


def windows_of(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """The windows of a convolution: (images, positions, in * kernel), with the padding of the layer."""
    if layer.padding == "same":
        ends = []
        for kernel, dilation in reversed(list(zip(layer.kernel_size, layer.dilation, strict=True))):
            total = dilation * (kernel - 1)
            ends += [total // 2, total - total // 2]
    else:
        paddings = (0, 0) if layer.padding == "valid" else layer.padding
        ends = [end for padding in reversed(paddings) for end in (padding, padding)]
    padded = functional.pad(x, ends, mode="constant" if layer.padding_mode == "zeros" else layer.padding_mode)
    return functional.unfold(padded, layer.kernel_size, layer.dilation, 0, layer.stride).transpose(1, 2)


def by_windows(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """The int8 convolution with one row of inputs for each window and group."""
    images, positions, columns = (windows := windows_of(layer, x)).shape
    weight, groups = layer.weight.detach().flatten(1), layer.groups
    outputs = []
    for group in range(groups):
        rows = slice(group * layer.out_channels // groups, (group + 1) * layer.out_channels // groups)
        inputs = windows[:, :, group * columns // groups : (group + 1) * columns // groups].reshape(images * positions, -1)
        outputs.append(reference.dynamic_linear(inputs, weight[rows], None if layer.bias is None else layer.bias.detach()[rows]))
    size = layer(x).shape[2:]
    return torch.cat(outputs, dim=1).reshape(images, positions, -1).transpose(1, 2).reshape(images, -1, *size)


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_size": 3},
        {"kernel_size": 3, "padding": 1, "stride": 2},
        {"kernel_size": (2, 3), "padding": (0, 2), "stride": (3, 1), "dilation": (1, 2)},
        {"kernel_size": 1},
        {"kernel_size": 1, "stride": 2},
        {"kernel_size": 4, "stride": 4, "bias": False},
        {"kernel_size": 4, "padding": "same", "dilation": (1, 2)},
        {"kernel_size": 2, "padding": "valid"},
        {"kernel_size": 3, "padding": 1, "groups": 2},
        {"kernel_size": 3, "padding": 1, "groups": 8},
        *({"kernel_size": 3, "padding": 2, "padding_mode": mode} for mode in ("reflect", "replicate", "circular")),
    ],
    ids=str,
)
def test_convolutions_have_the_bits_of_integer_arithmetic(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer, x = nn.Conv2d(8, 16, **settings), torch.randn(2, 8, 13, 12)
    quantized = convert_layer(layer, "dynamic")
    y = quantized(x)
    assert torch.equal(y, by_windows(layer, x)) and y.is_contiguous()
    assert torch.equal(quantized(x[1]), y[1])
    assert torch.equal(quantized(x.to(memory_format=torch.channels_last)), y)


def test_the_number_of_threads_changes_no_bit_of_a_convolution() -> None:
    torch.manual_seed(0)
    # Enough products for three threads.
    quantized, x = convert_layer(nn.Conv2d(32, 64, 3, padding=1), "dynamic"), torch.randn(3, 32, 32, 32)
    y = quantized(x)
    try:
        fewbit.set_num_threads(3)
        assert torch.equal(quantized(x), y)
    finally:
        fewbit.set_num_threads(None)


@pytest.mark.parametrize("method", ["fp16", "bf16"])
def test_half_precision_convolutions_use_the_weight_that_they_show(method: str) -> None:
    torch.manual_seed(0)
    layer, x = nn.Conv2d(8, 16, 3, padding=1), torch.randn(2, 8, 9, 9)
    quantized = convert_layer(layer, method)
    exact = functional.conv2d(x.double(), quantized.weight.detach().double(), layer.bias.double(), padding=1)
    # One rounding for each of 72 terms and the bias, of magnitudes below the sum of all.
    bound = 73 * 2.0**-24 * functional.conv2d(x.double().abs(), quantized.weight.detach().double().abs(), layer.bias.double().abs(), padding=1)
    assert bool(((quantized(x).double() - exact).abs() <= bound).all())


def test_static_convolutions_have_one_scale_for_all_inputs() -> None:
    torch.manual_seed(0)
    layer, x = nn.Conv2d(4, 6, 3, padding=1), torch.randn(2, 4, 7, 7)
    windows = windows_of(layer, x)
    y = reference.static_linear(windows.flatten(0, 1), layer.weight.detach().flatten(1), layer.bias.detach(), 0.03, 3)
    quantized = convert_layer(layer, "static", input_scale=0.03, input_zero_point=3)
    assert torch.equal(quantized(x), y.reshape(2, 49, 6).transpose(1, 2).reshape(2, 6, 7, 7))


@pytest.mark.parametrize("settings", [{"padding": 1}, {"padding": "same"}, {"stride": 2}, {"groups": 2}, {"padding": 2, "padding_mode": "circular"}], ids=str)
def test_convolutions_in_one_dimension_are_those_of_height_one(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer, x = nn.Conv1d(4, 6, 3, **settings), torch.randn(2, 4, 11)
    padding = settings.get("padding", 0)
    flat = nn.Conv2d(4, 6, (1, 3), stride=(1, layer.stride[0]), padding=padding if isinstance(padding, str) else (0, padding), groups=layer.groups)
    flat.padding_mode = layer.padding_mode
    flat._reversed_padding_repeated_twice = [2, 2, 0, 0]
    flat.load_state_dict({"weight": layer.weight.unsqueeze(2), "bias": layer.bias})
    quantized = convert_layer(layer, "dynamic")
    assert torch.equal(quantized(x), by_windows(flat, x.unsqueeze(2)).squeeze(2))
    assert quantized(x[0]).shape == layer(x[0]).shape
    assert quantized.weight.shape == layer.weight.shape


@pytest.mark.parametrize("settings", [{}, {"stride": 2, "padding": 1}, {"padding": "same", "dilation": 2}, {"groups": 2}], ids=str)
def test_gradients_reach_the_inputs_of_convolutions(settings: dict[str, Any]) -> None:
    """(pitfall 36)"""
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3, **settings)
    quantized = convert_layer(layer, "dynamic")
    x, same = (torch.randn(2, 4, 8, 9, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2))
    layer.weight.data = quantized.weight + 0
    y, expected = quantized(x), layer(same)
    gradient = torch.randn_like(y)
    y.backward(gradient)
    expected.backward(gradient)
    torch.testing.assert_close(x.grad, same.grad)


def test_wrong_shapes_of_images_are_errors() -> None:
    quantized = convert_layer(nn.Conv2d(4, 6, 3), "dynamic")
    for shape in [(1, 5, 8, 8), (8, 8), (1, 4, 8, 8, 8)]:
        with pytest.raises(fewbit.FewbitError, match="expected inputs of shape"):
            quantized(torch.zeros(shape))
    with pytest.raises(fewbit.FewbitError, match="in which a kernel"):
        quantized(torch.zeros(1, 4, 2, 8))
    with pytest.raises(fewbit.FewbitError, match="expected a tensor on the CPU"):
        quantized.compute(torch.zeros(1, 4, 8, 8, device="meta"))
    assert quantized(torch.zeros(0, 4, 8, 8)).shape == (0, 6, 6, 6)


class Block(nn.Module):
    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(out), nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(channels, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self.shortcut(x))


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


# Noise of rounding to one of 255 steps over a range of about 8 standard deviations is 8 / 255 / sqrt(12) = 0.9 % of them, for inputs and for weights: 1.3 %
# for a layer. Layers in succession add up to their number times that, were their errors all of one direction.
ERROR_OF_LAYER = 0.013


def test_a_small_resnet_stays_close_to_float() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 7, 2, 3), nn.ReLU(), Block(16, 16, 1), Block(16, 32, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    x = torch.randn(4, 3, 32, 32)
    model(x)  # Statistics of the batch norms.
    model.eval()
    quantized = fewbit.torch.quantize_dynamic(model, {nn.Conv2d, nn.Linear})
    assert fewbit.torch.report_of(quantized).count("quantized") == 8
    with torch.no_grad():
        assert relative_error(quantized(x), model(x)) < 6 * ERROR_OF_LAYER
        assert torch.equal(quantized(x)[2:3], quantized(x[2:3]))


def test_a_small_vision_transformer_stays_close_to_float() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96, image_size=32, patch_size=8, num_labels=5
    )
    model = transformers.ViTForImageClassification(config).eval()
    x = torch.randn(3, 3, 32, 32)
    quantized = fewbit.torch.quantize_dynamic(model, {nn.Conv2d, nn.Linear})
    report = fewbit.torch.report_of(quantized)
    assert {module.type for module in report if module.action == "quantized"} == {"Conv2d", "Linear"}
    with torch.no_grad():
        found, expected = quantized(x, output_hidden_states=True), model(x, output_hidden_states=True)
        # The patches, then two layers of four products in succession.
        assert relative_error(found.hidden_states[-1], expected.hidden_states[-1]) < 9 * ERROR_OF_LAYER
        assert torch.equal(quantized(x[1:2]).logits[0], found.logits[1])
