"""Training by any loop: adapters, the Trainer, several processes, mixed precision, checkpointing, and resuming."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import encoder_models  # noqa: E402
import qat_models  # noqa: E402
from qat_models import CONFIGS  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

import fewbit.torch as ft  # noqa: E402
from fewbit.torch.layers import QuantizedLinear  # noqa: E402
from fewbit.torch.native_encoder import NativeEncoder  # noqa: E402

torch.set_num_threads(1)


def sequential(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(32, 16), nn.GELU(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 4))


def data(steps: int) -> Any:
    return torch.randn(steps, 8, 32, generator=torch.Generator().manual_seed(7))


def step(model: Any, optimizer: Any, x: Any) -> Any:
    optimizer.zero_grad()
    loss = (model(x) - 1).pow(2).mean()
    loss.backward()
    optimizer.step()
    return loss.detach()


@pytest.mark.parametrize("scheme", CONFIGS)
def test_training_lowers_the_loss_and_resumes_exactly(scheme: str, tmp_path: Path) -> None:
    batches = data(12)

    def begin() -> tuple[Any, Any, Any]:
        model = ft.prepare_qat(sequential(), CONFIGS[scheme]).train()
        return model, torch.optim.AdamW(model.parameters(), lr=1e-2), ft.QATSchedule(model, start=2, freeze=9)

    model, optimizer, schedule = begin()
    losses = []
    for number, x in enumerate(batches):
        if number == 5:
            torch.save([part.state_dict() for part in (model, optimizer, schedule)], tmp_path / "checkpoint.pt")
        losses.append(step(model, optimizer, x))
        schedule.step()
    assert losses[-1] < 0.7 * losses[0]
    again, optimizer, schedule = begin()
    states = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    for part, state in zip((again, optimizer, schedule), states, strict=True):
        part.load_state_dict(state)
    for number, x in enumerate(batches[5:], start=5):
        assert step(again, optimizer, x).equal(losses[number]), number
        schedule.step()
    for name, tensor in model.state_dict().items():
        assert tensor.equal(again.state_dict()[name]), name
    first, second = ft.convert(model), ft.convert(again)
    assert first(batches[0]).equal(second(batches[0]))


def test_keys_of_parameters_stay_and_optimizers_from_before_go_on() -> None:
    model = sequential()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    keys = list(model.state_dict())
    weight = model[0].weight
    calls: list[int] = []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    prepared = ft.prepare_qat(model, "static", inplace=True)
    assert prepared is model
    assert isinstance(model[0], nn.Linear)
    assert model[0].weight is weight
    assert [key for key in model.state_dict() if "fake_quant" not in key] == keys
    before = weight.detach().clone()
    step(model.train(), optimizer, data(1)[0])
    assert not weight.equal(before)
    assert calls == [1]
    # A checkpoint of the float model loads where flags may be missing.
    missing = model.load_state_dict(sequential(3).state_dict(), strict=False)
    assert all("fake_quant" in key for key in missing.missing_keys)
    assert weight.equal(sequential(3)[0].weight)


def test_the_float_model_is_that_of_before_while_fake_quantization_is_off() -> None:
    model = sequential()
    prepared = ft.prepare_qat(model, CONFIGS["dynamic"]).train()
    x = data(1)[0]
    assert not prepared(x).equal(model(x))
    ft.disable_fake_quant(prepared)
    assert prepared(x).equal(model(x))
    ft.enable_fake_quant(prepared)
    assert not prepared(x).equal(model(x))
    # The original was copied.
    assert type(model[0]) is nn.Linear


def test_ranges_follow_training_alone_until_they_are_frozen() -> None:
    prepared = ft.prepare_qat(sequential(), CONFIGS["static"])
    quantizer = prepared[0].input_fake_quant
    first, second, third = (torch.full((2, 32), value) for value in (1.0, 3.0, 100.0))
    prepared.eval()(first)
    assert not quantizer.has_run
    prepared.train()(first)
    assert (quantizer.min_val.item(), quantizer.max_val.item()) == (1.0, 1.0)
    prepared(second)
    moved = torch.tensor(1.0) + 0.01 * (torch.tensor(3.0) - 1)
    assert quantizer.max_val.equal(moved)
    prepared.eval()(third)
    assert quantizer.max_val.equal(moved)
    prepared.train()
    ft.freeze(prepared)
    prepared(third)
    assert quantizer.max_val.equal(moved)
    ft.enable_observer(prepared)
    prepared(third)
    assert quantizer.max_val > moved
    ft.disable_observer(prepared)
    # Without observers it goes on being fake-quantized.
    assert quantizer.is_enabled()


def test_searched_scales_stay_between_searches_and_when_they_are_frozen() -> None:
    config = ft.Int4WeightOnlyConfig(group_size=16, scale_interval=3)
    prepared = ft.prepare_qat(sequential(), config, skip=["4"]).train()
    optimizer = torch.optim.SGD(prepared.parameters(), lr=0.5)
    scales = []
    for x in data(7):
        step(prepared, optimizer, x)
        scales.append(prepared[0].weight_fake_quant.scale.clone())
    assert scales[0].equal(scales[2])
    assert not scales[2].equal(scales[3])
    assert scales[3].equal(scales[5])
    ft.freeze(prepared)
    kept = prepared[0].weight_fake_quant.scale.clone()
    for x in data(4):
        step(prepared, optimizer, x)
    assert prepared[0].weight_fake_quant.scale.equal(kept)
    assert ft.convert(prepared)[0].stored.scales.equal(kept)


@pytest.mark.parametrize("scheme", CONFIGS)
def test_validation_between_steps_moves_nothing_while_observers_are_on(scheme: str) -> None:
    model = ft.prepare_qat(sequential(), CONFIGS[scheme]).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first, second, far = data(3)
    step(model, optimizer, first)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        validated = model.eval()(1000 * far)
        again = model(1000 * far)
    assert validated.equal(again)
    assert all(int(flag) == 1 for name, flag in before.items() if name.endswith("observer_enabled"))
    for name, tensor in model.state_dict().items():
        assert tensor.equal(before[name]), name
    step(model.train(), optimizer, second)


@pytest.mark.parametrize("scheme", CONFIGS)
def test_a_learning_rate_of_zero_trains_nothing_and_converts(scheme: str) -> None:
    model = ft.prepare_qat(sequential(), CONFIGS[scheme]).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    weights = {name: parameter.detach().clone() for name, parameter in sequential().named_parameters()}
    for x in data(3):
        step(model, optimizer, x)
    for name, parameter in model.named_parameters():
        assert name not in weights or parameter.equal(weights[name]), name
    # The codes are those that a model has which was prepared and not trained.
    fresh = ft.prepare_qat(sequential(), CONFIGS[scheme])
    converted = ft.convert(model)
    for name, layer in qat_models.layers(fresh).items():
        assert converted.get_submodule(name).weight.detach().equal(layer.stored().matrix().to(torch.float32)), name


@pytest.mark.parametrize(
    ("config", "other"),
    [
        ("dynamic", "W4A8, absmax"),
        ("W4A8, mse", "W4A8, learned"),
        ("W4A8, mse", "W4A8, asymmetric"),
        ("dynamic", "static"),
        ("static", "static, learned"),
        ("nf4", "nf4, double"),
        ("dynamic", "dynamic, learned"),
    ],
)
def test_a_training_that_resumes_with_another_config_is_an_error_that_tells_both(config: str, other: str) -> None:
    states = ft.prepare_qat(sequential(), CONFIGS[config]).state_dict()
    model = ft.prepare_qat(sequential(), CONFIGS[other])
    for strict in (True, False):
        with pytest.raises(RuntimeError, match=r"0: expected a state of `.*`, found one of `.*`\n  hint: a training goes on with the config that it began with"):
            model.load_state_dict(states, strict=strict)
    # The same one goes on, and so does a float checkpoint.
    ft.prepare_qat(sequential(), CONFIGS[config]).load_state_dict(states)


def test_learned_ranges_of_inputs_follow_the_averages_and_then_the_gradient() -> None:
    config = ft.Int8StaticActivationInt8WeightConfig(input_scales="learned", observed_steps=2)
    model = ft.prepare_qat(sequential(), config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    quantizer = model[0].input_fake_quant
    seen = []
    for x in data(4):
        step(model, optimizer, x)
        scale, zero_point = quantizer._of_range()
        seen.append((quantizer.scale.item(), quantizer.zero_point.item(), scale.item(), zero_point.item(), quantizer.steps.item()))
    assert [row[4] for row in seen] == [1, 2, 3, 3]
    # Until then both follow the averages; they move in the first step that has no observer.
    assert seen[2][2:4] == seen[1][2:4]
    assert seen[2][0] != seen[2][2]
    ft.freeze(model)
    scale = quantizer.scale.item()
    step(model, optimizer, data(1)[0])
    assert quantizer.scale.item() != scale
    found = quantizer.parameters_of_codes()
    assert found == (abs(quantizer.scale.item()), round(quantizer.zero_point.item()))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("scheme", ["dynamic", "static", "W4A8, mse", "W4A8, learned"])
def test_gradient_checkpointing_changes_nothing(scheme: str, reentrant: bool) -> None:
    found: list[Any] = []
    for checkpointed in (False, True):
        model = ft.prepare_qat(sequential(), CONFIGS[scheme]).train()
        for x in data(3):
            inputs = x.clone().requires_grad_()
            y = checkpoint(model, inputs, use_reentrant=reentrant) if checkpointed else model(inputs)
            y.pow(2).mean().backward()
        found.append(model)
    for (name, one), (_, other) in zip(found[0].named_parameters(), found[1].named_parameters(), strict=True):
        assert one.grad.equal(other.grad), name
    # Neither ranges nor counts saw the repetition.
    for (name, one), (_, other) in zip(found[0].named_buffers(), found[1].named_buffers(), strict=True):
        assert one.equal(other), name


@pytest.mark.parametrize("scheme", ["dynamic", "static", "W4A8, learned", "nf4"])
def test_mixed_precision_has_the_codes_of_the_float32_weights(scheme: str) -> None:
    model = ft.prepare_qat(sequential(), CONFIGS[scheme]).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for x in data(6):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = model(x)
            loss = (y.float() - 1).pow(2).mean()
        assert y.dtype == torch.bfloat16
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    with qat_models.used_weights(model) as used, torch.autocast("cpu", dtype=torch.bfloat16):
        model(data(1)[0])
    converted = ft.convert(model)
    for name, weight in used.items():
        assert converted.get_submodule(name).weight.detach().equal(weight), name


def test_a_model_in_bfloat16_is_trained_in_bfloat16() -> None:
    model = ft.prepare_qat(sequential().to(torch.bfloat16), CONFIGS["W4A8, learned"]).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = step(model, optimizer, data(1)[0].bfloat16())
    for _ in range(5):
        after = step(model, optimizer, data(1)[0].bfloat16())
    assert after < before
    converted = ft.convert(model)
    assert converted(data(1)[0].bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("scheme", ["dynamic", "W4A8, learned"])
def test_adapters_train_the_merged_weight(scheme: str) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    encoder = encoder_models.encoder("bert")
    adapted = peft.get_peft_model(encoder, peft.LoraConfig(r=4, target_modules=["query", "value"], lora_dropout=0.0))
    prepared = ft.prepare_qat(adapted, CONFIGS[scheme], inplace=True)
    batch = encoder_models.batch()
    frozen = {name: parameter.detach().clone() for name, parameter in prepared.named_parameters() if not parameter.requires_grad}
    qat_models.train(prepared, lambda: prepared(**batch).last_hidden_state.pow(2).mean(), lr=1e-2)
    assert all(parameter.equal(frozen[name]) for name, parameter in prepared.named_parameters() if name in frozen)
    with qat_models.used_weights(prepared) as used:
        prepared(**batch)
    query = next(name for name in used if name.endswith("layer.0.attention.self.query"))
    layer = prepared.get_submodule(query)
    merged = layer.get_base_layer().weight + layer.get_delta_weight("default")
    assert used[query].equal(layer.weight_fake_quant(merged).detach())
    converted = ft.convert(prepared)
    assert isinstance(converted, NativeEncoder)
    weights = converted.dequantize().state_dict()
    for name, weight in used.items():
        assert weights[f"{name.removeprefix('base_model.model.')}.weight"].equal(weight), name


def test_adapters_with_dropout_stay_float_with_a_warning() -> None:
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(encoder_models.encoder("bert"), peft.LoraConfig(target_modules=["query"], lora_dropout=0.1))
    with pytest.warns(UserWarning, match="its adapter has dropout, which a merged weight cannot have"):
        prepared = ft.prepare_qat(adapted, "dynamic")
    assert ft.report_of(prepared).count("fake-quantized") == 10


def test_the_trainer_of_transformers_trains_saves_and_resumes(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    config = encoder_models.CONFIGS["bert"]()
    examples = [
        {"input_ids": row.tolist(), "attention_mask": [1] * 8, "labels": int(row[0]) % 2}
        for row in torch.randint(5, encoder_models.VOCABULARY, (16, 8), generator=torch.Generator().manual_seed(2))
    ]

    def trainer(directory: str, **options: Any) -> Any:
        torch.manual_seed(0)
        model = transformers.BertForSequenceClassification(config)
        ft.prepare_qat(model, CONFIGS["static"], inplace=True)
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path / directory), per_device_train_batch_size=4, max_steps=8, save_steps=4, learning_rate=1e-3,
            report_to=[], use_cpu=True, seed=3, gradient_checkpointing=True, disable_tqdm=True, **options,
        )  # fmt: skip
        return transformers.Trainer(model=model, args=arguments, train_dataset=examples, callbacks=[ft.trainer_callback(model, start=2, freeze=7)])

    whole = trainer("whole")
    whole.train()
    resumed = trainer("resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    for (name, one), (_, other) in zip(whole.model.state_dict().items(), resumed.model.state_dict().items(), strict=True):
        assert one.equal(other), name
    assert not bool(whole.model.bert.encoder.layer[0].output.dense.input_fake_quant.observer_enabled)
    converted = ft.convert(whole.model)
    converted.save_pretrained(tmp_path / "written")
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "written")
    assert loaded.config.quantization_config.quant_method == "compressed-tensors"


PROCESS = """
import sys
import torch
from torch import nn
import fewbit.torch as ft
torch.set_num_threads(1)
rank, file, config = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(32, 16), nn.GELU(), nn.Linear(16, 4))
bases = {
    "static": ft.Int8StaticActivationInt8WeightConfig(),
    "static, learned": ft.Int8StaticActivationInt8WeightConfig(input_scales="learned", observed_steps=2),
    "W4A8": ft.Int8DynamicActivationInt4WeightConfig(group_size=16, scales="learned"),
}
base = bases[config]
ft.prepare_qat(model, base, inplace=True)
parallel = nn.parallel.DistributedDataParallel(model.train())
optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1)
batches = torch.randn(4, 2, 8, 32, generator=torch.Generator().manual_seed(5))
for batch in batches:
    optimizer.zero_grad()
    (parallel(batch[rank]) - 1).pow(2).mean().backward()
    optimizer.step()
# Buffers of the first process are those of all when the next pass begins.
with torch.no_grad():
    parallel(batches[0, 0])
torch.save(ft.convert(model).state_dict(), f"{file}-{rank}.pt")
torch.distributed.destroy_process_group()
"""


@pytest.mark.parametrize("config", ["static", "static, learned", "W4A8"])
def test_processes_that_train_together_convert_to_the_same_codes(config: str, tmp_path: Path) -> None:
    file = tmp_path / "meeting"
    processes = [subprocess.Popen([sys.executable, "-c", PROCESS, str(rank), str(file), config], stderr=subprocess.PIPE, text=True) for rank in (0, 1)]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    one, other = (torch.load(f"{file}-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.equal(other[name]), name


def test_prepared_models_are_copied_and_pickled(tmp_path: Path) -> None:
    model = ft.prepare_qat(sequential(), CONFIGS["W4A8, learned"]).train()
    x = data(1)[0]
    step(model, torch.optim.SGD(model.parameters(), lr=0.1), x)
    expected = model(x)
    twin = copy.deepcopy(model)
    assert twin(x).equal(expected)
    torch.save(model, tmp_path / "model.pt")
    assert torch.load(tmp_path / "model.pt", weights_only=False)(x).equal(expected)
    ft.disable_fake_quant(twin)
    assert model(x).equal(expected)
    assert not twin(x).equal(expected)


def test_a_module_in_two_places_stays_one() -> None:
    torch.manual_seed(0)
    shared = nn.Linear(16, 16)
    model = nn.Sequential(nn.Linear(32, 16), shared, nn.Tanh(), shared)
    prepared = ft.prepare_qat(model, CONFIGS["static"]).train()
    assert prepared[1] is prepared[3]
    assert "the same module as 1" in ft.report_of(prepared).of("3").reason
    qat_models.train(prepared, lambda: prepared(data(1)[0]).pow(2).mean())
    assert prepared[1].weight_fake_quant.steps.item() == 6
    converted = ft.convert(prepared)
    assert converted[1] is converted[3]
    assert isinstance(converted[1], QuantizedLinear)


class Tied(nn.Module):
    """Words in and words out, by one table."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(12, 16)
        self.out = nn.Linear(16, 12, bias=False)
        self.out.weight = self.words.weight

    def forward(self, ids: Any) -> Any:
        return self.out(self.words(ids))


def test_tied_weights_stay_tied_where_their_codes_are_the_same() -> None:
    torch.manual_seed(0)
    ids = torch.tensor([1, 5, 11])
    prepared = ft.prepare_qat(Tied(), "dynamic", {nn.Linear, nn.Embedding})
    qat_models.train(prepared, lambda: prepared(ids).pow(2).mean())
    assert prepared.out.weight is prepared.words.weight
    converted = ft.convert(prepared)
    assert converted.out.stored is converted.words.stored
    prepared = ft.prepare_qat(Tied(), ft.Int4WeightOnlyConfig(group_size=16), {nn.Linear, nn.Embedding})
    qat_models.train(prepared, lambda: prepared(ids).pow(2).mean())
    with pytest.warns(UserWarning, match="words and out shared a weight and do so no longer"):
        ft.convert(prepared)
