"""Tiny models of kinds that fewbit does not run, whose weights it quantizes by the names of their tensors."""

import bitsandbytes
import torch
import transformers

SIZES = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4)
TEXT = SIZES | dict(vocab_size=96, num_key_value_heads=2)
T5 = dict(vocab_size=96, d_model=64, d_ff=128, num_layers=1, num_heads=4, d_kv=16)
WHISPER = dict(
    vocab_size=96, d_model=64, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=128,
    decoder_ffn_dim=128, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, begin_suppress_tokens=None, suppress_tokens=None,
)


def ids(generator):
    return torch.randint(3, 70, (1, 9), generator=generator)


def for_decoder(generator):
    return dict(input_ids=ids(generator))


def for_both(generator):
    return dict(input_ids=ids(generator), decoder_input_ids=ids(generator))


def for_image(generator):
    return dict(pixel_values=torch.randn((1, 3, 32, 32), generator=generator))


def for_sound(generator):
    return dict(input_features=torch.randn((1, 80, 3000), generator=generator), decoder_input_ids=ids(generator))


# Name: class, configuration, inputs. GPT-2 keeps its weights as (in, out), which bitsandbytes takes and compressed-tensors refuses. Qwen2 and Whisper share their heads' matrix with the embeddings; transformers renames ViT's modules as it
# loads them; T5 has layers that it keeps in float32.
MODELS = {
    "gpt2": (transformers.GPT2LMHeadModel, transformers.GPT2Config(vocab_size=96, n_embd=64, n_layer=1, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=0), for_decoder),
    "llama": (transformers.LlamaForCausalLM, transformers.LlamaConfig(**TEXT), for_decoder),
    "qwen2": (transformers.Qwen2ForCausalLM, transformers.Qwen2Config(**TEXT, tie_word_embeddings=True), for_decoder),
    "t5": (transformers.T5ForConditionalGeneration, transformers.T5Config(**T5), for_both),
    "vit": (transformers.ViTForImageClassification, transformers.ViTConfig(**SIZES, image_size=32, patch_size=16), for_image),
    "whisper": (transformers.WhisperForConditionalGeneration, transformers.WhisperConfig(**WHISPER), for_sound),
}
# Method: arguments, least cosine of logits to the float model, as for the families: only names can break it.
METHODS = {
    "fp16": (["--method", "fp16"], 0.999),
    "weight-only": (["--method", "weight-only"], 0.99),
    "nf4": (["--method", "nf4", "--double-quant"], 0.5),
}


REFUSED = {"weight-only": ["gpt2"]}


def same_codes(source, out, kind):
    """bitsandbytes' own codes and scales of every layer, transposed ones among them, where nothing is quantized twice."""
    config = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    own = kind.from_pretrained(source, quantization_config=config, device_map="cpu", dtype=torch.float32)
    ours = kind.from_pretrained(out, dtype=torch.float32)
    layers = {name: module for name, module in own.named_modules() if isinstance(module, bitsandbytes.nn.Linear4bit)}
    found = {name: module for name, module in ours.named_modules() if isinstance(module, bitsandbytes.nn.Linear4bit)}
    equal = layers.keys() == found.keys() and all(
        torch.equal(module.weight.data, found[name].weight.data)
        and torch.equal(module.weight.quant_state.absmax, found[name].weight.quant_state.absmax)
        and module.weight.quant_state.shape == found[name].weight.quant_state.shape
        for name, module in layers.items()
    )
    return equal and len(layers) > 0


def logits(model, inputs):
    with torch.no_grad():
        return model.eval()(**inputs(torch.Generator().manual_seed(1))).logits.double().flatten()


def check(row, fewbit, work, method):
    """Every model, written by its class and quantized, loads and gives logits near its own, and the same from several files."""
    arguments, limit = METHODS[method]
    least = 1.0
    for name, (kind, config, inputs) in MODELS.items():
        source, out = work / "other-models" / name, work / "other-models" / f"{name}-{method}"
        if not source.exists():
            torch.manual_seed(0)
            kind(config).save_pretrained(source)
        if name in REFUSED.get(method, []):
            refusal = fewbit.refusal("quantize", source, "-o", out, *arguments)
            row.expect("no linear layer" in refusal.lower() or "linear layer" in refusal, f"{name}: expected a refusal, found: {refusal}")
            continue
        fewbit.quantize(source, out, arguments)
        if method == "nf4" and name == "gpt2":
            plain = out.with_name(f"{out.name}-plain")
            fewbit.quantize(source, plain, ["--method", "nf4"])
            row.expect(same_codes(source, plain, kind), f"{name}: other codes than bitsandbytes' own")
            back = out.with_name(f"{out.name}-floats")
            fewbit.run("convert", plain, "-o", back, "--to", "f32")
            difference = (logits(kind.from_pretrained(back, dtype=torch.float32), inputs) - logits(kind.from_pretrained(plain, dtype=torch.float32), inputs)).abs().max().item()
            row.expect(difference < 1e-2, f"{name}: logits of the floats that codes stand for differ by {difference:.1e}")
        reference = logits(kind.from_pretrained(source, dtype=torch.float32), inputs)
        found = logits(kind.from_pretrained(out, dtype=torch.float32), inputs)
        cosine = torch.nn.functional.cosine_similarity(found, reference, dim=0).item()
        least = min(least, cosine)
        parts = out.with_name(f"{out.name}-parts")
        fewbit.quantize(source, parts, [*arguments, "--max-shard-size", "20KB"])
        files = len(list(parts.glob("model-*-of-*.safetensors")))
        row.expect(files > 1, f"{name}: {files} files of weights, expected several")
        again = logits(kind.from_pretrained(parts, dtype=torch.float32), inputs)
        row.expect(torch.equal(again, found), f"{name}: other logits from {files} files than from one")
        row.expect(cosine > limit, f"{name}: cosine {cosine:.4f} to the float model, expected above {limit}")
    row.cells["to float"] = f"{least:.4f} (min)"
    return row
