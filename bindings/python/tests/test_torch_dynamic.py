"""``quantize_dynamic``: which modules of a model become what, and what becomes of the model around them."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fewbit
import fewbit.torch
from fewbit.torch import quantize_dynamic, report_of
from fewbit.torch.layers import QuantizedConvolution, QuantizedEmbedding, QuantizedLinear

torch.set_num_threads(1)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 16)
        self.body = nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16), nn.Linear(16, 16))
        self.head = nn.Linear(16, 3)

    def forward(self, ids: Tensor) -> Tensor:
        y: Tensor = self.head(self.body(self.table(ids)).mean(1))
        return y


IDS = torch.arange(40).reshape(2, 20) % 20


def model() -> Model:
    torch.manual_seed(0)
    return Model()


def actions(quantized: nn.Module) -> dict[str, str]:
    return {module.name: module.action for module in report_of(quantized)}


def test_the_original_stays_and_the_copy_is_in_evaluation_mode() -> None:
    original = model()
    before = copy.deepcopy(original.state_dict())
    quantized = quantize_dynamic(original, {nn.Linear})
    assert original.training and not any(module.training for module in quantized.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in original.state_dict().items())
    assert type(original.head) is nn.Linear and type(quantized.head) is QuantizedLinear
    original.table.weight.data.zero_()
    assert not torch.equal(quantized.table.weight, original.table.weight)


def test_the_original_model_changes_in_place_when_asked() -> None:
    changed = model()
    assert quantize_dynamic(changed, {nn.Linear}, inplace=True) is changed
    assert type(changed.head) is QuantizedLinear and type(changed.body[0]) is QuantizedLinear


@pytest.mark.parametrize(
    ("dtype", "method"),
    [(torch.float16, "fp16"), (torch.bfloat16, "bf16"), ("nf4", "nf4"), ("int8", "dynamic"), ("weight-only", "weight-only")]
    + ([(torch.qint8, "dynamic")] if hasattr(torch, "qint8") else []),
)
def test_dtypes_of_torch_and_words_choose_the_method(dtype: Any, method: str) -> None:
    assert quantize_dynamic(model(), dtype=dtype).head.method == method


def test_types_names_and_dicts_choose_modules_as_in_torch() -> None:
    every = {"table", "body.0", "body.2", "head"}

    def quantized(spec: Any) -> set[str]:
        return {name for name, action in actions(quantize_dynamic(model(), spec)).items() if action == "quantized"}

    assert quantized(None) == every - {"table"}
    assert quantized({nn.Linear, nn.Embedding}) == every
    assert quantized({nn.Embedding}) == {"table"}
    assert quantized({"head"}) == {"head"}
    assert quantized({"body"}) == {"body.0", "body.2"}
    assert quantized({nn.Sequential}) == {"body.0", "body.2"}
    assert quantized({nn.Linear: "int8", "body.0": None}) == {"body.2", "head"}
    mixed = quantize_dynamic(model(), {nn.Linear: torch.float16, "head": "nf4"})
    assert (mixed.body[0].method, mixed.head.method) == ("fp16", "nf4")
    qconfig = pytest.importorskip("torch.ao.quantization").default_dynamic_qconfig
    assert quantize_dynamic(model(), {nn.Linear: qconfig}).head.method == "dynamic"


def test_options_that_do_not_exist_are_errors() -> None:
    for arguments, words in [
        ({"qconfig_spec": {"heed"}}, "expected names of modules, found 'heed'"),
        ({"qconfig_spec": {3}}, "expected types of modules and names, found 3"),
        ({"qconfig_spec": "head"}, "expected a set of types and names"),
        ({"dtype": torch.float64}, "dtype: expected torch.qint8"),
        ({"dtype": torch.quint8}, "dtype: expected torch.qint8"),
        ({"mapping": {nn.Linear: nn.Linear}}, "mapping: expected None"),
        ({"backend": "cuda"}, "backend: expected one of fbgemm, x86"),
    ]:
        with pytest.raises(ValueError, match=words):
            quantize_dynamic(model(), **arguments)
    broken = model()
    broken.head.weight.data[0, 0] = float("nan")
    with pytest.raises(fewbit.FewbitError, match="head, weight, element 0: expected a finite number, found NaN"):
        quantize_dynamic(broken)


def test_multi_head_attention_runs_in_both_modes() -> None:
    """(pitfall 1)"""
    attention = nn.MultiheadAttention(16, 2, batch_first=True)
    x = torch.randn(2, 5, 16)
    for spec in ({nn.Linear}, {"out_proj"}):
        quantized = quantize_dynamic(attention, spec)
        for mode in (quantized.train(), quantized.eval()):
            y, _ = mode(x, x, x)
            torch.testing.assert_close(y, attention(x, x, x)[0], atol=0.02, rtol=0)
    assert report_of(quantize_dynamic(attention)).of("").reason == "its in_proj_weight is a parameter of its own, not a layer"
    assert "a subclass of Linear" in report_of(quantize_dynamic(attention)).of("out_proj").reason


def test_transformer_encoder_layers_run_with_native_layers_in_evaluation_mode() -> None:
    """(pitfall 2)"""
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    x = torch.randn(2, 5, 16)
    for float_model in (layer, nn.TransformerEncoder(layer, 2)):
        quantized = quantize_dynamic(float_model.eval(), {nn.Linear})
        with torch.no_grad():
            y, expected = quantized(x, src_key_padding_mask=None), float_model(x)
            assert 0 < float((y - expected).abs().max()) < 0.1
            mask = torch.zeros(2, 5, dtype=torch.bool)
            mask[0, 3:] = True
            assert quantized(x, src_key_padding_mask=mask).shape == x.shape
            calls: list[int] = []
            inner = quantized if isinstance(quantized, nn.TransformerEncoderLayer) else quantized.layers[0]
            inner.linear1.register_forward_hook(lambda *_: calls.append(1))
            quantized(x)
            assert calls == [1]


def test_a_model_that_is_one_layer_becomes_one() -> None:
    """(pitfall 5)"""
    layer = nn.Linear(16, 4)
    for inplace in (False, True):
        quantized = quantize_dynamic(layer, {nn.Linear}, inplace=inplace)
        assert type(quantized) is QuantizedLinear
        assert report_of(quantized).of("").action == "quantized"


def test_a_module_in_two_places_stays_one_object() -> None:
    """(pitfall 6)"""
    layer = nn.Linear(16, 16)
    shared = nn.Sequential(layer, nn.ReLU(), layer, nn.ModuleDict({"again": nn.Sequential(layer)})["again"])
    for inplace in (False, True):
        quantized = quantize_dynamic(copy.deepcopy(shared), inplace=inplace)
        assert type(quantized[0]) is QuantizedLinear
        assert quantized[0] is quantized[2] is quantized[3][0]
    assert report_of(quantized).of("2").reason == "the same module as 0"


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 16)
        self.decoder = nn.Linear(16, 20)
        self.decoder.weight = self.table.weight


def test_tied_weights_stay_tied_or_are_untied_with_a_warning() -> None:
    """(pitfall 7)"""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        both = quantize_dynamic(Tied(), {nn.Linear, nn.Embedding})
    assert both.decoder.stored is both.table.stored
    again = copy.deepcopy(both)
    assert again.decoder.stored is again.table.stored
    with pytest.warns(UserWarning, match="table and decoder shared a weight and do so no longer"):
        one = quantize_dynamic(Tied(), {nn.Linear})
    assert type(one.table) is nn.Embedding
    with pytest.warns(UserWarning, match="table and decoder shared a weight"):
        quantize_dynamic(Tied(), {nn.Linear: "nf4", nn.Embedding: "int8"})


def test_a_decoder_tied_to_a_swapped_encoder_is_untied_with_a_warning() -> None:
    """(pitfall 7)"""
    transformers = pytest.importorskip("transformers")
    from encoder_models import CONFIGS

    model = transformers.BertForMaskedLM(CONFIGS["bert"]()).eval()
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    with pytest.warns(UserWarning, match="bert.embeddings.word_embeddings and cls.predictions.decoder shared a weight"):
        quantized = quantize_dynamic(model, {nn.Linear})
    assert report_of(quantized).of("bert").action == "swapped"


@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm, nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
def test_computed_weights_are_folded_and_the_model_keeps_them(norm: Any) -> None:
    """(pitfalls 8, 9)"""
    torch.manual_seed(0)
    original = nn.Sequential(norm(nn.Linear(16, 8)), nn.ReLU())
    x = torch.randn(4, 16)
    original.eval()
    original(x).sum().backward()
    names = [name for name, _ in original.named_parameters()]
    quantized = quantize_dynamic(original, {nn.Linear})
    assert type(quantized[0]) is QuantizedLinear
    weight = original[0].weight.detach()
    # Half a step of the largest row, and the clamping of +absmax at 127 of 127.5.
    torch.testing.assert_close(quantized[0].weight + 0, weight, atol=float(weight.abs().max()) / 255 * 1.0001, rtol=0)
    assert not quantized[0]._forward_pre_hooks
    assert [name for name, _ in original.named_parameters()] == names
    assert torch.equal(original(x), original(x))


def test_models_can_be_quantized_after_a_forward_pass_with_gradients() -> None:
    """(pitfall 9)"""

    class Remembers(Model):
        def forward(self, ids: Tensor) -> Tensor:
            states = self.body(self.table(ids))
            self.last = states
            self.all = {"states": [states, (states * 2,)]}
            return super().forward(ids)

    torch.manual_seed(0)
    original = Remembers()
    original(IDS).sum().backward()
    quantized = quantize_dynamic(original)
    assert torch.equal(quantized.last, original.last.detach()) and quantized.last.grad_fn is None
    assert original.last.grad_fn is not None
    assert torch.equal(quantized(IDS), quantize_dynamic(original)(IDS))


def test_subclasses_are_converted_only_where_they_are_named() -> None:
    """(pitfall 10)"""

    class Own(nn.Linear):
        pass

    own = nn.Sequential(Own(4, 4), nn.Linear(4, 4))
    quantized = quantize_dynamic(own, {nn.Linear})
    assert actions(quantized) == {"0": "float", "1": "quantized"}
    assert report_of(quantized).of("0").reason == "a subclass of Linear: add Own or '0' to qconfig_spec to convert it"
    for spec in ({Own}, {"0"}):
        assert actions(quantize_dynamic(own, spec)) == {"0": "quantized", "1": "float"}


def test_hooks_survive_in_their_order() -> None:
    """(pitfall 11)"""
    calls: list[str] = []
    original = model()
    original.head.register_forward_pre_hook(lambda module, args: calls.append("first"))
    original.head.register_forward_pre_hook(lambda module, args, kwargs: calls.append("second"), with_kwargs=True)
    original.head.register_forward_hook(lambda module, args, kwargs, y: calls.append(type(module).__name__), with_kwargs=True)
    handle = original.head.register_forward_hook(lambda module, args, y: y * 0)
    original.register_forward_hook(lambda module, args, y: calls.append("model"))
    quantized = quantize_dynamic(original)
    assert not quantized(IDS).any()
    assert calls == ["first", "second", "QuantizedLinear", "model"]
    handle.remove()
    assert not quantized(IDS).any() and original(IDS).any()
    changed = quantize_dynamic(original, inplace=True)
    handle = changed.head.register_forward_hook(lambda module, args, y: y * 0)
    assert not changed(IDS).any()
    handle.remove()
    assert changed(IDS).any()


def test_recurrent_layers_stay_float_with_a_note() -> None:
    """(pitfalls 12, 13)"""

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(8, 8, proj_size=4)
            self.head = nn.Linear(4, 2)

        def forward(self, x: Any) -> Tensor:
            y: Tensor = self.head(self.lstm(x)[0].data)
            return y

    packed = nn.utils.rnn.pack_padded_sequence(torch.randn(5, 2, 8), torch.tensor([5, 3]))
    quantized = quantize_dynamic(Recurrent())
    assert quantized(packed).shape == (8, 2)
    assert report_of(quantized).of("lstm").action == "float"
    with pytest.warns(UserWarning, match="lstm .LSTM. stays float: fewbit has no quantized LSTM"):
        quantize_dynamic(Recurrent(), {nn.LSTM, nn.Linear})
    with pytest.warns(UserWarning, match="fewbit has no quantized EmbeddingBag"):
        quantize_dynamic(nn.Sequential(nn.EmbeddingBag(4, 4)), {nn.EmbeddingBag})


def test_the_report_lists_every_module_with_parameters() -> None:
    """(pitfall 13)"""
    quantized = quantize_dynamic(model(), {nn.Linear})
    assert actions(quantized) == {"table": "float", "body.0": "quantized", "body.1": "float", "body.2": "quantized", "head": "quantized"}
    report = report_of(quantized)
    assert str(report).splitlines()[0].split() == ["module", "type", "action", "reason"]
    assert ">body.1</td>" in report._repr_html_()
    assert not any("report" in key for key in quantized.state_dict())
    assert report_of(copy.deepcopy(quantized)) == report
    with pytest.raises(ValueError, match="expected a model that fewbit.torch converted"):
        report_of(model())


def test_layers_whose_forward_was_replaced_stay_float() -> None:
    replaced = nn.Sequential(nn.Linear(4, 4))
    replaced[0].forward = lambda x: x  # As accelerate does.
    with pytest.warns(UserWarning, match="its forward was replaced"):
        assert actions(quantize_dynamic(replaced)) == {"0": "float"}


def test_transformers_conv1d_counts_as_linear() -> None:
    pytorch_utils = pytest.importorskip("transformers.pytorch_utils")
    torch.manual_seed(0)
    layer = pytorch_utils.Conv1D(6, 8)
    quantized = quantize_dynamic(nn.Sequential(layer), {nn.Linear})[0]
    plain = nn.Linear(8, 6)
    plain.load_state_dict({"weight": layer.weight.t(), "bias": layer.bias})
    x = torch.randn(2, 3, 8)
    assert torch.equal(quantized(x), quantize_dynamic(plain)(x))
    assert quantized.weight.shape == layer.weight.shape and (quantized.nx, quantized.nf) == (8, 6)


def test_a_transformers_model_is_written_and_its_trainer_refuses_it(tmp_path: Any) -> None:
    """(pitfalls 29, 37)"""
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=32, n_positions=16)
    torch.manual_seed(0)
    original = transformers.GPT2ForSequenceClassification(config)
    quantized = quantize_dynamic(original, {nn.Linear})
    assert report_of(quantized).count("quantized") == 5
    assert quantized.dtype == torch.float32 and quantized.device.type == "cpu"
    assert quantized.num_parameters() == original.num_parameters()
    quantized.save_pretrained(tmp_path)
    from safetensors.torch import load_file

    loaded = fewbit.torch.load_state_dict(original, {**quantized.state_dict(), **load_file(tmp_path / "model.safetensors")})
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(loaded(ids).logits, quantized(ids).logits)
    with pytest.raises(ValueError, match="quantized"):
        transformers.Trainer(model=quantized, args=transformers.TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True))


def test_layers_of_every_type_are_found_by_their_types() -> None:
    many = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv1d(4, 4, 3), nn.Embedding(4, 4), nn.Linear(4, 4), nn.Conv3d(1, 1, 1))
    quantized = quantize_dynamic(many, {nn.Conv2d, nn.Conv1d, nn.Embedding, nn.Linear})
    assert [type(layer) for layer in quantized] == [QuantizedConvolution, QuantizedConvolution, QuantizedEmbedding, QuantizedLinear, nn.Conv3d]


def test_a_model_without_parameters_has_an_empty_report() -> None:
    assert report_of(quantize_dynamic(nn.Sequential(nn.ReLU()))) == []


class Encoder(nn.Module):
    """Stands for a transformers encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 16)
        self.dense = nn.Linear(16, 16)

    def forward(self, ids: Tensor) -> Tensor:
        y: Tensor = self.dense(self.table(ids)).mean(1)
        return y


class WithEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.head = nn.Linear(16, 3)

    def forward(self, ids: Tensor) -> Tensor:
        y: Tensor = self.head(self.encoder(ids))
        return y


@pytest.fixture
def swapped(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Makes whole encoders of :class:`Encoder`; the calls that did."""
    from fewbit.torch import encoders

    calls: list[dict[str, Any]] = []

    def swap(module: nn.Module, method: str, **options: Any) -> nn.Module | str:
        calls.append({"method": method, **options})
        return "it has inner hooks" if module.dense._forward_hooks else copy.deepcopy(module.table)

    monkeypatch.setattr(encoders, "is_encoder", lambda module: type(module) is Encoder)
    monkeypatch.setattr(encoders, "swap", swap)
    return calls


def test_whole_encoders_are_swapped_and_heads_become_layers(swapped: list[dict[str, Any]]) -> None:
    original = WithEncoder()
    quantized = quantize_dynamic(original, {nn.Linear, nn.Embedding}, "nf4", double_quant=True)
    assert actions(quantized) == {"encoder": "swapped", "head": "quantized"}
    assert type(quantized.encoder) is nn.Embedding and type(original.encoder) is Encoder
    assert swapped == [{"method": "nf4", "root": original, "quantize_embeddings": True, "block_size": 64, "double_quant": True}]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"qconfig_spec": {nn.Embedding}}, "not run whole: its linear layers are not asked for"),
        ({"qconfig_spec": {"head"}}, "not run whole: its linear layers are not asked for"),
        ({"qconfig_spec": {nn.Linear: "int8", "encoder.dense": None}}, "not run whole: encoder.dense is asked for by its name"),
        ({"backend": "x86"}, "not run whole: the arithmetic of x86 is that of single layers"),
    ],
)
def test_encoders_of_which_something_else_is_asked_are_not_swapped(swapped: list[dict[str, Any]], arguments: Any, reason: str) -> None:
    quantized = quantize_dynamic(WithEncoder(), **arguments)
    assert not swapped
    assert report_of(quantized).of("encoder").action == "layers"
    assert report_of(quantized).of("encoder").reason == reason


def test_encoders_that_cannot_be_swapped_have_their_layers_converted(swapped: list[dict[str, Any]]) -> None:
    original = WithEncoder()
    original.encoder.dense.register_forward_hook(lambda module, args, y: y * 0)
    quantized = quantize_dynamic(original)
    assert actions(quantized) == {"encoder": "layers", "encoder.table": "float", "encoder.dense": "quantized", "head": "quantized"}
    assert report_of(quantized).of("encoder").reason == "not run whole: it has inner hooks"
    assert not quantized.encoder(IDS).any()


def test_adapters_on_quantized_layers_are_an_error() -> None:
    """(pitfall 38)"""
    quantized = quantize_dynamic(model())
    # What PEFT and others ask before they wrap a layer.
    assert not isinstance(quantized.head, nn.Linear)
    peft = pytest.importorskip("peft")
    with pytest.raises(ValueError, match="not supported"):
        peft.get_peft_model(quantized, peft.LoraConfig(target_modules=["head"]))


def test_what_is_quantized_already_stays_as_it_is() -> None:
    once = quantize_dynamic(model(), {"head"}, "nf4")
    twice = quantize_dynamic(once)
    assert actions(twice) == {"table": "float", "body.0": "quantized", "body.1": "float", "body.2": "quantized", "head": "quantized"}
    assert report_of(twice).of("head").reason == "it was before: NF4 weights"
    assert (twice.head.method, twice.body[0].method) == ("nf4", "dynamic")
    assert torch.equal(twice.head.stored.packed, once.head.stored.packed)
