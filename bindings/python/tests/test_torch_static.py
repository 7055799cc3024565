"""prepare, run data, convert."""

from __future__ import annotations

import copy
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from encoder_models import CONFIGS, TwoHeads, batch, encoder  # noqa: E402
from torch import nn  # noqa: E402

import fewbit.torch  # noqa: E402
from fewbit import FewbitError  # noqa: E402
from fewbit.torch import static  # noqa: E402
from fewbit.torch.encoders import encoders_in  # noqa: E402
from fewbit.torch.layers import convert_layer  # noqa: E402
from fewbit.torch.native_encoder import NativeEncoder  # noqa: E402
from fewbit.torch.qconfig import QConfig, get_default_qconfig, read_qconfig  # noqa: E402
from fewbit.torch.report import report_of  # noqa: E402

torch.set_num_threads(1)

BATCHES = [batch(seed=seed) for seed in range(4)]


def calibrated(model: nn.Module, **options: Any) -> nn.Module:
    prepared = static.prepare(model, **options)
    static.calibrate(prepared, BATCHES)
    return prepared


@pytest.mark.parametrize("backend", ["native", "fbgemm", "x86", "qnnpack", "onednn"])
def test_a_model_of_ones_own_goes_through_the_three_steps(backend: str) -> None:
    model = TwoHeads(encoder("electra")).eval()
    expected = model(**BATCHES[0])
    converted: Any = static.convert(calibrated(model, backend=backend))
    assert isinstance(converted.encoder, NativeEncoder)
    assert converted.encoder.method == "static"
    found = converted(**BATCHES[0])
    for name, there in expected.items():
        # 7 bits of activations with the backends of servers: a few steps of the greatest value.
        assert (found[name] - there).abs().max() < 0.1 * there.abs().max(), name
    assert report_of(converted).of("encoder").action == "swapped"
    # Neither the model nor the prepared one was touched.
    assert not isinstance(model.encoder, NativeEncoder)
    assert all(torch.equal(model(**BATCHES[0])[name], there) for name, there in expected.items())


@pytest.mark.parametrize("family", [family for family in CONFIGS if family not in ("qwen3", "gemma3")])
def test_every_family_gets_the_scales_of_its_sites(family: str) -> None:
    model = encoder(family)
    converted: Any = static.convert(calibrated(model))
    assert isinstance(converted, NativeEncoder)
    scales = [name for name in converted.state_dict() if name.endswith("input_scale")]
    linears = [name for name, module in model.named_modules() if type(module) is nn.Linear and not name.startswith("pooler")]
    assert len(scales) == len(linears)


def test_ranges_are_those_of_pytorchs_observers() -> None:
    """Scale and zero point of a layer's input, bit for bit, with the qconfig of PyTorch."""
    from torch.ao.quantization import HistogramObserver, get_default_qconfig as torch_qconfig  # noqa: I001

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 4))
    data = [torch.randn(5, 8) for _ in range(3)]
    prepared = static.prepare(model, qconfig=torch_qconfig("fbgemm"))
    observer = HistogramObserver.with_args(reduce_range=True)()
    for values in data:
        prepared(values)
        observer(values)
    scale, zero_point = observer.calculate_qparams()
    found = prepared.__dict__["_fewbit_prepared"].decided()["static_inputs"]["0"]
    assert found["scale"] == scale.item()
    # Codes are signed here: 64 less of 7 bits.
    assert found["zero_point"] == zero_point.item() - 64


def test_convolutions_get_the_scales_that_pytorchs_observers_find() -> None:
    """Scale and zero point bit for bit, and the outputs of layers that are made with them; what has no static form stays float."""
    from torch.ao.quantization import MinMaxObserver, QConfig as TorchQConfig, default_per_channel_weight_observer  # noqa: I001

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.Flatten(2), nn.Conv1d(8, 4, 3, padding=1))
    data = [torch.randn(2, 3, 9, 9) for _ in range(3)]
    activation = MinMaxObserver.with_args(dtype=torch.quint8)
    prepared = static.prepare(model, qconfig=TorchQConfig(activation=activation, weight=default_per_channel_weight_observer))
    observers = {name: activation() for name in ("0", "2", "4")}
    for values in data:
        assert torch.equal(prepared(values), model(values))
        for name, layer in model.named_children():
            if name in observers:
                observers[name](values.detach())
            values = layer(values)
    converted: Any = static.convert(prepared)
    x = torch.randn(2, 3, 9, 9)
    for name, layer in model.named_children():
        if name in observers:
            scale, zero_point = observers[name].calculate_qparams()
            expected = convert_layer(layer, "static", input_scale=scale.item(), input_zero_point=zero_point.item() - 128)
            assert torch.equal(converted[int(name)](x), expected(x)), name
        x = layer(x)
    assert [module.reason for module in report_of(converted)] == ["static"] * 3


def replica_of(model: nn.Module) -> nn.Module:
    """What DataParallel makes of a model for each device: modules that share all that is not a tensor or a module."""
    replicas = {module: module._replicate_for_data_parallel() for module in model.modules()}
    for module, replica in replicas.items():
        for name, child in module._modules.items():
            replica._modules[name] = None if child is None else replicas[child]
        for name, parameter in module._parameters.items():
            setattr(replica, name, parameter)
    return replicas[model]


def test_replicas_in_threads_show_the_prepared_model_what_they_see() -> None:
    """Each with the mask of its own batch (pitfall 39)."""
    qconfig = QConfig(activation={"observer": "min_max", "dtype": "quint8", "qscheme": "per_tensor_affine"}, weight=get_default_qconfig("native").weight)
    alone, shared = (static.prepare(TwoHeads(encoder("bert")).eval(), qconfig=qconfig, backend="native") for _ in range(2))
    given = [batch(lengths, seed=seed) for seed, lengths in enumerate([(9, 2, 3), (4, 9, 1)] * 8)]
    for inputs in given:
        alone(**inputs)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda inputs: replica_of(shared)(**inputs), given))
    expected, found = (model.__dict__["_fewbit_prepared"].decided()["static_inputs"] for model in (alone, shared))
    assert len(found) >= 12
    assert found == expected


def test_padding_is_not_observed() -> None:
    """What the native encoder does not compute does not widen its ranges."""
    model = encoder("bert")
    first, second = static.prepare(model), static.prepare(model)
    wide = {name: torch.nn.functional.pad(tensor, (0, 20)) for name, tensor in BATCHES[0].items()}
    first(**BATCHES[0])
    second(**wide)
    found = [json.loads(prepared.__dict__["_fewbit_prepared"].native.statistics()) for prepared in (first, second)]
    query = [next(site for site in one["sites"] if site["site"].endswith("0.attention.self.query")) for one in found]
    assert query[0]["statistics"] == query[1]["statistics"]


def test_qconfigs_of_pytorch_are_read() -> None:
    from torch.ao import quantization

    for backend in ("fbgemm", "x86", "qnnpack", "onednn"):
        ours = get_default_qconfig(backend)
        assert read_qconfig(quantization.get_default_qconfig(backend)).activation == ours.activation
        assert read_qconfig(quantization.get_default_qconfig(backend)).weight == ours.weight
    moving = quantization.QConfig(
        activation=quantization.MovingAverageMinMaxObserver.with_args(dtype=torch.quint8, averaging_constant=0.1),
        weight=quantization.default_weight_observer,
    )
    assert read_qconfig(moving).activation["averaging_constant"] == 0.1
    with pytest.raises(ValueError, match="PlaceholderObserver"):
        read_qconfig(quantization.QConfig(activation=quantization.PlaceholderObserver, weight=quantization.default_weight_observer))
    with pytest.raises(TypeError, match="get_default_qconfig"):
        read_qconfig("fbgemm")


def test_a_qconfig_on_the_model_is_taken() -> None:
    """As scripts of PyTorch set it."""
    from torch.ao import quantization

    model: Any = TwoHeads(encoder("bert"))
    model.qconfig = quantization.get_default_qconfig("qnnpack")
    prepared = static.prepare(model)
    assert prepared.__dict__["_fewbit_prepared"].qconfig == get_default_qconfig("qnnpack")
    assert isinstance(get_default_qconfig("native"), QConfig)


def test_steps_in_the_wrong_order_are_value_errors() -> None:
    model = TwoHeads(encoder("bert"))
    with pytest.raises(ValueError, match=r"Must call prepare\(\) first!"):
        static.calibrate(model, BATCHES)
    with pytest.raises(ValueError, match=r"Must call prepare\(\) first!"):
        static.convert(model)
    with pytest.raises(ValueError, match=r"Must call calibrate\(\) first!"):
        static.convert(static.prepare(model))
    with pytest.raises(ValueError, match="unknown backend"):
        static.prepare(model, backend="gpu")
    with pytest.raises(ValueError, match="linear layers"):
        static.prepare(nn.Sequential(nn.ReLU()))


def test_batches_come_as_dicts_tuples_tensors_and_texts() -> None:
    model = TwoHeads(encoder("bert"))

    def tokenizer(texts: list[str], **_: Any) -> dict[str, Any]:
        return batch(tuple(len(text) for text in texts), seed=len(texts))

    found = []
    for given in (
        [{**BATCHES[0], "labels": torch.zeros(3)}],
        [(BATCHES[0]["input_ids"], BATCHES[0]["attention_mask"])],
        [["a text", "another"]],
        ["a text"],
    ):
        prepared = static.prepare(model)
        static.calibrate(prepared, given, tokenizer=tokenizer)
        found.append(static.convert(prepared))
    assert all(isinstance(model.encoder, NativeEncoder) for model in found)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "at least one batch"),
        ([{"ids": torch.zeros(1, 2)}], "expected keys among"),
        ([["a text"]], "tokenizer="),
        ([{}], "found none"),
    ],
)
def test_batches_without_what_the_model_takes_are_value_errors(given: list[Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        static.calibrate(static.prepare(TwoHeads(encoder("bert"))), given)


def test_a_batch_of_another_type_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="found int"):
        static.calibrate(static.prepare(TwoHeads(encoder("bert"))), [3])


def test_the_number_of_batches_is_kept_to() -> None:
    seen = []

    def given() -> Any:
        for one in BATCHES:
            seen.append(one)
            yield one

    static.calibrate(static.prepare(TwoHeads(encoder("bert"))), given(), num_batches=2)
    assert len(seen) == 2


def test_nan_at_the_input_of_a_layer_is_an_error() -> None:
    prepared = static.prepare(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(FewbitError, match=r"NaN|finite"):
        prepared(torch.tensor([[float("nan"), 0.0]]))


def test_a_prepared_model_is_copied_with_what_it_has_seen() -> None:
    prepared = calibrated(TwoHeads(encoder("bert")))
    expected: Any = static.convert(prepared)
    found: Any = static.convert(copy.deepcopy(prepared))
    assert torch.equal(found(**BATCHES[0])["topic"], expected(**BATCHES[0])["topic"])


def test_converting_in_place_exchanges_the_modules_of_the_model() -> None:
    prepared: Any = calibrated(TwoHeads(encoder("bert")))
    converted = static.convert(prepared, inplace=True)
    assert converted is prepared
    assert isinstance(prepared.encoder, NativeEncoder)
    assert not list(encoders_in(prepared))
    assert not prepared.topic._forward_pre_hooks


@pytest.mark.filterwarnings("ignore:unused .* stays float")
def test_layers_that_were_not_called_stay_float_and_are_reported() -> None:
    class Unused(TwoHeads):
        def __init__(self) -> None:
            super().__init__(encoder("bert"))
            self.unused = nn.Linear(2, 2)

    converted: Any = static.convert(calibrated(Unused()))
    assert type(converted.unused) is nn.Linear
    assert "not seen" in report_of(converted).of("unused").reason


def test_a_classifier_of_transformers_goes_through_the_three_steps() -> None:
    config = CONFIGS["bert"]()
    model = transformers.BertForSequenceClassification(config).eval()
    converted: Any = static.convert(calibrated(model))
    assert isinstance(converted.bert, NativeEncoder)
    assert converted(**BATCHES[0]).logits.shape == (3, 2)


def test_qconfigs_of_modules_choose_what_is_quantized() -> None:
    """As in PyTorch: None leaves a module float, and where only some modules have one, all others stay float."""
    from torch.ao.quantization import get_default_qconfig as torch_qconfig

    def model() -> Any:
        torch.manual_seed(0)
        return nn.ModuleDict({"a": nn.Linear(8, 8), "b": nn.Sequential(nn.Linear(8, 8), nn.ReLU())})

    def actions(given: Any) -> dict[str, str]:
        prepared = static.prepare(given, backend="fbgemm")
        for part in prepared.values():
            part(torch.randn(4, 8))
        return {module.name: module.action for module in report_of(static.convert(prepared))}

    whole = model()
    whole.qconfig = torch_qconfig("fbgemm")
    whole["b"].qconfig = None
    assert actions(whole) == {"a": "quantized", "b.0": "float"}
    part = model()
    part["b"].qconfig = torch_qconfig("fbgemm")
    assert actions(part) == {"a": "float", "b.0": "quantized"}
    part["a"].qconfig = torch_qconfig("qnnpack")
    with pytest.raises(ValueError, match="expected the observers of"):
        static.prepare(part)


def test_a_layer_that_a_qconfig_leaves_out_stays_float_in_an_encoder() -> None:
    model = encoder("bert")
    model.encoder.layer[0].output.dense.qconfig = None
    converted: Any = static.convert(calibrated(model))
    assert isinstance(converted, NativeEncoder)
    state = converted.state_dict()
    assert state["encoder.layer.0.output.dense.weight"].is_floating_point()
    assert not state["encoder.layer.1.output.dense.weight"].is_floating_point()


def test_masks_without_a_token_are_not_calibrated_on() -> None:
    prepared = static.prepare(TwoHeads(encoder("bert")))
    with pytest.raises(ValueError, match="expected a token that counts"):
        static.calibrate(prepared, [{**BATCHES[0], "attention_mask": torch.zeros_like(BATCHES[0]["attention_mask"])}])


def test_a_prepared_model_is_neither_prepared_nor_quantized_again() -> None:
    prepared = static.prepare(TwoHeads(encoder("bert")))
    for again in (static.prepare, fewbit.torch.quantize_dynamic):
        with pytest.raises(ValueError, match="found one with observers"):
            again(prepared)
