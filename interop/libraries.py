"""What transformers, bitsandbytes and compressed-tensors make of a model directory."""

import copy
import json
import shutil
from functools import partial
from pathlib import Path

import bitsandbytes
import torch
import transformers
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme, QuantizationStatus, apply_quantization_config
from compressed_tensors.quantization.utils import calculate_qparams
from transformers import AutoModel, AutoTokenizer, BertForSequenceClassification, BitsAndBytesConfig

MAX_TOKENS = 256

# Sidecar files that a sentence-transformers directory needs and save_pretrained does not write.
SIDECARS = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json", "modules.json", "sentence_bert_config.json", "1_Pooling/config.json")


def load(directory, **options):
    """The model and its loading report: key lists, empty ones left out."""
    model, info = AutoModel.from_pretrained(directory, output_loading_info=True, **options)
    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            # Or else it computes in bfloat16 where the CPU can, and breaks on narrow layers.
            module.support_avx512bf16_for_cpu = False
            state = module.weight.quant_state
            if state.shape[-1] % state.blocksize:
                module.forward = partial(linear_of_dequantized, module)
    report = {kind: sorted(map(str, keys)) for kind, keys in info.items() if keys}
    return model.eval(), report


def hidden_states(model, ids):
    with torch.no_grad():
        states = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    return states if states.dtype == torch.float64 else states.float()


def token_ids(directory, texts):
    tokenizer = AutoTokenizer.from_pretrained(directory)
    return [tokenizer(text, truncation=True, max_length=MAX_TOKENS)["input_ids"] for text in texts]


def embeddings(model, sequences):
    """Mean over tokens, normalized; one sequence at a time, so that nothing is padded."""
    rows = [hidden_states(model, ids).mean(dim=0) for ids in sequences]
    return torch.nn.functional.normalize(torch.stack(rows), dim=1)


def sentence_embeddings(directory, texts):
    """As sentence-transformers gives them, with weights that are unpacked as they are loaded."""
    from sentence_transformers import SentenceTransformer
    from transformers import CompressedTensorsConfig

    options = {"quantization_config": CompressedTensorsConfig(run_compressed=False)}
    model = SentenceTransformer(str(directory), device="cpu", model_kwargs=options)
    return torch.from_numpy(model.encode(texts, batch_size=1, normalize_embeddings=True, show_progress_bar=False))


def dequantized(module):
    """The weight of a module as its library dequantizes it. compressed-tensors decompresses at the first forward."""
    if isinstance(module, bitsandbytes.nn.Linear4bit):
        # As one row: the routine for AVX-512 is wrong where a row ends inside of a block.
        state = copy.copy(module.weight.quant_state)
        shape, state.shape = state.shape, torch.Size([1, state.shape.numel()])
        return bitsandbytes.functional.dequantize_4bit(module.weight.data, state).reshape(shape)
    return module.weight.detach()


def linear_of_dequantized(module, x):
    return torch.nn.functional.linear(x, dequantized(module).to(x.dtype), module.bias)


def loads_with_fresh_head(directory):
    """Whether a class with a head that the file lacks loads and runs: fine-tuning starts like this."""
    model = BertForSequenceClassification.from_pretrained(directory, num_labels=3).eval()
    with torch.no_grad():
        return bool(torch.isfinite(model(input_ids=torch.tensor([[101, 2023, 102]])).logits).all())


# ---- writers --------------------------------------------------------------------------------------------------------


def copy_sidecars(source, target):
    for name in SIDECARS:
        if (Path(source) / name).exists():
            (Path(target) / name).parent.mkdir(exist_ok=True)
            shutil.copy(Path(source) / name, Path(target) / name)


def write_bitsandbytes(source, target, quant_type, double, dtype=torch.float32):
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=quant_type, bnb_4bit_use_double_quant=double, bnb_4bit_compute_dtype=dtype)
    model = AutoModel.from_pretrained(source, quantization_config=config, device_map="cpu", dtype=dtype)
    model.save_pretrained(target)
    copy_sidecars(source, target)


INT8_CHANNEL = dict(num_bits=8, type="int", symmetric=True, strategy="channel", dynamic=False)
INT4_GROUP = dict(num_bits=4, type="int", symmetric=True, strategy="group", group_size=128, dynamic=False)
PER_TOKEN_SYMMETRIC = dict(num_bits=8, type="int", strategy="token", dynamic=True, symmetric=True)
PER_TOKEN_AFFINE = PER_TOKEN_SYMMETRIC | dict(symmetric=False)
STATIC_AFFINE = dict(num_bits=8, type="int", strategy="tensor", dynamic=False, symmetric=False)


def observe_inputs(model, modules, sequences):
    """Minimum and maximum of every module's input over the sequences, seen by the float model."""
    extremes = {}

    def observe(module, inputs):
        low, high = inputs[0].min(), inputs[0].max()
        old = extremes.get(module, (low, high))
        extremes[module] = (torch.minimum(low, old[0]), torch.maximum(high, old[1]))

    hooks = [module.register_forward_pre_hook(observe) for module in modules]
    for module in modules:
        module.quantization_enabled = False
    for ids in sequences:
        hidden_states(model, ids)
    for module, hook in zip(modules, hooks):
        hook.remove()
        module.quantization_enabled = True
    return extremes


def write_compressed_tensors(source, target, weights, activations, calibration):
    model = AutoModel.from_pretrained(source, dtype=torch.float32).eval()
    scheme = QuantizationScheme(targets=["Linear"], weights=weights, input_activations=activations)
    config = QuantizationConfig(config_groups={"group_0": scheme}, ignore=["re:.*pooler.*"], quantization_status=QuantizationStatus.INITIALIZED)
    apply_quantization_config(model, config, show_progress=False)
    modules = [module for module in model.modules() if getattr(module, "quantization_scheme", None) is not None]
    static = activations is not None and not activations["dynamic"]
    extremes = observe_inputs(model, modules, calibration) if static else {}
    for module in modules:
        weight = module.weight.detach()
        if weights["strategy"] == "group":
            weight = weight.unflatten(-1, (-1, weights["group_size"]))
        low, high = weight.amin(-1), weight.amax(-1)
        if weights["strategy"] == "channel":
            low, high = low.unsqueeze(-1), high.unsqueeze(-1)
        scale, zero_point = calculate_qparams(low, high, module.quantization_scheme.weights)
        module.weight_scale.data.copy_(scale)
        module.weight_zero_point.data.copy_(zero_point)
        if module in extremes:
            scale, zero_point = calculate_qparams(*extremes[module], module.quantization_scheme.input_activations)
            module.input_scale.data.copy_(scale)
            module.input_zero_point.data.copy_(zero_point)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(target)
    compressor.update_config(target)
    copy_sidecars(source, target)


def versions():
    import compressed_tensors

    return (
        f"torch {torch.__version__}, transformers {transformers.__version__}, bitsandbytes {bitsandbytes.__version__}, "
        f"compressed-tensors {compressed_tensors.__version__}"
    )


def config_json(directory):
    return json.loads((Path(directory) / "config.json").read_text())
