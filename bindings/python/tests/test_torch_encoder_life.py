"""Whole encoders swapped for the native executor: copies, files, devices, gradients."""

from __future__ import annotations

import copy
import gc
import io
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from encoder_models import CONFIGS, TwoHeads, batch, encoder  # noqa: E402

import fewbit  # noqa: E402
import fewbit.torch  # noqa: E402
from fewbit import FewbitError  # noqa: E402
from fewbit.torch import saving  # noqa: E402
from fewbit.torch.encoders import parameter_count, swap  # noqa: E402
from fewbit.torch.native_encoder import NativeEncoder  # noqa: E402

torch.set_num_threads(1)


def swapped(family: str = "bert", method: str = "dynamic", **options: Any) -> NativeEncoder:
    found = swap(encoder(family), method, **options)
    assert isinstance(found, NativeEncoder), found
    return found


@pytest.mark.parametrize("method", ["dynamic", "nf4", "fp16"])
def test_copies_and_pickles_have_the_same_bits(method: str) -> None:
    """deepcopy, pickle and torch.save of the module, by itself and inside another (pitfall 28)."""
    native = swapped(method=method)
    expected = native(**batch()).last_hidden_state
    whole = io.BytesIO()
    torch.save(native, whole)
    whole.seek(0)
    copies: list[Any] = [
        copy.deepcopy(native),
        pickle.loads(pickle.dumps(native)),
        torch.load(whole, weights_only=False),
        copy.deepcopy(TwoHeads(native)).encoder,
    ]
    for other in copies:
        assert torch.equal(other(**batch()).last_hidden_state, expected)
        assert other.state_dict().keys() == native.state_dict().keys()


def test_a_copy_is_independent() -> None:
    native = swapped()
    expected = native(**batch()).last_hidden_state
    other = copy.deepcopy(native)
    other.load_state_dict(swap(encoder("bert", seed=5), "dynamic").state_dict())  # type: ignore[union-attr]
    assert not torch.equal(other(**batch()).last_hidden_state, expected)
    assert torch.equal(native(**batch()).last_hidden_state, expected)


@pytest.mark.parametrize("method", ["dynamic", "nf4"])
def test_a_state_dict_holds_plain_tensors(method: str, tmp_path: Path) -> None:
    """So that safetensors and torch.load with weights_only take it, and it loads back (pitfalls 29, 30)."""
    from safetensors.torch import load_file, save_file

    native = swapped(method=method)
    state = native.state_dict()
    assert all(type(tensor) in (torch.Tensor, torch.nn.Parameter) for tensor in state.values())
    save_file(state, tmp_path / "state.safetensors")
    torch.save(state, tmp_path / "state.pt")
    expected = native(**batch()).last_hidden_state
    for loaded in (load_file(tmp_path / "state.safetensors"), torch.load(tmp_path / "state.pt", weights_only=True)):
        other: Any = swap(encoder("bert", seed=7), method)
        assert not torch.equal(other(**batch()).last_hidden_state, expected)
        other.load_state_dict(loaded)
        assert torch.equal(other(**batch()).last_hidden_state, expected)


def test_a_state_dict_does_not_load_into_a_float_model() -> None:
    """The error names what to do (pitfall 31)."""
    with pytest.raises(RuntimeError, match="convert_this_model_with_fewbit_torch_first"):
        encoder("bert").load_state_dict(swapped().state_dict())


@pytest.mark.parametrize("options", [{"dtype": "nf4", "double_quant": True}, {"qconfig_spec": {torch.nn.Linear, torch.nn.Embedding}}], ids=str)
def test_a_state_dict_makes_a_float_model_the_one_that_it_is_of(options: dict[str, Any]) -> None:
    """By `fewbit.torch.load_state_dict`, with the recipe that the state brings."""
    quantized = fewbit.torch.quantize_dynamic(TwoHeads(encoder("bert")), **options)
    expected = quantized(**batch())
    loaded = fewbit.torch.load_state_dict(TwoHeads(encoder("bert", seed=7)), quantized.state_dict())
    assert isinstance(loaded.encoder, NativeEncoder)
    assert all(torch.equal(values, expected[name]) for name, values in loaded(**batch()).items())
    bare = swapped()
    again: Any = fewbit.torch.load_state_dict(encoder("bert", seed=7), bare.state_dict())
    assert torch.equal(again(**batch()).last_hidden_state, bare(**batch()).last_hidden_state)


def test_a_state_of_an_encoder_that_cannot_be_is_an_error() -> None:
    state = fewbit.torch.quantize_dynamic(TwoHeads(encoder("bert"))).state_dict()
    with pytest.raises(FewbitError, match="encoder: the state is that of a native encoder, which this Linear cannot become"):
        fewbit.torch.load_state_dict(TwoHeads(torch.nn.Linear(2, 2)), state)
    state["encoder.convert_this_model_with_fewbit_torch_first"] = torch.tensor([123, 34], dtype=torch.uint8)
    with pytest.raises(FewbitError, match="encoder: expected the state of a native encoder, found a damaged one"):
        fewbit.torch.load_state_dict(TwoHeads(encoder("bert")), state)


def test_a_state_dict_of_another_method_does_not_load() -> None:
    with pytest.raises(RuntimeError, match="converted otherwise"):
        swapped().load_state_dict(swapped(method="nf4").state_dict())
    native = swapped()
    state = native.state_dict()
    del state["embeddings.LayerNorm.weight"]
    with pytest.raises(RuntimeError, match="Missing key"):
        native.load_state_dict(state)


def test_a_state_dict_without_metadata_loads() -> None:
    """(pitfall 32)"""
    native = swapped()
    plain = {name: tensor.clone() for name, tensor in native.state_dict().items()}
    other = swapped()
    other.load_state_dict(plain)
    assert torch.equal(other(**batch()).last_hidden_state, native(**batch()).last_hidden_state)


@pytest.mark.parametrize("method", ["dynamic", "nf4", "fp16"])
def test_parameters_dtype_and_device_are_there(method: str) -> None:
    """(pitfall 33)"""
    native = swapped(method=method)
    first = next(native.parameters())
    assert first.dtype.is_floating_point
    assert first.device == native.device == torch.device("cpu")
    assert native.dtype == torch.float32
    assert not any(parameter.requires_grad for parameter in native.parameters() if not parameter.is_floating_point())


@pytest.mark.parametrize("method", ["dynamic", "fp16", "nf4"])
def test_the_number_of_parameters_is_the_original_one(method: str) -> None:
    """By any counter where a weight has a code of its own, by `num_parameters` at 4 bits, too (pitfall 34)."""
    float_model = encoder("bert")
    count = sum(parameter.numel() for parameter in float_model.parameters())
    native: Any = swap(float_model, method)
    assert native.num_parameters() == count
    assert parameter_count(TwoHeads(native)) == parameter_count(TwoHeads(float_model))
    if method != "nf4":
        assert sum(parameter.numel() for parameter in native.parameters()) == count


def test_moves_that_change_nothing_do_nothing_and_others_raise() -> None:
    """(pitfall 35)"""
    native = swapped()
    expected = native(**batch()).last_hidden_state
    for same in (native.to("cpu"), native.eval(), native.float(), native.cpu(), native.to(torch.float32)):
        assert same is native
    native.share_memory()
    assert torch.equal(native(**batch()).last_hidden_state, expected)
    for move in (native.half, native.double, lambda: native.to("meta"), lambda: native.to(torch.bfloat16)):
        with pytest.raises(RuntimeError, match=r"dequantize\(\)"):
            move()
    with pytest.raises(RuntimeError, match=r"dequantize\(\)"):
        TwoHeads(native).half()


def test_gradients_reach_embeddings_that_are_inputs() -> None:
    """Through the dequantized weights, so that none is silently missing (pitfall 36)."""
    native = swapped()
    embeds = torch.randn(1, 4, 32, requires_grad=True)
    with pytest.warns(UserWarning, match="inputs_embeds"):
        native(inputs_embeds=embeds).last_hidden_state.square().sum().backward()
    found = embeds.grad
    again = embeds.detach().requires_grad_()
    native.dequantize()(inputs_embeds=again).last_hidden_state.square().sum().backward()
    assert found is not None
    assert torch.equal(found, again.grad)


def test_a_head_on_top_is_trained() -> None:
    model = TwoHeads(swapped())
    model.topic.train()
    model(**batch())["topic"].sum().backward()
    assert model.topic.weight.grad is not None


def test_training_the_whole_model_raises() -> None:
    """As a Trainer would (pitfall 37)."""
    model = TwoHeads(swapped()).train()
    with pytest.raises(RuntimeError, match="cannot be trained"):
        model(**batch())


def test_a_trainer_refuses_the_model(tmp_path: Path) -> None:
    """(pitfall 37)"""
    pytest.importorskip("accelerate")
    from fewbit.torch.manager import apply_int4_quantization

    model = apply_int4_quantization(transformers.BertForSequenceClassification(CONFIGS["bert"]()))
    with pytest.raises(ValueError, match="quantized"):
        transformers.Trainer(model=model, args=transformers.TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True))


def test_peft_on_a_swapped_encoder_is_an_error() -> None:
    """(pitfall 38)"""
    peft = pytest.importorskip("peft")
    with pytest.raises(Exception, match="query"):
        peft.get_peft_model(swapped(), peft.LoraConfig(target_modules=["query"]))


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert", "deberta-v2"])
@pytest.mark.parametrize("method", ["dynamic", "nf4"])
def test_save_pretrained_writes_what_the_package_reads(family: str, method: str, tmp_path: Path) -> None:
    native = swapped(family, method)
    inputs = batch((6, 6))
    native.save_pretrained(tmp_path / "model")
    network = fewbit._fewbit.Network.open(str(tmp_path / "model"))
    found = network.forward(inputs["input_ids"].numpy(), threads=1)
    assert torch.equal(torch.from_numpy(found), native(inputs["input_ids"]).last_hidden_state)


def test_save_pretrained_writes_what_transformers_reads(tmp_path: Path) -> None:
    """And computes with floats from the codes: near, not the same bits."""
    pytest.importorskip("compressed_tensors")
    native = swapped()
    native.save_pretrained(tmp_path)
    loaded = transformers.AutoModel.from_pretrained(tmp_path).eval()
    inputs = batch((6, 6))
    found = loaded(**inputs).last_hidden_state
    distance = 1 - torch.nn.functional.cosine_similarity(found, native(**inputs).last_hidden_state, dim=-1).mean()
    assert distance < 1e-3


def test_a_classifier_is_saved_as_a_standard_directory(tmp_path: Path) -> None:
    """With the head in float; transformers loads it by its class."""
    pytest.importorskip("compressed_tensors")
    torch.manual_seed(3)
    config = CONFIGS["bert"]()
    config.num_labels = 3
    model = transformers.BertForSequenceClassification(config).eval()
    model.bert = swap(model.bert, "dynamic")
    saving.save_pretrained(model, tmp_path)
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert type(loaded) is type(model)
    torch.testing.assert_close(loaded.classifier.weight, model.classifier.weight)
    inputs = batch((6, 6))
    expected, found = model(**inputs).logits, loaded(**inputs).logits
    assert (expected - found).abs().max() < 0.05 * expected.abs().max()


def test_a_converted_classifier_saves_itself_as_a_standard_directory(tmp_path: Path) -> None:
    """Also as a copy: what its class has would write codes that nobody can read."""
    from fewbit.torch.replacement import with_replaced

    model = transformers.BertForSequenceClassification(CONFIGS["bert"]()).eval()
    converted = with_replaced(model, {model.bert: swap(model.bert, "fp16")}, inplace=False)  # type: ignore[dict-item]
    copied: Any = pickle.loads(pickle.dumps(copy.deepcopy(converted)))
    copied.save_pretrained(tmp_path)
    loaded = transformers.BertForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32).eval()
    inputs = batch((6, 6))
    torch.testing.assert_close(loaded(**inputs).logits, copied(**inputs).logits, rtol=1e-4, atol=1e-4)


def test_what_no_standard_directory_describes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FewbitError, match="fewbit.torch.save"):
        saving.save_pretrained(TwoHeads(swapped()), tmp_path)


def test_a_saved_model_loads_with_the_same_bits(tmp_path: Path) -> None:
    model = TwoHeads(swapped()).eval()
    saving.save(model, tmp_path / "model.pt")
    loaded = saving.load(tmp_path / "model.pt")
    found, expected = loaded(**batch()), model(**batch())
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_file_cut_short_is_an_error_with_words(tmp_path: Path) -> None:
    saving.save(swapped(), tmp_path / "model.pt")
    content = (tmp_path / "model.pt").read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 100):
        (tmp_path / "short.pt").write_bytes(content[:length])
        with pytest.raises(FewbitError, match="short.pt"):
            saving.load(tmp_path / "short.pt")
    torch.save({"a": torch.zeros(1)}, tmp_path / "state.pt")
    with pytest.raises(FewbitError, match="state_dict"):
        saving.load(tmp_path / "state.pt")
    with pytest.raises(FewbitError, match="absent.pt"):
        saving.load(tmp_path / "absent.pt")


def test_no_temporary_directory_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    native = swapped()
    pickle.loads(pickle.dumps(native))(**batch())
    native.dequantize()
    gc.collect()
    assert os.listdir(tmp_path) == []


def test_another_process_runs_a_pickled_encoder(tmp_path: Path) -> None:
    """As workers that are spawned do."""
    native = swapped()
    (tmp_path / "encoder.pickle").write_bytes(pickle.dumps(native))
    program = "import pickle, sys, torch; e = pickle.load(open(sys.argv[1], 'rb')); print(e(torch.tensor([[5, 6, 7]])).last_hidden_state.double().sum().item())"
    found = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "encoder.pickle")], capture_output=True, text=True, check=True, env=os.environ
    )
    assert float(found.stdout) == native(torch.tensor([[5, 6, 7]])).last_hidden_state.double().sum().item()
