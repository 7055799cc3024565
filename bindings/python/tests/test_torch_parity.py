"""The arithmetic of ``torch.ao.quantization``, so that a move from it can be confirmed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fewbit.torch import quantize_dynamic, report_of

torch_ao: Any = pytest.importorskip("torch.ao.quantization")
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.ao.quantization is deprecated")

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def engine(request: Any) -> Any:
    """Runs torch on the engine that the test is given."""
    before = torch.backends.quantized.engine
    name = request.node.callspec.params.get("backend") if hasattr(request.node, "callspec") else None
    if name is not None:
        if name not in torch.backends.quantized.supported_engines:
            pytest.skip(f"this torch has no {name}")
        torch.backends.quantized.engine = name
    yield
    torch.backends.quantized.engine = before


def layers(backend: str, *, bias: bool = True) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(96, 160, bias=bias), nn.Linear(160, 24, bias=bias))
    theirs = torch_ao.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    return quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8, backend=backend), theirs


@pytest.mark.parametrize("backend", ["x86", "fbgemm"])
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_have_the_bits_of_torch(backend: str, bias: bool) -> None:
    ours, theirs = layers(backend, bias=bias)
    for shape in [(1, 96), (37, 96), (2, 3, 96)]:
        for scale in (1e-6, 0.1, 1.0, 1e3):
            x = torch.randn(shape) * scale
            assert torch.equal(ours(x), theirs(x))
    # All positive, all negative, zeros.
    for x in (torch.rand(5, 96), -torch.rand(5, 96), torch.zeros(2, 96)):
        assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("backend", ["qnnpack", "onednn"])
def test_other_engines_differ_in_their_last_bits_only(backend: str) -> None:
    ours, theirs = layers(backend)
    x = torch.randn(37, 96)
    # One layer, so that no rounded difference moves a code of the next: sums are equal, and three roundings of 2^-24 follow in another order,
    # of a product and a bias that may be as large as the largest output each.
    y, expected = ours[0](x), theirs[0](x)
    largest = float(expected.abs().max()) + float(ours[0].bias.abs().max())
    assert float((y - expected).abs().max()) <= 4 * 2.0**-24 * 2 * largest


@pytest.mark.parametrize("backend", ["x86", "qnnpack"])
def test_weights_are_those_of_torch(backend: str) -> None:
    ours, theirs = layers(backend)
    for our, their in zip(ours, theirs, strict=True):
        assert torch.equal(our.weight + 0, their.weight().dequantize())


@pytest.mark.parametrize("backend", ["fbgemm"])
def test_float16_weights_are_those_of_torch(backend: str) -> None:
    torch.manual_seed(0)
    model = nn.Linear(96, 24)
    theirs = torch_ao.quantize_dynamic(nn.Sequential(model), {nn.Linear}, dtype=torch.float16)[0]
    ours = quantize_dynamic(model, {nn.Linear}, dtype=torch.float16, backend=backend)
    assert torch.equal(ours.weight + 0, theirs.weight())
    x = torch.randn(7, 96)
    bound = 2 * 97 * 2.0**-24 * (x.abs() @ model.weight.abs().t() + model.bias.abs())
    assert bool(((ours(x) - theirs(x)).abs() <= bound).all())


def test_what_torch_does_not_quantize_stays_float_with_a_reason() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Embedding(4, 4), nn.Linear(4, 4))
    with pytest.warns(UserWarning, match="torch has no dynamic"):
        quantized = quantize_dynamic(model, {nn.Conv2d, nn.Embedding, nn.Linear}, backend="x86")
    assert [module.action for module in report_of(quantized)] == ["float", "float", "quantized"]
