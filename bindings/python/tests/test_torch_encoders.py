"""Whole encoders swapped for the native executor: what they compute."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from encoder_models import CONFIGS, batch, encoder, with_padding_ids  # noqa: E402

import fewbit.torch  # noqa: E402
from fewbit import FewbitError  # noqa: E402
from fewbit.torch.encoders import is_encoder, swap  # noqa: E402
from fewbit.torch.native_encoder import NativeEncoder  # noqa: E402

torch.set_num_threads(1)


def swapped(module: Any, method: str = "dynamic", **options: Any) -> NativeEncoder:
    found = swap(module, method, **options)
    assert isinstance(found, NativeEncoder), found
    return found


def kept(states: Any, mask: Any) -> Any:
    return states[mask != 0]


def padding_id(module: Any) -> int:
    return module.config.pad_token_id or 0


@pytest.mark.parametrize("family", CONFIGS)
def test_half_precision_gives_the_float_models_results(family: str) -> None:
    """Weights of 16 bits are exact here, so that the native executor must agree with transformers up to the order of float sums."""
    float_model = encoder(family)
    with torch.no_grad():
        for parameter in float_model.parameters():
            parameter.copy_(parameter.half().float())
    inputs = with_padding_ids(batch(), padding_id(float_model))
    expected = float_model(**inputs)
    found = swapped(float_model, "fp16")(**inputs)
    assert type(found) is type(expected)
    mask = inputs["attention_mask"]
    torch.testing.assert_close(kept(found.last_hidden_state, mask), kept(expected.last_hidden_state, mask), rtol=1e-4, atol=1e-4)
    assert (found.last_hidden_state[mask == 0] == 0).all()
    if expected.get("pooler_output") is not None:
        torch.testing.assert_close(found.pooler_output, expected.pooler_output, rtol=1e-4, atol=1e-4)


HEADS = [
    (head, family)
    for head in ("MaskedLM", "TokenClassification", "QuestionAnswering", "SequenceClassification")
    for family in CONFIGS
    if type(CONFIGS[family]()) in getattr(transformers, f"AutoModelFor{head}")._model_mapping
]


@pytest.mark.parametrize("head, family", HEADS)
@pytest.mark.filterwarnings("ignore:.* shared a weight and do so no longer")
def test_encoders_under_every_head_are_swapped(head: str, family: str) -> None:
    """With and without a pooler, which the configuration does not tell. Weights of 16 bits are exact here."""
    auto = getattr(transformers, f"AutoModelFor{head}")
    torch.manual_seed(0)
    model = auto.from_config(CONFIGS[family]()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half().float())
    quantized = fewbit.torch.quantize_dynamic(model, dtype=torch.float16)
    assert fewbit.torch.report_of(quantized).count("swapped") == 1
    inputs = with_padding_ids(batch(), padding_id(model))
    found, expected = quantized(**inputs), model(**inputs)
    mask = inputs["attention_mask"]
    for name, there in expected.items():
        if not isinstance(there, torch.Tensor):
            continue
        here = found[name]
        if there.shape[:2] == mask.shape:
            here, there = kept(here, mask), kept(there, mask)
        torch.testing.assert_close(here, there, rtol=1e-4, atol=1e-4)
    (native,) = (module for module in quantized.modules() if isinstance(module, NativeEncoder))
    assert native.dequantize().state_dict().keys() == dict(encoder_of(model).state_dict()).keys()


def encoder_of(model: Any) -> Any:
    return next(module for module in model.modules() if is_encoder(module))


@pytest.mark.parametrize("family", CONFIGS)
def test_left_padding_and_holes_give_the_float_models_results(family: str) -> None:
    """Where positions are looked up natively, where distances count by the dequantized model, and it says so (pitfall 21)."""
    float_model = encoder(family)
    with torch.no_grad():
        for parameter in float_model.parameters():
            parameter.copy_(parameter.half().float())
    native = swapped(float_model, "fp16")
    left = with_padding_ids(batch(left=True), padding_id(float_model))
    holes = batch()
    holes["attention_mask"][:, 2] = 0
    both = {**batch(left=True, seed=4), "attention_mask": batch(left=True)["attention_mask"]}
    for inputs in (left, holes, both):
        mask = inputs["attention_mask"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = native(**inputs).last_hidden_state
        expected = float_model(**inputs).last_hidden_state
        torch.testing.assert_close(kept(found, mask), kept(expected, mask), rtol=1e-4, atol=1e-4)


def test_holes_where_distances_count_are_computed_in_floats_with_a_warning() -> None:
    native = swapped(encoder("modernbert"))
    inputs = batch()
    inputs["attention_mask"][:, 2] = 0
    with pytest.warns(UserWarning, match="holes in attention_mask"):
        native(**inputs)


def test_holes_where_positions_are_looked_up_are_native() -> None:
    native = swapped(encoder("bert"))
    inputs = batch()
    inputs["attention_mask"][:, 2] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        states = native(**inputs).last_hidden_state
    assert (states[:, 2] == 0).all()


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_position_ids_are_those_of_the_float_model(family: str) -> None:
    float_model = encoder(family)
    with torch.no_grad():
        for parameter in float_model.parameters():
            parameter.copy_(parameter.half().float())
    inputs = batch((6, 6))
    positions = torch.tensor([[7, 3, 9, 4, 20, 11]])
    expected = float_model(**inputs, position_ids=positions).last_hidden_state
    found = swapped(float_model, "fp16")(**inputs, position_ids=positions).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["dynamic", "weight-only", "bf16", "nf4", "fp4"])
def test_every_method_is_near_the_float_model(method: str) -> None:
    """1 - cosine of the hidden states is below what each method's step costs on random weights: 8 bits 1e-3, 4 bits 5e-2."""
    float_model = encoder("bert")
    inputs = batch()
    mask = inputs["attention_mask"]
    expected = kept(float_model(**inputs).last_hidden_state, mask)
    found = kept(swapped(float_model, method)(**inputs).last_hidden_state, mask)
    distance = 1 - torch.nn.functional.cosine_similarity(found, expected).mean()
    assert distance < (5e-2 if method in ("nf4", "fp4") else 1e-3)


def test_output_length_equals_input_length() -> None:
    """Also with columns that are padding in every sequence (pitfall 19)."""
    inputs = batch((5, 3))
    wide = {name: torch.nn.functional.pad(tensor, (0, 4)) for name, tensor in inputs.items()}
    assert swapped(encoder("bert"))(**wide).last_hidden_state.shape == (2, 9, 32)


def test_padded_positions_are_zero() -> None:
    """And so pooling over the mask is what it was (pitfall 20)."""
    inputs = batch()
    mask = inputs["attention_mask"]
    states = swapped(encoder("bert"))(**inputs).last_hidden_state
    assert (states[mask == 0] == 0).all()
    pooled = states.sum(dim=1) / mask.sum(dim=1, keepdim=True)
    by_mask = (states * mask.unsqueeze(-1)).sum(dim=1) / mask.sum(dim=1, keepdim=True)
    assert torch.equal(pooled, by_mask)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_unusual_inputs_are_computed_in_floats_and_said(family: str) -> None:
    """Attentions, embeddings as inputs, 3-D masks: as the float model with the quantized weights computes them (pitfall 22)."""
    float_model = encoder(family)
    float_model.set_attn_implementation("eager")
    native = swapped(float_model)
    dequantized: Any = native.dequantize()
    dequantized.set_attn_implementation("eager")
    inputs = batch((6, 6))
    with pytest.warns(UserWarning, match="output_attentions"):
        found = native(**inputs, output_attentions=True)
    expected = dequantized(**inputs, output_attentions=True)
    assert len(found.attentions) == len(expected.attentions) == 2
    assert torch.equal(found.attentions[0], expected.attentions[0])
    embeds = torch.randn(2, 6, 32)
    with pytest.warns(UserWarning, match="inputs_embeds"):
        found = native(inputs_embeds=embeds, attention_mask=inputs["attention_mask"])
    assert torch.equal(found.last_hidden_state, dequantized(inputs_embeds=embeds, attention_mask=inputs["attention_mask"]).last_hidden_state)


def test_a_mask_with_three_dimensions_is_computed_in_floats() -> None:
    """(pitfall 22)"""
    native = swapped(encoder("bert"))
    inputs = batch((6, 6))
    mask = torch.ones(2, 1, 6, 6, dtype=torch.bool).tril()
    with pytest.warns(UserWarning, match="attention_mask"):
        found = native(inputs["input_ids"], mask).last_hidden_state
    assert torch.equal(found, native.dequantize()(inputs["input_ids"], mask).last_hidden_state)


def test_a_head_mask_is_refused_or_as_in_transformers() -> None:
    """Never silently ignored where the float model would not ignore it (pitfall 22)."""
    native = swapped(encoder("bert"))
    inputs = batch((6, 6))
    with pytest.warns(UserWarning, match="head_mask"):
        native(**inputs, head_mask=torch.zeros(2, 4))


@pytest.mark.parametrize("family", CONFIGS)
def test_all_hidden_states_are_those_of_the_float_model(family: str) -> None:
    """(pitfall 23)"""
    float_model = encoder(family)
    with torch.no_grad():
        for parameter in float_model.parameters():
            parameter.copy_(parameter.half().float())
    inputs = with_padding_ids(batch(), padding_id(float_model))
    mask = inputs["attention_mask"]
    expected = float_model(**inputs, output_hidden_states=True)
    native = swapped(float_model, "fp16")
    found = native(**inputs, output_hidden_states=True)
    assert len(found.hidden_states) == len(expected.hidden_states)
    for here, there in zip(found.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(kept(here, mask), kept(there, mask), rtol=1e-4, atol=1e-4)
    assert torch.equal(found.last_hidden_state, native(**inputs).last_hidden_state)


def test_outputs_are_reached_in_every_way() -> None:
    """By attribute, by index, as a tuple; the configuration is there (pitfall 23)."""
    float_model = encoder("bert")
    native = swapped(float_model)
    inputs = batch()
    out = native(**inputs)
    assert torch.equal(out[0], out.last_hidden_state)
    assert torch.equal(out[1], out.pooler_output)
    as_tuple = native(**inputs, return_dict=False)
    assert isinstance(as_tuple, tuple)
    assert torch.equal(as_tuple[0], out.last_hidden_state)
    assert native.config.hidden_size == float_model.config.hidden_size
    assert native.config is not float_model.config
    positional = native(inputs["input_ids"], inputs["attention_mask"], torch.zeros_like(inputs["input_ids"]))
    assert torch.equal(positional.last_hidden_state, out.last_hidden_state)


def test_token_types_count() -> None:
    native = swapped(encoder("bert"))
    inputs = batch((6, 6))
    types = torch.tensor([[0, 0, 0, 1, 1, 1]] * 2)
    with_types = native(**inputs, token_type_ids=types).last_hidden_state
    assert not torch.equal(with_types, native(**inputs).last_hidden_state)


@pytest.mark.parametrize("family", ["bert", "modernbert", "deberta-v2"])
@pytest.mark.parametrize("method", ["dynamic", "nf4"])
def test_a_sequence_has_the_same_bits_in_any_batch_with_any_padding(family: str, method: str) -> None:
    """(pitfall 27)"""
    native = swapped(encoder(family), method)
    inputs = batch((9, 5, 7))
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    together = native(**inputs).last_hidden_state
    for row, length in enumerate((9, 5, 7)):
        alone = native(input_ids=ids[row : row + 1, :length]).last_hidden_state
        assert torch.equal(alone[0], together[row, :length])
    wide = native(input_ids=torch.nn.functional.pad(ids, (0, 6)), attention_mask=torch.nn.functional.pad(mask, (0, 6)))
    assert torch.equal(wide.last_hidden_state[:, :9], together)
    turned = native(input_ids=ids.flip(0), attention_mask=mask.flip(0)).last_hidden_state
    assert torch.equal(turned.flip(0), together)


def test_training_mode_raises_and_names_the_way_out() -> None:
    """(pitfall 25)"""
    native = swapped(encoder("bert"))
    native.train()
    with pytest.raises(RuntimeError, match=r"dequantize\(\)"):
        native(**batch())
    native.eval()
    native(**batch())


@pytest.mark.parametrize("family", CONFIGS)
def test_dequantize_restores_the_original_keys(family: str) -> None:
    """(pitfall 26)"""
    float_model = encoder(family)
    dequantized: Any = swapped(float_model).dequantize()
    assert type(dequantized) is type(float_model)
    expected = float_model.state_dict()
    found = dequantized.state_dict()
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        # Half a step of 8 bits, of the greatest weight.
        assert (found[name] - tensor).abs().max() <= tensor.abs().max() / 254 * 1.01, name
    assert all(parameter.requires_grad for parameter in dequantized.parameters())


def test_inputs_that_cannot_be_run_raise_with_words() -> None:
    native = swapped(encoder("bert"))
    with pytest.raises(FewbitError, match="vocabulary"):
        native(input_ids=torch.tensor([[1, 12345]]))
    with pytest.raises(FewbitError, match="at least one token"):
        native(input_ids=torch.tensor([[1, 2]]), attention_mask=torch.zeros(1, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="integers"):
        native(input_ids=torch.tensor([[1.0, 2.0]]))
    with pytest.raises(ValueError, match="sequences, length"):
        native(input_ids=torch.tensor([1, 2]))
    with pytest.raises(FewbitError, match="positions"):
        native(input_ids=torch.ones(1, 99, dtype=torch.int64))
    with pytest.raises(ValueError, match="CPU"):
        native(input_ids=torch.ones(1, 3, dtype=torch.int64, device="meta"))


def test_an_empty_batch_gives_an_empty_batch() -> None:
    states = swapped(encoder("bert"))(input_ids=torch.zeros(0, 5, dtype=torch.int64)).last_hidden_state
    assert states.shape == (0, 5, 32)


def test_integers_of_other_sizes_and_strides_are_taken() -> None:
    native = swapped(encoder("bert"))
    inputs = batch()
    expected = native(**inputs).last_hidden_state
    other = native(input_ids=inputs["input_ids"].int(), attention_mask=inputs["attention_mask"].bool()).last_hidden_state
    assert torch.equal(other, expected)
    strided = inputs["input_ids"].t().contiguous().t()
    assert torch.equal(native(strided, inputs["attention_mask"].float()).last_hidden_state, expected)


def test_a_model_in_bfloat16_gives_bfloat16() -> None:
    native = swapped(encoder("bert").to(torch.bfloat16))
    assert native.dtype == torch.bfloat16
    assert native(**batch()).last_hidden_state.dtype == torch.bfloat16


def test_several_threads_at_once_give_the_same_bits() -> None:
    """(pitfall 44)"""
    from concurrent.futures import ThreadPoolExecutor

    native = swapped(encoder("bert"))
    inputs = batch()
    expected = native(**inputs).last_hidden_state
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: native(**inputs).last_hidden_state, range(16)):
            assert torch.equal(found, expected)


def test_what_is_an_encoder() -> None:
    import transformers

    assert is_encoder(encoder("bert"))
    assert not is_encoder(torch.nn.Linear(2, 2))
    assert not is_encoder(transformers.BertForSequenceClassification(CONFIGS["bert"]()))
    assert not is_encoder(transformers.T5EncoderModel(transformers.T5Config(vocab_size=10, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)))


def test_a_fullgraph_compilation_runs_it() -> None:
    """(pitfall 40)"""
    native = swapped(encoder("bert"))
    inputs = batch()
    expected = native(**inputs)
    compiled = torch.compile(native, fullgraph=True, backend="eager")
    found = compiled(**inputs)
    assert torch.equal(found.last_hidden_state, expected.last_hidden_state)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    torch.library.opcheck(torch.ops.fewbit.encode, (native._number, ids, mask, None, None))


@pytest.mark.filterwarnings("ignore")  # Of the tracer, that it is deprecated and what it holds constant.
def test_a_traced_encoder_runs_other_inputs() -> None:
    native = swapped(encoder("bert"), "dynamic")
    inputs, other = batch(seed=1), batch(seed=2)
    traced = torch.jit.trace(native, (inputs["input_ids"], inputs["attention_mask"]), strict=False)
    found = traced(other["input_ids"], other["attention_mask"])
    assert torch.equal(found["last_hidden_state"], native(**other).last_hidden_state)


def test_one_mask_holds_for_all_sequences() -> None:
    native = swapped(encoder("bert"), "dynamic")
    inputs = batch((9, 9, 9))
    mask = torch.ones(1, 9, dtype=torch.int64)
    mask[0, 6:] = 0
    expected = native(inputs["input_ids"], mask.expand(3, 9)).last_hidden_state
    assert torch.equal(native(inputs["input_ids"], mask).last_hidden_state, expected)
