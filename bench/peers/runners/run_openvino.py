"""OpenVINO. Arguments: MODEL.xml THREADS PRECISION, where PRECISION is f32, or `default` for what the CPU plugin chooses (bf16 where the CPU has it)."""

import sys

import openvino
from protocol import Engine, serve


class OpenVino(Engine):
    """Latency hint, one stream. Fixed shapes run a model reshaped to them, sentences one with dynamic shapes. Only the last one compiled is
    kept, as each may hold its own copy of the weights."""

    def __init__(self, model, threads, precision):
        self.core = openvino.Core()
        self.model = self.core.read_model(model)
        self.settings = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": str(threads)}
        if precision != "default":
            self.settings["INFERENCE_PRECISION_HINT"] = precision
        self.names = [port.any_name for port in self.model.inputs]
        self.shape, self.request = None, None

    def compile(self, shape):
        """Makes `request` one of the model compiled for `shape`: (-1, -1) for any."""
        if shape != self.shape:
            self.shape, self.request = None, None
            model = self.model.clone()
            model.reshape({port: openvino.PartialShape(list(shape)) for port in model.inputs})
            self.request = self.core.compile_model(model, "CPU", self.settings).create_infer_request()
            self.shape = shape

    def prepare(self, batch, fixed):
        self.compile(tuple(batch["input_ids"].shape) if fixed else (-1, -1))
        return {name: batch[name] for name in self.names}

    def run(self, inputs):
        return self.request.infer(inputs, share_inputs=True, share_outputs=True)

    def hidden_states(self, outputs):
        return outputs[0]


def load(model, threads):
    return f"openvino {openvino.__version__.split('-')[0]}", OpenVino(model, threads, sys.argv[3])


serve(load)
