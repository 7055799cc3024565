"""Writes `architectures/` and `refused/`: tiny random encoders with the hidden states that transformers computes.

    python generate_architectures.py [NAME …]

With names, only the cases of these names are written, and their lines of the README.

Pinned: Python 3.11, torch 2.15.0, transformers 5.23.0, safetensors 0.8.0, numpy 2.4.6, on a CPU, one thread.
With these versions every file comes out the same, byte for byte, on the same kind of CPU (torch chooses its float kernels by CPU;
elsewhere the last bits of the expected states may differ). README.md beside this file lists the cases and the
tensor names; the script rewrites the part of it between the two markers.
"""

import copy
import json
import os
import shutil
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import safetensors
import safetensors.torch
import torch
import transformers
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    AlbertModel,
    AutoModel,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    CamembertConfig,
    CamembertModel,
    DebertaConfig,
    DebertaForMaskedLM,
    DebertaModel,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    DebertaV2ForSequenceClassification,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertModel,
    ElectraConfig,
    ElectraForPreTraining,
    ElectraModel,
    EuroBertConfig,
    EuroBertModel,
    Gemma3TextConfig,
    Gemma3TextModel,
    GteConfig,
    GteModel,
    JinaEmbeddingsV3Config,
    JinaEmbeddingsV3Model,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    MistralConfig,
    MistralModel,
    MPNetConfig,
    MPNetForMaskedLM,
    MPNetModel,
    ModernBertConfig,
    ModernBertForMaskedLM,
    ModernBertModel,
    NomicBertConfig,
    NomicBertModel,
    Qwen2Config,
    Qwen2Model,
    Qwen3Config,
    Qwen3Model,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

HERE = Path(__file__).resolve().parent
NAMES = sys.argv[1:]
ARCHITECTURES = HERE / "architectures"
REFUSED = HERE / "refused"

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

# Lengths of the sequences of a case; the first two with more than one token also carry the states after every layer.
LENGTHS = (1, 2, 5, 16, 17, 33)
SHAPE = dict(vocab_size=80, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=44, max_position_embeddings=36)


def randomize(model, generator):
    """Large enough that dropping any bias, any LayerNorm parameter or the epsilon shows in the hidden states."""
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if "LayerNorm" in name or "norm" in name:
            # Gemma's weights of norms are differences to 1.
            center = 0.0 if model.config.model_type == "gemma3_text" else 1.0
            value = center + 0.3 * noise if name.endswith("weight") else 0.2 * noise
        elif "embeddings" in name and "project" not in name:
            value = 0.4 * noise
        elif "relative_attention_bias" in name:
            value = 0.8 * noise
        else:
            value = 0.2 * noise
        parameter.data.copy_(value)
    return model


def modules_of_layers(encoder):
    """The module of each layer whose output is kept: the whole layer, or where it adds to what it does not normalize, its second norm."""
    if encoder.config.model_type == "albert":
        return [layer for group in encoder.encoder.albert_layer_groups for layer in group.albert_layers]
    for name in ("mlp_norm", "pre_feedforward_layernorm", "post_attention_layernorm"):
        if hasattr(encoder, "layers") and hasattr(encoder.layers[0], name) and not hasattr(encoder.layers[0], "post_mlp_layernorm"):
            return [getattr(layer, name) for layer in encoder.layers]
    if hasattr(encoder, "layers"):
        return encoder.layers
    return encoder.transformer.layer if hasattr(encoder, "transformer") else encoder.encoder.layer


def run(encoder, input_ids, token_type_ids):
    """Last hidden state, output of the embeddings module, output of each layer (of one that runs several times one after the other), for
    one sequence without padding."""
    seen = {}

    def keep(key):
        def hook(_module, _inputs, output):
            value = (output[0] if isinstance(output, tuple) else output).detach()[0]
            seen[key] = torch.cat([seen[key], value]) if key in seen else value

        return hook

    hooks = [encoder.embeddings.register_forward_hook(keep("embeddings"))] if hasattr(encoder, "embeddings") else []
    hooks += [layer.register_forward_hook(keep(f"layer.{i}")) for i, layer in enumerate(modules_of_layers(encoder))]
    arguments = {"input_ids": torch.tensor([input_ids])}
    if token_type_ids is not None:
        arguments["token_type_ids"] = torch.tensor([token_type_ids])
    with torch.no_grad():
        last = encoder(**arguments).last_hidden_state[0]
    for hook in hooks:
        hook.remove()
    return last, seen


def expected_tensors(encoder, generator, lengths, token_types, pad_inside):
    config = encoder.config
    wide = copy.deepcopy(encoder).double()
    pad = encoder.get_input_embeddings().padding_idx
    ordinary = [i for i in range(config.vocab_size) if i != pad]
    tensors, worst, per_layer = {}, 0.0, 0
    for i, length in enumerate(lengths):
        picks = torch.randint(0, len(ordinary), (length,), generator=generator)
        input_ids = [ordinary[p] for p in picks.tolist()]
        if pad_inside and length > 4:
            input_ids[2] = input_ids[-2] = pad
        token_type_ids = None
        if token_types:
            # A text pair: the second segment starts in the middle.
            token_type_ids = [int(j >= (length + 1) // 2) for j in range(length)]
        last, seen = run(encoder, input_ids, token_type_ids)
        exact, _ = run(wide, input_ids, token_type_ids)
        worst = max(worst, (last.double() - exact).abs().max().item())
        assert torch.isfinite(last).all()
        tensors[f"sequence.{i}.input_ids"] = torch.tensor(input_ids)
        if token_type_ids is not None:
            tensors[f"sequence.{i}.token_type_ids"] = torch.tensor(token_type_ids)
        tensors[f"sequence.{i}.last_hidden_state"] = last
        if length > 1 and per_layer < 2:
            per_layer += 1
            for key, value in seen.items():
                tensors[f"sequence.{i}.{key}"] = value
    return {name: tensor.contiguous().clone() for name, tensor in tensors.items()}, worst


# Names of all cases, and the lines of those that are written.
names, rows = [], []


def case(name, model, *, seed, dtype=None, lengths=LENGTHS, token_types=False, pad_inside=False, shard=None, edit=None, extra=None, own_code=None, note=""):
    """Writes one folder. `edit` maps the saved tensors to what is stored instead; `dtype` is that of the file."""
    names.append(name)
    if NAMES and name not in NAMES:
        return
    folder = ARCHITECTURES / name
    shutil.rmtree(folder, ignore_errors=True)
    generator = torch.Generator().manual_seed(seed)
    randomize(model, generator).eval()
    if dtype is not None:
        model = model.to(dtype)
    options = {} if shard is None else {"max_shard_size": shard}
    model.save_pretrained(folder, **options)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if edit is not None:
        path = folder / "model.safetensors"
        tensors = edit(safetensors.torch.load_file(path))
        safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    # The reference is what transformers makes of the file, in float32, not of the model in memory.
    encoder, info = AutoModel.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    encoder.eval()
    if own_code is not None:
        own_code(folder, encoder)
    # Without a pooler in the file the pooler is the only thing that may be missing.
    missing = [key for key in info["missing_keys"] if "pooler" not in key]
    assert not missing and not info["mismatched_keys"], (name, info)
    tensors, worst = expected_tensors(encoder, generator, lengths, token_types, pad_inside)
    tensors.update(extra(encoder) if extra else {})
    safetensors.torch.save_file(tensors, folder / "expected.safetensors")
    assert worst < 5e-6, (name, worst)
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert size < 160_000, (name, size)
    config = json.loads((folder / "config.json").read_text())
    files = sorted(folder.glob("*.safetensors"))
    first = [key for file in files if file.name != "expected.safetensors" for key in safetensors.torch.load_file(file)]
    row = (name, config["architectures"][0], min(first), f"{size // 1000} KB", f"{worst:.1e}", note)
    rows.append(row)
    print(*row, sep=" | ", flush=True)


def old_layer_norm_names(tensors):
    def rename(name):
        if "LayerNorm" in name:
            return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        return name

    return {rename(name): tensor for name, tensor in tensors.items()}


def with_position_ids(tensors):
    return tensors | {"embeddings.position_ids": torch.arange(SHAPE["max_position_embeddings"]).unsqueeze(0)}


def mpnet_buckets(encoder):
    distances = torch.arange(-511, 512)
    buckets = type(encoder.encoder).relative_position_bucket(distances, num_buckets=32)
    return {"relative_position_buckets": buckets.to(torch.uint8)}


def deberta_buckets(_encoder):
    """Rows of `rel_embeddings` for every distance from query to key, for several numbers of buckets and largest distances."""
    tensors = {}
    for buckets, most in ((256, 512), (32, 128), (8, 20), (7, 40)):
        distances = torch.arange(-700, 701)
        rows = make_log_bucket_position(distances, buckets, most).to(torch.long) + buckets
        tensors[f"rows.{buckets}.{most}"] = torch.clamp(rows, 0, 2 * buckets - 1)
    return tensors


def architectures():
    bert = SHAPE | dict(type_vocab_size=2)
    case("bert", BertModel(BertConfig(**bert)), seed=1, note="the plain case: no prefix, GELU, no token types given (all 0)")
    case("bert-gelu-new", BertModel(BertConfig(**bert, hidden_act="gelu_new")), seed=2, note="tanh approximation")
    case("bert-gelu-pytorch-tanh", BertModel(BertConfig(**bert, hidden_act="gelu_pytorch_tanh")), seed=14, note="the same function as gelu_new by another name")
    case("bert-quick-gelu", BertModel(BertConfig(**bert, hidden_act="quick_gelu")), seed=15, note="x sigmoid(1.702 x)")
    case("bert-silu", BertModel(BertConfig(**bert, hidden_act="silu")), seed=16, note="x sigmoid(x)")
    case("bert-relu", BertModel(BertConfig(**bert, hidden_act="relu", layer_norm_eps=0.02)), seed=3, note="layer_norm_eps 0.02, so that it shows")
    case("bert-token-types", BertModel(BertConfig(**bert)), seed=4, token_types=True, note="second half of each sequence has type 1")
    case(
        "bert-heads-of-12", BertModel(BertConfig(**(bert | dict(hidden_size=36, num_attention_heads=3, intermediate_size=45, num_hidden_layers=3, max_position_embeddings=24)))),
        seed=5, lengths=(1, 3, 8, 23, 24), note="3 layers; hidden 36, head size 12, intermediate 45: no multiple of 16; a sequence of max_position_embeddings tokens",
    )
    case(
        "bert-long", BertModel(BertConfig(**(bert | dict(max_position_embeddings=140, num_hidden_layers=1)))),
        seed=6, lengths=(3, 64, 140), note="140 tokens",
    )
    case("bert-masked-lm", BertForMaskedLM(BertConfig(**bert)), seed=7, note="prefix `bert.`, head `cls.`, no pooler")
    case("bert-sequence-classification", BertForSequenceClassification(BertConfig(**bert, num_labels=3)), seed=8, note="prefix `bert.`, pooler, `classifier`")
    case("bert-fp16", BertModel(BertConfig(**bert)), seed=9, dtype=torch.float16, note="F16 file; expected: its weights widened to float32")
    case("bert-bf16", BertModel(BertConfig(**bert)), seed=10, dtype=torch.bfloat16, note="BF16 file; expected: its weights widened to float32")
    case("bert-sharded", BertForMaskedLM(BertConfig(**bert)), seed=11, shard="36KB", note="model.safetensors.index.json and shards")
    case("bert-old-layer-norm-names", BertModel(BertConfig(**bert)), seed=12, edit=old_layer_norm_names, note="`LayerNorm.gamma`, `LayerNorm.beta` (converted from TensorFlow)")
    case(
        "bert-position-ids", BertModel(BertConfig(**bert, position_embedding_type="absolute", gradient_checkpointing=False)), seed=13, edit=with_position_ids,
        note="carries `embeddings.position_ids` (I64), which older transformers saved, and config fields that mean nothing now",
    )

    # RoBERTa counts positions from padding_idx + 1, so max_position_embeddings is 2 more than the longest input.
    roberta = SHAPE | dict(max_position_embeddings=38, type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2, layer_norm_eps=1e-5)
    case("roberta", RobertaModel(RobertaConfig(**roberta)), seed=20, lengths=LENGTHS + (36,), note="positions from 2; a sequence as long as the table allows; one token type")
    case(
        "roberta-padding-token-inside", RobertaModel(RobertaConfig(**(roberta | dict(pad_token_id=3)))), seed=21, pad_inside=True,
        note="pad_token_id 3: positions from 4. Texts that contain the padding token: its position is pad_token_id and the count goes on after it",
    )
    case("xlm-roberta-masked-lm", XLMRobertaForMaskedLM(XLMRobertaConfig(**roberta)), seed=22, note="prefix `roberta.`, head `lm_head`, no pooler")
    case("camembert", CamembertModel(CamembertConfig(**roberta)), seed=23, note="no prefix")

    distilbert = dict(vocab_size=80, dim=32, n_layers=2, n_heads=4, hidden_dim=44, max_position_embeddings=36)
    case("distilbert", DistilBertModel(DistilBertConfig(**distilbert)), seed=30, note="`activation` gelu, no token types, LayerNorm epsilon 1e-12 fixed")
    case("distilbert-relu-masked-lm", DistilBertForMaskedLM(DistilBertConfig(**distilbert, activation="relu")), seed=31, note="prefix `distilbert.`, heads `vocab_*`")

    electra = SHAPE | dict(type_vocab_size=2)
    case("electra-embedding-size-16", ElectraForPreTraining(ElectraConfig(**electra, embedding_size=16)), seed=40, token_types=True, note="prefix `electra.`, `embeddings_project` 16 -> 32, head `discriminator_predictions`")
    case("electra-embedding-size-equal", ElectraForPreTraining(ElectraConfig(**electra, embedding_size=32)), seed=41, note="as BanglaBERT: prefix `electra.`, no projection")
    case("electra-no-prefix", ElectraModel(ElectraConfig(**electra, embedding_size=20)), seed=42, note="embedding_size 20, no prefix")

    mpnet = SHAPE | dict(max_position_embeddings=38, pad_token_id=1, bos_token_id=0, eos_token_id=2)
    case("mpnet", MPNetModel(MPNetConfig(**mpnet)), seed=50, extra=mpnet_buckets, note="relative attention bias; positions from 2; no token types")
    case(
        "mpnet-long-masked-lm", MPNetForMaskedLM(MPNetConfig(**(mpnet | dict(max_position_embeddings=152, num_hidden_layers=1)))),
        seed=51, lengths=(3, 150), note="prefix `mpnet.`; 150 tokens reach the last bucket (distances of 128 and more)",
    )


    modernbert = SHAPE | dict(num_hidden_layers=4, intermediate_size=28, local_attention=8, pad_token_id=0, bos_token_id=1, cls_token_id=1, eos_token_id=2, sep_token_id=2)
    case(
        "modernbert", ModernBertModel(ModernBertConfig(**modernbert)),
        seed=60, note="pre-norm, one matrix for queries, keys and values, rotary positions, gated feed-forward, no biases; windows of 4 tokens on each side",
    )
    case(
        "modernbert-biases-masked-lm",
        ModernBertForMaskedLM(ModernBertConfig(**(modernbert | dict(
            num_hidden_layers=3, layer_types=["sliding_attention", "full_attention", "sliding_attention"], hidden_activation="gelu_pytorch_tanh",
            norm_bias=True, attention_bias=True, mlp_bias=True, norm_eps=0.01, num_attention_heads=2,
            rope_parameters={"full_attention": {"rope_type": "default", "rope_theta": 5000.0}, "sliding_attention": {"rope_type": "default", "rope_theta": 300.0}},
        )))),
        seed=61, note="prefix `model.`, heads `head` and `decoder`; all biases, layer types and bases of its own",
    )
    case(
        "modernbert-long", ModernBertModel(ModernBertConfig(**(modernbert | dict(
            hidden_size=16, intermediate_size=20, num_attention_heads=1, num_hidden_layers=2, max_position_embeddings=300, local_attention=37,
        )))),
        seed=62, lengths=(20, 150, 300), note="300 tokens, several times the window of 18 on each side",
    )

    # As DeBERTa-v3: keys and queries of positions by the projections of the tokens.
    shared = SHAPE | dict(
        relative_attention=True, position_buckets=8, norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type=["p2c", "c2p"],
        position_biased_input=False, type_vocab_size=0, max_relative_positions=-1, pad_token_id=0,
    )
    own = shared | dict(share_att_key=False, position_buckets=-1, norm_rel_ebd="none", max_relative_positions=10)
    case("deberta-v2", DebertaV2Model(DebertaV2Config(**shared)), seed=70, extra=deberta_buckets, note="as DeBERTa-v3: disentangled attention by the projections of the tokens, logarithmic buckets, normalized table; no positions in the embeddings")
    case(
        "deberta-v2-long", DebertaV2Model(DebertaV2Config(**(shared | dict(max_relative_positions=20, max_position_embeddings=150, num_hidden_layers=1)))),
        seed=71, lengths=(3, 64, 150), note="150 tokens, beyond the buckets and the largest distance",
    )
    case(
        "deberta-v2-own-projections-masked-lm", DebertaV2ForMaskedLM(DebertaV2Config(**(own | dict(position_biased_input=True, type_vocab_size=2)))),
        seed=72, token_types=True, note="prefix `deberta.`; `pos_key_proj` and `pos_query_proj`; a row for each distance up to 10; positions and token types in the embeddings",
    )
    case(
        "deberta-v2-convolution", DebertaV2Model(DebertaV2Config(**(shared | dict(conv_kernel_size=3, conv_act="gelu", embedding_size=24, pos_att_type=["c2p"])))),
        seed=73, note="as xlarge: a convolution beside the first layer; `embed_proj`; scores of queries and positions alone",
    )
    case(
        "deberta-v2-convolution-groups", DebertaV2Model(DebertaV2Config(**(own | dict(conv_kernel_size=5, conv_groups=2, pos_att_type=["p2c"], layer_norm_eps=0.01)))),
        seed=74, note="a convolution of 5 tokens in 2 groups with tanh; scores of positions and keys alone, by `pos_query_proj`",
    )
    case(
        "deberta-v2-sequence-classification",
        DebertaV2ForSequenceClassification(DebertaV2Config(**(own | dict(relative_attention=False, position_biased_input=True, hidden_act="gelu_new")))),
        seed=75, note="`relative_attention` false: `pos_att_type` only scales; `pooler` and `classifier` outside of the prefix",
    )
    deberta = {key: value for key, value in own.items() if key not in ("share_att_key", "position_buckets", "norm_rel_ebd")}
    case("deberta", DebertaModel(DebertaConfig(**(deberta | dict(max_relative_positions=-1)))), seed=80, note="`in_proj` with the heads of queries, keys and values in turn, `q_bias`, `v_bias`, `pos_proj`, `pos_q_proj`")
    case(
        "deberta-masked-lm", DebertaForMaskedLM(DebertaConfig(**(deberta | dict(
            position_biased_input=True, type_vocab_size=2, embedding_size=20, max_position_embeddings=90, num_hidden_layers=1,
        )))),
        seed=81, token_types=True, lengths=(1, 4, 11, 90), note="prefix `deberta.`, `embed_proj`; 90 tokens, a row for each distance up to 10",
    )
    case(
        "deberta-one-projection", DebertaModel(DebertaConfig(**(deberta | dict(pos_att_type=["c2p"], hidden_size=36, num_attention_heads=3)))),
        seed=82, note="`pos_proj` alone; head size 12",
    )

    albert = SHAPE | dict(embedding_size=16, num_hidden_layers=3, pad_token_id=0)
    case("albert", AlbertModel(AlbertConfig(**albert)), seed=90, token_types=True, note="one layer that runs three times; `embedding_hidden_mapping_in` 16 -> 32; `pooler`; gelu_new")
    case(
        "albert-groups-masked-lm", AlbertForMaskedLM(AlbertConfig(**(albert | dict(embedding_size=32, intermediate_size=24, num_hidden_groups=2, inner_group_num=2, hidden_act="gelu")))),
        seed=91, lengths=(2, 9, 20), note="prefix `albert.`, head `predictions`; two groups of two layers, of which the first runs twice; a projection although the sizes are equal",
    )


    decoder = SHAPE | dict(num_key_value_heads=2, bos_token_id=1, eos_token_id=2)
    case("llama", LlamaModel(LlamaConfig(**decoder)), seed=70, note="RMSNorm, causal attention, two heads of keys for four of queries, rotary positions, no token norm")
    case(
        "llama-biases-llama3-rotation", LlamaForCausalLM(LlamaConfig(**(decoder | dict(
            head_dim=16, attention_bias=True, mlp_bias=True, rms_norm_eps=0.01,
            rope_parameters={"rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 12},
        )))),
        seed=71, note="prefix `model.`, head `lm_head`; heads of 16 columns, which are more than the width; all biases; rotations of Llama 3.1",
    )
    case("llama-yarn", LlamaModel(LlamaConfig(**(decoder | dict(
        head_dim=16, rope_parameters={"rope_type": "yarn", "rope_theta": 1000.0, "factor": 3.0, "original_max_position_embeddings": 12},
    )))), seed=72, note="rotations of YaRN, with their factor")
    case("llama-linear-rotation", LlamaModel(LlamaConfig(**(decoder | dict(rope_parameters={"rope_type": "linear", "rope_theta": 1000.0, "factor": 2.5})))), seed=73, note="rotations that are stretched")
    case("mistral", MistralModel(MistralConfig(**decoder, sliding_window=6)), seed=74, note="causal windows of 6 tokens in all layers")
    case("mistral-long", MistralModel(MistralConfig(**(decoder | dict(
        num_attention_heads=2, num_key_value_heads=1, num_hidden_layers=1, max_position_embeddings=300, sliding_window=37,
    )))), seed=75, lengths=(20, 150, 300), note="300 tokens")
    case("qwen2", Qwen2Model(Qwen2Config(**decoder, use_sliding_window=True, sliding_window=5, max_window_layers=1)), seed=76, note="biases of queries, keys and values; windows from the second layer on")
    case("qwen2-bidirectional", Qwen2Model(Qwen2Config(**decoder, is_causal=False)), seed=77, note="`is_causal` false: attention to all tokens")
    case("qwen2-bidirectional-windows", Qwen2Model(Qwen2Config(**decoder, is_causal=False, use_sliding_window=True, sliding_window=4, max_window_layers=0)), seed=90, note="windows of 4 tokens on each side")
    case("qwen3", Qwen3Model(Qwen3Config(**decoder, head_dim=16)), seed=78, note="heads of 16 columns, normalized queries and keys")
    case("qwen3-long", Qwen3Model(Qwen3Config(**(decoder | dict(
        num_attention_heads=2, num_key_value_heads=1, num_hidden_layers=1, max_position_embeddings=300, attention_bias=True,
    )), head_dim=16)), seed=79, lengths=(20, 150, 300), note="300 tokens; biases of attention")
    case("eurobert", EuroBertModel(EuroBertConfig(**decoder, pad_token_id=0)), seed=80, note="Llama with attention to all tokens")
    gemma = decoder | dict(head_dim=16, num_key_value_heads=1, query_pre_attn_scalar=20, sliding_window=8, layer_types=["sliding_attention", "full_attention"])
    case("gemma3", Gemma3TextModel(Gemma3TextConfig(**gemma, use_bidirectional_attention=True)), seed=81, note="norms around, weights of norms as differences to 1, scaled embeddings, windows of 4 tokens on each side")
    case("gemma3-causal", Gemma3TextModel(Gemma3TextConfig(**gemma)), seed=82, note="causal windows of 8 tokens")
    nomic = SHAPE | dict(type_vocab_size=2)
    case("nomic-bert", NomicBertModel(NomicBertConfig(**nomic)), seed=83, token_types=True, note="rotary positions, gated feed-forward, no biases but those of norms")
    case("nomic-bert-module-names", NomicBertModel(NomicBertConfig(**nomic)), seed=84, edit=nomic_module_names, note="names of the modules, to which transformers renames those of files")
    gte = SHAPE | dict(type_vocab_size=1)
    case("gte", GteModel(GteConfig(**gte)), seed=85, note="rotary positions, gated feed-forward without biases in its first half")
    case("gte-module-names", GteModel(GteConfig(**(gte | dict(type_vocab_size=0)))), seed=86, edit=gte_module_names, note="names of the modules; no token types")
    case("new", GteModel(GteConfig(**gte)), seed=87, edit=with_own_prefix, own_code=new_config, note="`model_type` of GTE's own code, with its class in `auto_map` and NTK scaling")
    case("jina-embeddings-v3", JinaEmbeddingsV3Model(JinaEmbeddingsV3Config(**gte)), seed=88, note="XLM-RoBERTa with rotary positions")
    case("jina-embeddings-v3-module-names", JinaEmbeddingsV3Model(JinaEmbeddingsV3Config(**gte)), seed=89, edit=jina_module_names, note="names of the modules")


def split(tensors, whole, parts):
    """In place of the tensors whose names contain `whole`, equal parts of their rows."""
    for name in [name for name in tensors if whole in name]:
        rows = tensors.pop(name).chunk(len(parts))
        tensors |= {name.replace(whole, part): part_rows.clone() for part, part_rows in zip(parts, rows)}
    return tensors


def renamed(tensors, names):
    for old, new in names.items():
        tensors = {name.replace(old, new): tensor for name, tensor in tensors.items()}
    return tensors


def nomic_module_names(tensors):
    tensors = split(tensors, "attn.Wqkv", ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"])
    return renamed(tensors, {
        "emb_ln": "embeddings.LayerNorm", "attn.out_proj": "self_attn.o_proj", "fc11": "up_proj", "fc12": "gate_proj", "fc2": "down_proj",
        "norm1": "post_attention_layernorm", "norm2": "post_mlp_layernorm", "encoder.layers.": "layers.",
    })


def gte_module_names(tensors):
    tensors = split(tensors, "attention.qkv_proj", ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"])
    tensors = split(tensors, "mlp.up_gate_proj", ["mlp.up_proj", "mlp.gate_proj"])
    return renamed(tensors, {
        "attention.o_proj": "self_attn.o_proj", "attn_ln": "post_attention_layernorm", "mlp_ln": "post_mlp_layernorm", "encoder.layer.": "layers.",
    })


def jina_module_names(tensors):
    tensors = split(tensors, "mixer.Wqkv", ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"])
    return renamed(tensors, {
        "emb_ln": "embeddings.LayerNorm", "mixer.out_proj": "self_attn.o_proj", "norm1": "post_attention_layernorm", "norm2": "post_mlp_layernorm",
        "encoder.layers.": "layers.",
    })


def with_own_prefix(tensors):
    return {f"new.{name}": tensor for name, tensor in tensors.items()}


NTK_FACTOR = 2.0


def new_config(folder, encoder):
    """config.json of the models' own code, and its rotations, which transformers does not have.

    They are those of NTKScalingRotaryEmbedding in vLLM: base * factor, and all frequencies divided by factor^(2 / columns of a head).
    """
    config = json.loads((folder / "config.json").read_text())
    base = config.pop("rope_parameters")["rope_theta"]
    config |= {
        "model_type": "new", "architectures": ["NewModel"], "position_embedding_type": "rope", "layer_norm_type": "layer_norm", "pack_qkv": True,
        "logn_attention_scale": False, "rope_theta": base, "rope_scaling": {"type": "ntk", "factor": NTK_FACTOR},
        "auto_map": {"AutoConfig": "Alibaba-NLP/new-impl--configuration.NewConfig", "AutoModel": "Alibaba-NLP/new-impl--modeling.NewModel"},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    columns = encoder.config.hidden_size // encoder.config.num_attention_heads
    frequencies = 1.0 / ((base * NTK_FACTOR) ** (torch.arange(0, columns, 2).float() / columns))
    encoder.rotary_emb.inv_freq.copy_(frequencies / NTK_FACTOR ** (2 / columns))


def refused():
    """config.json files only; each names the field that must be refused."""
    base = BertConfig(**SHAPE, type_vocab_size=2).to_dict() | {"architectures": ["BertModel"]}
    roberta = RobertaConfig(**SHAPE).to_dict() | {"architectures": ["RobertaModel"]}
    modernbert = ModernBertConfig(**SHAPE, local_attention=8, pad_token_id=0).to_dict() | {"architectures": ["ModernBertModel"]}
    llama = LlamaConfig(**SHAPE).to_dict() | {"architectures": ["LlamaModel"]}
    qwen2 = Qwen2Config(**SHAPE, num_key_value_heads=2).to_dict() | {"architectures": ["Qwen2Model"]}
    gemma3 = Gemma3TextConfig(**SHAPE, head_dim=8).to_dict() | {"architectures": ["Gemma3TextModel"]}
    deberta = DebertaV2Config(**SHAPE, relative_attention=True, position_buckets=8, pos_att_type=["p2c", "c2p"], norm_rel_ebd="layer_norm").to_dict()
    deberta |= {"architectures": ["DebertaV2Model"]}
    deberta_v1 = DebertaConfig(**SHAPE, relative_attention=True, pos_att_type=["p2c", "c2p"]).to_dict() | {"architectures": ["DebertaModel"]}
    albert = AlbertConfig(**SHAPE).to_dict() | {"architectures": ["AlbertModel"]}
    cases = {
        "deberta-v2-position-to-position": (deberta | {"pos_att_type": ["c2p", "p2p"]}, "pos_att_type"),
        "deberta-v2-buckets-beyond-distances": (deberta | {"position_buckets": 64, "max_relative_positions": 16}, "position_buckets"),
        "deberta-v2-one-bucket": (deberta | {"position_buckets": 1}, "position_buckets"),
        "deberta-v2-norm-unknown": (deberta | {"norm_rel_ebd": "layer_norm|group_norm"}, "norm_rel_ebd"),
        "deberta-v2-even-convolution": (deberta | {"conv_kernel_size": 4}, "conv_kernel_size"),
        "deberta-v2-convolution-groups": (deberta | {"conv_kernel_size": 3, "conv_groups": 5}, "conv_groups"),
        "deberta-v2-z-steps": (deberta | {"z_steps": 2}, "z_steps"),
        "deberta-v2-head-size": (deberta | {"attention_head_size": 16}, "attention_head_size"),
        "deberta-talking-head": (deberta_v1 | {"talking_head": True}, "talking_head"),
        "deberta-heads-do-not-divide": (deberta_v1 | {"num_attention_heads": 5}, "num_attention_heads"),
        "albert-more-groups-than-layers": (albert | {"num_hidden_groups": 3}, "num_hidden_groups"),
        "albert-no-layer-in-a-group": (albert | {"inner_group_num": 0}, "inner_group_num"),
        "position-embedding-type-relative-key": (base | {"position_embedding_type": "relative_key"}, "position_embedding_type"),
        "position-embedding-type-relative-key-query": (roberta | {"position_embedding_type": "relative_key_query"}, "position_embedding_type"),
        "is-decoder": (base | {"is_decoder": True}, "is_decoder"),
        "hidden-act-unknown": (base | {"hidden_act": "snake"}, "hidden_act"),
        "model-type-unknown": (base | {"model_type": "retnet"}, "model_type"),
        "model-type-missing": ({k: v for k, v in base.items() if k != "model_type"}, "model_type"),
        "modernbert-rope-type": (modernbert | {"rope_parameters": {"full_attention": {"rope_type": "longrope", "factor": 4.0}}}, "rope_parameters.full_attention.rope_type"),
        "modernbert-rope-scaling": (modernbert | {"rope_scaling": {"rope_type": "linear"}}, "rope_scaling.factor"),
        "llama-key-heads-do-not-divide": (llama | {"num_key_value_heads": 3}, "num_key_value_heads"),
        "llama-rope-type": (llama | {"rope_parameters": None, "rope_scaling": {"type": "longrope"}}, "rope_scaling.rope_type"),
        "llama-partial-rotation": (llama | {"rope_parameters": {"rope_theta": 10.0, "partial_rotary_factor": 0.5}}, "rope_parameters.partial_rotary_factor"),
        "llama-odd-heads": (llama | {"head_dim": 7}, "head_dim"),
        "qwen2-layer-types-without-window": (qwen2 | {"use_sliding_window": False, "layer_types": ["sliding_attention", "full_attention"]}, "layer_types"),
        "nomic-bert-absent-biases": (base | {"model_type": "nomic_bert", "n_embd": 32, "n_head": 4, "activation_function": "swiglu", "layer_norm_epsilon": 1e-12, "mlp_fc1_bias": False, "mlp_fc2_bias": False}, "qkv_proj_bias"),
        "gemma3-capped-scores": (gemma3 | {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        "new-class-unknown": (base | {"model_type": "new", "auto_map": {"AutoModel": "modeling.OtherModel"}}, "auto_map.AutoModel"),
        "new-layer-norm-type": (base | {"model_type": "new", "layer_norm_type": "rms_norm"}, "layer_norm_type"),
        "nomic-bert-prenorm": (base | {"model_type": "nomic_bert", "n_embd": 32, "n_head": 4, "prenorm": True}, "prenorm"),
        "nomic-bert-activation": (base | {"model_type": "nomic_bert", "n_embd": 32, "n_head": 4, "activation_function": "gelu"}, "activation_function"),
        "modernbert-window-of-zero": (modernbert | {"local_attention": 0}, "local_attention"),
        "modernbert-heads-do-not-divide": (modernbert | {"num_attention_heads": 5}, "num_attention_heads"),
        "modernbert-odd-heads": (modernbert | {"num_attention_heads": 32}, "num_attention_heads"),
        "modernbert-layer-types": (modernbert | {"layer_types": ["full_attention", "chunked_attention"]}, "layer_types"),
        "heads-do-not-divide": (base | {"num_attention_heads": 5}, "num_attention_heads"),
    }
    for name, (config, field) in cases.items():
        folder = REFUSED / name
        if NAMES and name not in NAMES:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        (folder / "field.txt").write_text(field + "\n")


def write_readme():
    begin, end = "<!-- cases: written by generate_architectures.py -->", "<!-- end of cases -->"
    readme = HERE / "README.md"
    text = readme.read_text()
    table = "| case | saved as | first tensor name | size | f32 error of torch | what it is for |\n|---|---|---|---|---|---|\n"
    head, rest = text.split(begin)
    old, tail = rest.split(end)
    lines = {line.split("`")[1]: line + "\n" for line in old.splitlines() if line.startswith("| `")}
    lines |= {a: "| " + " | ".join((f"`{a}`", b, f"`{c}`", d, e, f)) + " |\n" for a, b, c, d, e, f in rows}
    table += "".join(lines[name] for name in names if name in lines)
    readme.write_text(f"{head}{begin}\n{table}{end}{tail}")


if __name__ == "__main__":
    assert transformers.__version__ == "5.23.0" and torch.__version__.startswith("2.15.0") and safetensors.__version__ == "0.8.0"
    for folder in (ARCHITECTURES, REFUSED):
        if not NAMES:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(exist_ok=True)
    architectures()
    refused()
    write_readme()
