"""A BERT of one layer, and what torch.ao.quantization.quantize_dynamic makes of its queries, keys and values.

    OMP_NUM_THREADS=1 python generate.py

Made with: Python 3.11, torch 2.15.0, transformers 5.23.0, safetensors 0.8.0. The script refuses other versions of torch.

The embeddings are +1 and -1, as often the one as the other, so that LayerNorm gives exactly +gamma + beta or -gamma + beta (in
PyTorch, whose running mean divides by every count, for most orders of signs; the others are drawn again): the inputs of the first linear layers have known bits, and their outputs can be compared bit for
bit. (Behind attention the float operations of two programs differ in their last bits.)
"""

import json
import warnings
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertModel

assert torch.__version__.split("+")[0] == "2.15.0", torch.__version__
warnings.filterwarnings("ignore")
torch.set_num_threads(1)
HERE = Path(__file__).parent
HIDDEN, VOCABULARY = 32, 24
TEXTS = [[1, 2, 3], [4], list(range(5, 24)), [0, 7, 7, 21, 22]]

torch.manual_seed(0)
config = BertConfig(
    hidden_size=HIDDEN, intermediate_size=40, num_hidden_layers=1, num_attention_heads=4, vocab_size=VOCABULARY,
    max_position_embeddings=32, type_vocab_size=1, layer_norm_eps=1e-12, hidden_act="gelu", pad_token_id=0,
)
model = BertModel(config, add_pooling_layer=False).eval()
with torch.no_grad():
    for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape) * 0.2)
    embeddings = model.embeddings
    signs = torch.tensor([1.0, -1.0]).repeat(HIDDEN // 2)
    for row in embeddings.word_embeddings.weight:
        while True:
            row.copy_(signs[torch.randperm(HIDDEN)])
            if torch.equal(torch.nn.functional.layer_norm(row, [HIDDEN], eps=1e-12), row):
                break
    embeddings.position_embeddings.weight.zero_()
    embeddings.token_type_embeddings.weight.zero_()
    # One channel far beyond the others, as encoders have them.
    embeddings.LayerNorm.weight[5] = 9.0

with torch.no_grad():
    for ids in TEXTS:
        found = embeddings(torch.tensor([ids]))[0]
        signs = embeddings.word_embeddings.weight[ids]
        assert torch.equal(found, signs * embeddings.LayerNorm.weight + embeddings.LayerNorm.bias)

engines = {}
for engine in ("fbgemm", "x86", "qnnpack", "onednn"):
    torch.backends.quantized.engine = engine
    quantized = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, torch.qint8)
    attention = quantized.encoder.layer[0].attention.self
    outputs = {name: [] for name in ("query", "key", "value")}
    for name, values in outputs.items():
        getattr(attention, name).register_forward_hook(lambda _, __, out, values=values: values.append(out[0].detach()))
    with torch.no_grad():
        for ids in TEXTS:
            quantized(input_ids=torch.tensor([ids]))
    engines[engine] = {name: torch.cat(values).flatten().numpy().view(np.uint32).tolist() for name, values in outputs.items()}
    scales = {
        name: int(np.float32(module.weight().q_scale()).view(np.uint32))
        for name, module in quantized.named_modules()
        if isinstance(module, torch.ao.nn.quantized.dynamic.Linear)
    }
    codes = attention.query.weight().int_repr().flatten().tolist()
assert engines["fbgemm"] == engines["x86"]

save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, HERE / "model.safetensors")
(HERE / "config.json").write_text(config.to_json_string())
(HERE / "expected.json").write_text(
    json.dumps({"texts": TEXTS, "outputs": engines, "weight_scales": scales, "query_codes": codes}, separators=(",", ":")) + "\n"
)
