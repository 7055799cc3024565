"""Single layers of torch: their state, copies, moves, and what compilers make of them."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fewbit
import fewbit.torch
from fewbit.torch.layers import convert_layer
from fewbit.torch.layers.quantized_layer import DESCRIPTION_KEY

torch.set_num_threads(1)

METHODS = ["dynamic", "weight-only", "fp16", "bf16", "nf4", "fp4"]


class Small(nn.Module):
    """A layer of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 16)
        self.convolution = nn.Conv1d(16, 16, 3, padding=1)
        self.linear = nn.Linear(16, 4)

    def forward(self, ids: Tensor) -> Tensor:
        y: Tensor = self.linear(self.convolution(self.table(ids).transpose(1, 2)).transpose(1, 2))
        return y


IDS = torch.arange(40).reshape(2, 20) % 20
TYPES = {nn.Embedding, nn.Conv1d, nn.Linear}


def float_model() -> Small:
    torch.manual_seed(0)
    return Small()


def quantized_model(method: str = "dynamic") -> nn.Module:
    types = TYPES if method not in ("nf4", "fp4") else {nn.Linear}
    return fewbit.torch.quantize_dynamic(float_model(), types, method)


def static_layer() -> nn.Module:
    torch.manual_seed(0)
    return convert_layer(nn.Linear(16, 4), "static", input_scale=0.02, input_zero_point=-5, reduce_range=True)


@pytest.mark.parametrize("method", METHODS)
def test_copies_and_pickles_have_the_same_bits(method: str) -> None:
    """(pitfall 28)"""
    model = quantized_model(method)
    expected = model(IDS)
    saved = io.BytesIO()
    torch.save(model, saved)
    saved.seek(0)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(saved, weights_only=False), copy.deepcopy(copy.deepcopy(model))):
        assert again is not model
        assert torch.equal(again(IDS), expected)
        assert fewbit.torch.report_of(again) == fewbit.torch.report_of(model)
    layer = static_layer()
    x = torch.randn(3, 16)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x), layer(x))


@pytest.mark.parametrize("method", METHODS)
def test_state_is_plain_tensors_that_every_format_takes(method: str, tmp_path: Path) -> None:
    """(pitfalls 29, 30, 32)"""
    from safetensors.torch import load_file, save_file

    model = quantized_model(method)
    state = model.state_dict()
    assert all(type(tensor) is Tensor for tensor in state.values())
    torch.save(state, tmp_path / "state.pt")
    save_file(state, tmp_path / "state.safetensors")
    for found in (torch.load(tmp_path / "state.pt", weights_only=True), load_file(tmp_path / "state.safetensors"), dict(state)):
        assert not hasattr(found, "_metadata") or type(found) is type(state)
        for start in (float_model(), quantized_model(method)):
            start.linear.register_forward_hook(lambda *_: None)
            loaded = fewbit.torch.load_state_dict(start, found)
            assert torch.equal(loaded(IDS), model(IDS))
        other = fewbit.torch.quantize_dynamic(Small(), TYPES if method not in ("nf4", "fp4") else {nn.Linear}, method)
        assert not torch.equal(other(IDS), model(IDS))
        assert str(other.load_state_dict(found)) == "<All keys matched successfully>"
        assert torch.equal(other(IDS), model(IDS))


def test_static_state_brings_its_scale() -> None:
    layer, x = static_layer(), torch.randn(5, 16)
    other = convert_layer(nn.Linear(16, 4), "static", input_scale=1.0, input_zero_point=0)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), layer(x))
    loaded = fewbit.torch.load_state_dict(nn.Linear(16, 4), layer.state_dict())
    assert torch.equal(loaded(x), layer(x))


@pytest.mark.parametrize("method", METHODS)
def test_a_float_model_refuses_the_state_and_names_the_function(method: str) -> None:
    """(pitfall 31)"""
    state, model = quantized_model(method).state_dict(), float_model()
    with pytest.raises(RuntimeError, match=r'"linear.fewbit.torch.load_state_dict"'):
        model.load_state_dict(state)
    # Also where other keys are allowed: the shape is wrong in any case.
    with pytest.raises(RuntimeError, match=r"size mismatch for linear.weight"):
        model.load_state_dict(state, strict=False)


def test_states_that_do_not_fit_are_errors() -> None:
    model = quantized_model()
    state = model.state_dict()
    with pytest.raises(RuntimeError, match=r"(?s)linear.weight: expected the state of a quantized layer, found torch.float32.*quantize_dynamic"):
        model.load_state_dict(float_model().state_dict())
    with pytest.raises(RuntimeError, match="method: expected dynamic, found weight-only"):
        model.load_state_dict(quantized_model("weight-only").state_dict())
    with pytest.raises(RuntimeError, match="Missing key.*linear.weight"):
        model.load_state_dict({key: tensor for key, tensor in state.items() if not key.startswith("linear.")})
    with pytest.raises(RuntimeError, match="Unexpected key.*linear.other"):
        model.load_state_dict({**state, "linear.other": torch.zeros(1)})
    for load in (model.load_state_dict, lambda state: fewbit.torch.load_state_dict(float_model(), state)):
        for key, tensor, words in [
            ("linear.weight", state["linear.weight"][:-1], "weight: expected 64 elements of torch.int8, found 63"),
            ("linear.weight_scale", None, "weight_scale: expected a tensor of 4 elements, found none"),
            ("linear." + DESCRIPTION_KEY, state["linear." + DESCRIPTION_KEY][:-9], "expected the description of a quantized layer"),
        ]:
            broken = dict(state) if tensor is not None else {name: value for name, value in state.items() if name != key}
            if tensor is not None:
                broken[key] = tensor
            with pytest.raises((RuntimeError, fewbit.FewbitError), match=words):
                load(broken)
    with pytest.raises(fewbit.FewbitError, match="expected a module of the model, found none"):
        fewbit.torch.load_state_dict(nn.Linear(16, 4), state)
    with pytest.raises(fewbit.FewbitError, match=r"expected the shape of the model, \(5, 16\), found \(4, 16\)"):
        fewbit.torch.load_state_dict(nn.Linear(16, 5), convert_layer(nn.Linear(16, 4), "dynamic").state_dict())


@pytest.mark.parametrize("method", METHODS)
def test_a_model_of_quantized_layers_has_parameters_as_before(method: str) -> None:
    """(pitfalls 33, 34)"""
    model, original = quantized_model(method), float_model()
    assert next(model.parameters()).dtype == torch.float32
    assert next(model.parameters()).device == torch.device("cpu")
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in original.parameters())
    assert [(name, p.shape) for name, p in model.named_parameters()] == [(name, p.shape) for name, p in original.named_parameters()]
    assert not any(p.requires_grad for name, p in model.named_parameters() if name.startswith("linear"))


@pytest.mark.parametrize("method", METHODS)
def test_moves_that_change_nothing_change_nothing(method: str) -> None:
    """(pitfall 35)"""
    model = quantized_model(method)
    expected = model(IDS)
    for same in (model.to("cpu"), model.eval(), model.float(), model.train(), model.cpu(), model.to(torch.float32), model.share_memory()):
        assert same is model
        assert torch.equal(model(IDS), expected)


def test_moves_that_a_layer_cannot_follow_are_errors() -> None:
    """(pitfall 35)"""
    for method in ("dynamic", "weight-only", "nf4"):
        layer = convert_layer(nn.Linear(16, 4), method)
        for move in (layer.half, layer.bfloat16, layer.double, lambda layer=layer: layer.to("meta")):
            with pytest.raises(fewbit.FewbitError, match="expected to stay torch.float32 on the CPU"):
                move()
    with pytest.raises(fewbit.FewbitError, match="expected a tensor on the CPU, found one on meta"):
        layer.compute(torch.zeros(1, 16, device="meta"))


def test_half_precision_layers_follow_dtypes() -> None:
    layer = convert_layer(nn.Linear(16, 4), "fp16")
    x = torch.randn(3, 16)
    expected = layer(x)
    assert layer.half().weight.dtype == torch.float16
    assert torch.equal(layer(x), expected)
    assert layer.float().weight.dtype == torch.float32


@pytest.mark.parametrize("make", [*METHODS, "static"])
def test_operators_keep_the_rules_of_torch(make: str) -> None:
    """(pitfall 40)"""
    torch.manual_seed(0)
    layer = static_layer() if make == "static" else convert_layer(nn.Linear(16, 4), make)
    for x in (torch.randn(3, 16), torch.randn(3, 16, requires_grad=True), torch.randn(2, 16, dtype=torch.bfloat16)):
        torch.library.opcheck(torch.ops.fewbit.linear.default, (x, layer._number, 4))


def test_operators_of_convolutions_and_embeddings_keep_the_rules_of_torch() -> None:
    """(pitfall 40)"""
    convolution = convert_layer(nn.Conv2d(3, 4, 3, padding=1), "dynamic")
    arguments = (convolution._number, 4, [3, 3], [1, 1], [1, 1], [1, 1, 1, 1])
    for x in (torch.randn(2, 3, 6, 7), torch.randn(2, 3, 6, 7, requires_grad=True)):
        torch.library.opcheck(torch.ops.fewbit.convolution.default, (x, *arguments))
    table = convert_layer(nn.Embedding(9, 4), "dynamic")
    torch.library.opcheck(torch.ops.fewbit.embedding.default, (torch.tensor([[1, 8]]), table._number, 4, torch.float32))


@pytest.mark.parametrize("method", ["dynamic", "nf4", "fp16"])
def test_compiled_models_are_one_graph_with_the_same_bits(method: str) -> None:
    """(pitfall 40)"""
    torch._dynamo.reset()
    model = quantized_model(method)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert torch.equal(compiled(IDS), model(IDS))
        assert torch.equal(compiled(IDS[:, :7]), model(IDS[:, :7]))
    layer = convert_layer(nn.Linear(16, 4), method)
    x, same = (torch.ones(2, 16, requires_grad=True) for _ in range(2))
    torch.compile(layer, fullgraph=True, backend="aot_eager")(x).sum().backward()
    layer(same).sum().backward()
    assert x.grad is not None and torch.equal(x.grad, same.grad)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        assert compiled(IDS).dtype == model(IDS).dtype


def test_one_graph_serves_layers_of_one_shape() -> None:
    """(pitfall 40)"""
    torch._dynamo.reset()
    layers = [convert_layer(nn.Linear(16, 16), "dynamic") for _ in range(12)]
    counter = torch._dynamo.testing.CompileCounter()
    run: Any = torch.compile(lambda layer, x: layer(x), fullgraph=True, backend=counter)
    x = torch.randn(2, 16)
    for layer in layers:
        assert torch.equal(run(layer, x), layer(x))
    assert counter.frame_count <= 2


def test_exported_and_traced_models_run() -> None:
    layer, x = convert_layer(nn.Linear(16, 4), "dynamic"), torch.randn(3, 16)
    assert torch.equal(torch.export.export(layer, (x,)).module()(x), layer(x))
    traced = torch.jit.trace(layer, x)
    assert torch.equal(traced(x + 1), layer(x + 1))


def test_compiling_for_the_cpu_gives_the_same_bits() -> None:
    """(pitfall 40)"""
    layer, x = convert_layer(nn.Linear(16, 4), "dynamic"), torch.randn(3, 16)
    compiled = torch.compile(layer, fullgraph=True)
    with torch.no_grad():
        assert torch.equal(compiled(x), layer(x))


def test_a_deleted_model_frees_its_memory_at_once() -> None:
    import gc
    import weakref

    gc.disable()
    try:
        layer = convert_layer(nn.Linear(16, 4), "dynamic")
        layer(torch.zeros(1, 16))
        seen = weakref.ref(layer)
        del layer
        assert seen() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("layer", "shape"), [(nn.Linear(16, 4), (2, 16)), (nn.Conv2d(3, 4, 3, padding=1), (2, 3, 8, 8)), (nn.Embedding(9, 4), (2, 3))], ids=["linear", "convolution", "embedding"]
)
def test_half_precision_layers_move_to_devices_where_torch_computes(layer: nn.Module, shape: tuple[int, ...]) -> None:
    moved = convert_layer(layer, "fp16").to("meta")
    x = torch.zeros(shape, device="meta", dtype=torch.int64 if isinstance(layer, nn.Embedding) else torch.float32)
    y = moved(x)
    assert (y.device.type, y.dtype) == ("meta", torch.float32)
    assert y.shape == layer(torch.zeros(shape, dtype=x.dtype)).shape
    assert moved.weight.device.type == "meta"
