"""Fake quantization of single tensors: the bits of the codes, on the CPU and in torch's operations, and gradients."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

import integer_arithmetic  # noqa: E402

import fewbit.torch as ft  # noqa: E402
from fewbit import FewbitError, _fewbit  # noqa: E402
from fewbit.torch.layers.stored_weight import FourBitWeight, Int4Weight  # noqa: E402
from fewbit.torch.qat import formulas, functions  # noqa: E402
from fewbit.torch.qat.config import WeightScheme  # noqa: E402
from fewbit.torch.qat.weights import GroupFakeQuantize  # noqa: E402

torch.set_num_threads(1)


def matrix(rows: int = 9, columns: int = 96, seed: int = 0) -> Any:
    """Numbers of many sizes, zeros, rows of zeros and of tiny numbers, and ties of any scale."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.randn(rows, columns, generator=generator) * torch.logspace(-6, 4, rows).unsqueeze(1)
    found[0] = 0
    found[1, ::3] = 0
    found[2] = torch.arange(columns) * 0.5 - columns / 4
    found[3] *= 1e-38
    return found


def in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the path of devices that the native half does not reach."""
    monkeypatch.setattr(functions, "is_native", lambda x: False)


@pytest.mark.parametrize("columns", [1, 7, 64, 96])
def test_int8_rows_are_the_values_of_their_codes(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = matrix(columns=columns)
    codes, scales = _fewbit.quantize_int8(weight.numpy(), per_tensor=False, threads=1)
    expected = torch.from_numpy(codes).float() * torch.from_numpy(scales).unsqueeze(1)
    assert functions.int8_rows(weight).equal(expected)
    in_torch(monkeypatch)
    assert functions.int8_rows(weight).equal(expected)


@pytest.mark.parametrize("bits", [8, 12])
def test_tokens_are_the_values_of_their_codes(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = matrix()
    codes, scales, _ = integer_arithmetic.token_codes(x, 2**bits - 1)
    expected = (codes + 0.0) * scales.unsqueeze(1)
    assert functions.token_rows(x, bits=bits).equal(expected)
    assert functions.token_rows(x.reshape(3, 3, -1), bits=bits).equal(expected.reshape(3, 3, -1))
    huge = torch.tensor([[3e38, -3e38, 1e38, 0.0]])
    native = functions.token_rows(huge, bits=bits)
    in_torch(monkeypatch)
    assert functions.token_rows(x, bits=bits).equal(expected)
    assert functions.token_rows(huge, bits=bits).equal(native)
    assert native.isfinite().all()


def test_a_static_range_gives_the_values_of_its_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    x = matrix()
    for least, greatest in ((-1.0, 3.0), (0.5, 2.0), (-2.0, -1.0), (0.0, 0.0)):
        scale, zero = formulas.affine_parameters(torch.tensor(least), torch.tensor(greatest), -128, 127)
        expected = (integer_arithmetic.fixed_codes(x, scale, zero, -128, 127) + 0.0) * scale
        with monkeypatch.context() as patch:
            assert functions.one_scale(x, scale, zero).equal(expected)
            in_torch(patch)
            assert functions.one_scale(x, scale, zero).equal(expected)


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("scales", ["absmax", "mse", "learned"])
def test_int4_groups_are_the_values_of_their_codes(scales: str, asymmetric: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = matrix()
    quantizer = GroupFakeQuantize(WeightScheme("int4", scales, 32, asymmetric), weight)
    stored = quantizer.stored(weight)
    assert isinstance(stored, Int4Weight)
    assert stored.codes.min() == -8
    assert stored.codes.max() == 7
    values = quantizer(weight)
    assert values.equal(stored.matrix())
    in_torch(monkeypatch)
    assert quantizer(weight).equal(values)


@pytest.mark.parametrize("double_quant", [False, True])
@pytest.mark.parametrize("columns", [64, 96, 7])
def test_nf4_blocks_are_the_values_of_their_codes(columns: int, double_quant: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # Blocks of zeros and of numbers whose reciprocal is not finite, too; the last block is short.
    weight = matrix(columns=columns)
    expected = FourBitWeight.of(weight, kind="nf4", block_size=64, double_quant=double_quant).matrix()
    assert functions.nf4_blocks(weight, block_size=64, double_quant=double_quant).equal(expected)
    in_torch(monkeypatch)
    assert functions.nf4_blocks(weight, block_size=64, double_quant=double_quant).equal(expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_quantized_as_float32_and_rounded(dtype: Any) -> None:
    weight = matrix()[4:8].to(dtype)
    assert functions.int8_rows(weight).equal(functions.int8_rows(weight.float()).to(dtype))
    assert functions.token_rows(weight, bits=8).equal(functions.token_rows(weight.float(), bits=8).to(dtype))


def test_gradients_pass_rounding_and_stop_where_values_are_clipped() -> None:
    weight = torch.tensor([[0.4, -0.6, 7.4, 7.6, 9.0, -8.4, -8.6, 0.0]], requires_grad=True)
    scales = torch.ones(1, 1, requires_grad=True)
    given = torch.arange(1.0, 9.0).unsqueeze(0)
    functions.groups(weight, scales, None, group_size=8, bits=4, factor=0.5).backward(given)
    assert weight.grad is not None
    assert weight.grad.tolist() == [[1, 2, 3, 0, 0, 6, 0, 8]]
    # By hand: rounding lost -0.4, -0.4, -0.4 and 0.4; clipped values follow the scale by their code.
    expected = 0.5 * (1 * -0.4 + 2 * -0.4 + 3 * -0.4 + 4 * 7 + 5 * 7 + 6 * 0.4 + 7 * -8)
    assert scales.grad is not None
    assert scales.grad.item() == pytest.approx(expected, rel=1e-5)


def test_gradients_are_the_same_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = matrix()
    found: list[Any] = []
    for native in (True, False):
        with monkeypatch.context() as patch:
            if not native:
                in_torch(patch)
            leaf = weight.clone().requires_grad_()
            scales = (weight.reshape(9, 3, 32).abs().amax(dim=2) / 9 + 1e-6).requires_grad_()
            points = torch.arange(27, dtype=torch.int8).reshape(9, 3) % 5 - 2
            functions.groups(leaf, scales, points, group_size=32, bits=4, factor=0.1).backward(torch.ones_like(weight).cumsum(1))
            found.append((leaf.grad, scales.grad))
    assert found[0][0].equal(found[1][0])
    # Sums of 32 terms of at most 96 * 13 steps, in another order.
    assert (found[0][1] - found[1][1]).abs().max() <= 0.1 * 2 * 32 * 2.0**-24 * 32 * 96 * 13


def test_a_learned_range_has_the_gradients_of_its_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.tensor([-9.0, -1.03, 0.0, 0.26, 1.94, 30.0], requires_grad=True)
    scale, zero_point = torch.tensor(-0.1, requires_grad=True), torch.tensor(-108.3, requires_grad=True)
    given = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    found = []
    for _ in range(2):
        out = functions.learned_scale(x, scale, zero_point, scale.detach().abs(), zero_point.detach().round(), factor=0.5)
        assert out.equal(functions.one_scale(x, torch.tensor(0.1), torch.tensor(-108.0)))
        found.append(torch.autograd.grad(out, (x, scale, zero_point), given))
        in_torch(monkeypatch)
    steps = x.detach().double() / scale.detach().abs().double()
    # Codes less the zero point are -20 to 235: the first value alone is clipped, and the last one.
    passes = torch.tensor([0.0, 1, 1, 1, 1, 0], dtype=torch.float64)
    codes = steps.round().clamp(-20, 235)
    of_scale = (given * torch.where(passes > 0, codes - steps, codes)).sum()
    of_zero_point = -0.1 * (given * (1 - passes)).sum()
    for of_x, *others in found:
        assert of_x.equal(given * passes.float())
        # Sums of six terms of up to 7520 in float32, divided by a scale that is rounded.
        assert float(others[0]) == pytest.approx(-0.5 * float(of_scale), rel=1e-5)
        assert float(others[1]) == pytest.approx(0.5 * float(of_zero_point), rel=1e-5)


def test_ranges_that_hold_all_values_let_every_gradient_pass() -> None:
    x = matrix().requires_grad_()
    given = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    for values in (functions.int8_rows(x), functions.token_rows(x, bits=8), functions.nf4_blocks(x, block_size=64, double_quant=False)):
        (gradient,) = torch.autograd.grad(values, x, given)
        assert gradient.equal(given)
    scale, zero = formulas.affine_parameters(torch.tensor(-1.0), torch.tensor(1.0), -128, 127)
    (gradient,) = torch.autograd.grad(functions.one_scale(x, scale, zero), x, given)
    assert gradient.equal(given * (x.abs() <= 1.0039).logical_and(x / scale + zero <= 127.5))


def test_numbers_that_are_not_finite_are_errors_that_name_the_element() -> None:
    weight = torch.ones(2, 64)
    weight[1, 3] = float("nan")
    scales = torch.ones(2, 1)
    for call in (
        lambda: functions.int8_rows(weight),
        lambda: functions.token_rows(weight, bits=8),
        lambda: functions.one_scale(weight, torch.tensor(1.0), torch.tensor(0.0)),
        lambda: functions.groups(weight, scales, None, group_size=64, bits=4),
        lambda: functions.nf4_blocks(weight, block_size=64, double_quant=False),
    ):
        with pytest.raises(FewbitError, match="element 67: expected a finite number, found NaN"):
            call()


def test_strides_and_empty_tensors_are_taken() -> None:
    weight = matrix(64, 64)
    assert functions.int8_rows(weight.t()).equal(functions.int8_rows(weight.t().contiguous()))
    assert functions.token_rows(weight[:, ::2], bits=8).equal(functions.token_rows(weight[:, ::2].contiguous(), bits=8))
    assert functions.int8_rows(torch.empty(0, 5)).shape == (0, 5)
    assert functions.int8_rows(torch.empty(3, 0)).shape == (3, 0)
    assert functions.token_rows(torch.empty(0, 5), bits=8).shape == (0, 5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"scales": "best"}, "scales: expected one of absmax, mse, learned, found 'best'"),
        ({"group_size": 0}, "group_size: expected at least 1, found 0"),
        ({"scale_interval": 0}, "scale_interval: expected at least 1, found 0"),
    ],
)
def test_configs_refuse_what_does_not_exist(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ft.Int4WeightOnlyConfig(**arguments)
    with pytest.raises(ValueError, match="block_size: expected a power of two from 32 to 4096, found 48"):
        ft.NF4WeightOnlyConfig(block_size=48)
    with pytest.raises(ValueError, match="averaging_constant: expected a number above 0 and up to 1, found 0"):
        ft.Int8StaticActivationInt8WeightConfig(averaging_constant=0)
    with pytest.raises(ValueError, match="base_config: expected one for the step `prepare`"):
        ft.QATConfig()
