"""Which encoders are not swapped whole, and the reason that is given."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from encoder_models import CONFIGS, batch, encoder  # noqa: E402
from torch import nn  # noqa: E402

import fewbit.torch  # noqa: E402
from fewbit.torch.encoders import is_encoder, swap  # noqa: E402
from fewbit.torch.native_encoder import NativeEncoder  # noqa: E402

torch.set_num_threads(1)


def reason(module: Any, **options: Any) -> str:
    found = swap(module, "dynamic", **options)
    assert isinstance(found, str), "it was swapped"
    return found


def test_a_hook_inside_is_a_reason() -> None:
    """(pitfall 24)"""
    module = encoder("bert")
    module.encoder.layer[0].register_forward_hook(lambda *_: None)
    assert "encoder.layer.0 has a hook" in reason(module)


def test_hooks_that_transformers_installs_are_none() -> None:
    module = encoder("bert")
    module(**batch(), output_hidden_states=True)
    assert isinstance(swap(module, "dynamic"), NativeEncoder)


def test_hooks_on_the_encoder_go_with_it() -> None:
    module = encoder("bert")
    seen: list[Any] = []
    module.register_forward_hook(lambda _, args, kwargs, output: seen.append((args, kwargs, output)), with_kwargs=True)
    module.register_forward_pre_hook(lambda _, args: seen.append(args))
    native: Any = swap(module, "dynamic")
    assert not seen
    output = native(**batch())
    assert len(seen) == 2
    assert seen[1][2] is output


def test_peft_layers_are_a_reason() -> None:
    """Layers of other classes than those of torch and transformers, as PEFT puts them in (pitfall 24)."""

    class LoraLinear(nn.Linear):
        pass

    module = encoder("bert")
    module.encoder.layer[0].attention.self.query = LoraLinear(32, 32)
    assert "LoraLinear" in reason(module)


def test_peft_itself_is_a_reason() -> None:
    """(pitfall 24)"""
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(encoder("bert"), peft.LoraConfig(target_modules=["query"]))
    assert "query" in reason(model.base_model.model)


def test_an_overridden_forward_is_a_reason() -> None:
    """Of a subclass, of the object, of a layer (pitfall 24)."""

    class Mine(transformers.BertModel):  # type: ignore[misc, name-defined]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return super().forward(*args, **kwargs)

    assert is_encoder(Mine(CONFIGS["bert"]()))
    assert "class of its own" in reason(Mine(CONFIGS["bert"]()))
    module = encoder("bert")
    module.forward = module.forward
    assert "another forward" in reason(module)
    module = encoder("bert")
    module.pooler.forward = lambda states: states[:, 0]
    assert "pooler has another forward" in reason(module)


def test_parametrizations_are_a_reason() -> None:
    """(pitfall 24)"""
    module = encoder("bert")
    torch.nn.utils.parametrizations.weight_norm(module.encoder.layer[1].output.dense)
    assert "encoder.layer.1.output.dense" in reason(module)


@pytest.mark.parametrize("change", ["activation", "epsilon", "fewer layers", "identity"])
def test_changes_that_the_configuration_does_not_tell_are_a_reason(change: str) -> None:
    module = encoder("bert")
    if change == "activation":
        module.encoder.layer[0].intermediate.intermediate_act_fn = nn.ReLU()
    elif change == "epsilon":
        module.encoder.layer[0].output.LayerNorm = nn.LayerNorm(32, eps=0.1)
    elif change == "fewer layers":
        module.encoder.layer = module.encoder.layer[:1]
    else:
        module.encoder.layer[1].output.LayerNorm = nn.Identity()
    assert "encoder.layer" in reason(module)


def test_dropout_is_no_reason() -> None:
    module = encoder("bert")
    module.embeddings.dropout = nn.Dropout(0.5)
    assert isinstance(swap(module, "dynamic"), NativeEncoder)


def test_layers_that_the_model_uses_by_themselves_are_a_reason() -> None:
    """(pitfall 24)"""

    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = encoder("bert")
            self.first = self.bert.encoder.layer[0]

    model = First()
    assert "used by itself, as first" in reason(model.bert, root=model)
    assert isinstance(swap(encoder("bert"), "dynamic", root=nn.Sequential(encoder("bert"))), NativeEncoder)


def test_layers_of_a_swapped_encoder_are_not_there_one_by_one() -> None:
    native: Any = swap(encoder("bert"), "dynamic")
    with pytest.raises(AttributeError, match=r"dequantize\(\)"):
        native.encoder.layer[0]
    with pytest.raises(AttributeError, match="nothing"):
        native.nothing


def test_a_model_that_is_quantized_already_is_refused() -> None:
    module = encoder("bert")
    module.pooler.dense.weight = nn.Parameter(torch.zeros(32, 32, dtype=torch.int8), requires_grad=False)
    assert "quantized before" in reason(module)


def test_a_model_elsewhere_than_on_the_cpu_is_refused() -> None:
    assert "meta" in reason(encoder("bert").to("meta"))


def test_weights_that_are_not_finite_are_refused_by_name() -> None:
    module = encoder("bert")
    with torch.no_grad():
        module.encoder.layer[1].intermediate.dense.weight[3, 4] = float("nan")
    assert "encoder.layer.1.intermediate.dense.weight" in reason(module)


def test_what_the_configuration_asks_for_and_fewbit_has_not_is_refused_in_its_words() -> None:
    config = CONFIGS["bert"]()
    config.is_decoder = True
    assert "is_decoder" in reason(transformers.BertModel(config))


def test_pytorchs_backends_are_for_single_layers() -> None:
    assert "whole batch" in reason(encoder("bert"), backend="fbgemm")


def test_an_option_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(TypeError, match="block_sise"):
        swap(encoder("bert"), "nf4", block_sise=64)


def test_the_encoder_stays_as_it_was() -> None:
    module = encoder("bert").train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    configuration = module.config.to_dict()
    state = torch.get_rng_state()
    swap(module, "dynamic")
    assert torch.equal(torch.get_rng_state(), state)
    assert module.training
    assert module.config.to_dict() == configuration
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_options_reach_the_recipe() -> None:
    large: Any = swap(encoder("bert"), "nf4", double_quant=True, block_size=128)
    names = set(large.state_dict())
    assert any(name.endswith("nested_absmax") for name in names)
    table: Any = swap(encoder("bert"), "dynamic", quantize_embeddings=True)
    assert table.state_dict()["embeddings.word_embeddings.weight"].dtype == torch.int8


@pytest.mark.parametrize(
    "change, named",
    [
        (lambda model: setattr(model.encoder.layer[0].attention.self, "scaling", 1.0), "encoder.layer.0.attention.self.scaling is 1.0"),
        (lambda model: setattr(model.embeddings, "position_ids", model.embeddings.position_ids.flip(1)), "embeddings.position_ids has other values"),
        (lambda model: model.embeddings.token_type_ids.fill_(1), "embeddings.token_type_ids has other values"),
    ],
    ids=["scale of attention", "positions", "types"],
)
def test_changed_numbers_and_buffers_are_a_reason(change: Any, named: str) -> None:
    """(pitfall 24)"""
    model = encoder("bert")
    change(model)
    assert named in str(swap(model, "dynamic"))
