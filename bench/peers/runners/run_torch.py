"""PyTorch, eager, transformers' model. Arguments: DIRECTORY THREADS PRECISION, where PRECISION is f32 or int8 (dynamic)."""

import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["TQDM_DISABLE"] = "1"

import torch
from protocol import Engine, serve

import float_model


class Torch(Engine):
    def __init__(self, model, threads, precision):
        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        self.model = float_model.load(model)
        self.names = float_model.input_names(self.model.config)
        if precision == "int8":
            self.model = torch.ao.quantization.quantize_dynamic(self.model, {torch.nn.Linear}, dtype=torch.qint8)

    def prepare(self, batch, fixed):
        return {name: torch.from_numpy(batch[name]) for name in self.names}

    def run(self, inputs):
        with torch.inference_mode():
            return self.model(**inputs).last_hidden_state

    def hidden_states(self, outputs):
        return outputs.numpy()


serve(lambda model, threads: (f"torch {torch.__version__.split('+')[0]}", Torch(model, threads, sys.argv[3])))
