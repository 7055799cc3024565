"""transformers' model in float, without what an embedding does not need, and the inputs that it takes."""

import inspect


def load(model, attention=None):
    """The network of the checkpoint `model`: float32, no pooling layer, no cache of keys and values. `attention` is transformers' name
    of an implementation; None: its own choice, which is `sdpa` where the family has it, and else `eager`."""
    import torch
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(model)
    choices = {"attn_implementation": attention} if attention else {}
    if "add_pooling_layer" in inspect.signature(AutoModel._model_mapping[type(config)].__init__).parameters:
        choices["add_pooling_layer"] = False
    network = AutoModel.from_pretrained(model, config=config, dtype=torch.float32, **choices).eval()
    if hasattr(network.config, "use_cache"):
        network.config.use_cache = False
    return network


def input_names(config):
    """The arrays of workloads.pad that a model with this configuration reads."""
    segments = ["token_type_ids"] if getattr(config, "type_vocab_size", 0) else []
    return ["input_ids", "attention_mask", *segments]
