"""The engines: what runs each of them, on which files, and with which environment."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

RUNNERS = Path(__file__).resolve().parent / "runners"

# Least mean cosine of an engine's embeddings to PyTorch's float32, by what it computes with. An engine below it does not compute the
# model, and its times mean nothing. f32: only the order of summation differs. bf16: 8 bits of fraction. int8: a scale for each output
# channel. int8-coarse: one scale for a whole weight matrix or activation tensor, outliers and padding included, which costs much on
# some models; what this must tell from it is a wrong input or mask, not a bad scheme.
LEAST_COSINE = {"f32": 0.99999, "bf16": 0.995, "int8": 0.99, "int8-coarse": 0.9}


@dataclass
class Engine:
    """One row of the table."""

    name: str
    # A key of LEAST_COSINE.
    precision: str
    # The conversion that it runs (a name in convert.py); None: the checkpoint itself.
    conversion: str | None
    # File in the conversion's folder.
    file: str
    # What runs it: RUST, a fewbit (FEWBIT_RUNNER, or the name of another build), or the name of a Python runner.
    runner: str
    # Further arguments: of a Python runner behind model and threads; of a program before them.
    arguments: list = field(default_factory=list)
    # Environment that caps the instruction set, by the value of --isa; an engine without an entry cannot be capped.
    isa: dict = field(default_factory=dict)

    def command(self, model, out, programs, threads):
        """The command line of its runner; `programs` has the paths of those that are no Python."""
        path = str(model if self.conversion is None else out / self.conversion / self.file)
        if self.runner in programs:
            return [str(programs[self.runner]), *self.arguments, path, str(threads)]
        return [sys.executable, str(RUNNERS / f"run_{self.runner}.py"), path, str(threads), *self.arguments]


# Runners that are programs of their own: candle, rten and tract; this tree's fewbit.
RUST, FEWBIT_RUNNER = "rust", "fewbit"

FEWBIT = {"avx2": {"FEWBIT_ISA": "avx2"}}
ONEDNN = {"avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "DNNL_MAX_CPU_ISA": "AVX2"}}
TORCH = {"avx2": {**ONEDNN["avx2"], "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}}
CTRANSLATE2 = {"avx2": {**ONEDNN["avx2"], "CT2_FORCE_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}}


def fewbit_rows(suffix, runner):
    """The rows of one build of fewbit; all run the same checkpoints."""
    return [
        Engine(f"fewbit-int8{suffix}", "int8", "fewbit-int8", "model", runner, [], FEWBIT),
        Engine(f"fewbit-f32{suffix}", "f32", None, "", runner, [], FEWBIT),
    ]


ENGINES = [
    *fewbit_rows("", FEWBIT_RUNNER),
    Engine("openvino-int8", "int8", "openvino-int8", "model.xml", "openvino", ["f32"], ONEDNN),
    Engine("openvino-int8-weights", "int8", "openvino-int8-weights", "model.xml", "openvino", ["f32"], ONEDNN),
    Engine("openvino-bf16", "bf16", "openvino", "model.xml", "openvino", ["default"]),
    Engine("openvino-f32", "f32", "openvino", "model.xml", "openvino", ["f32"], ONEDNN),
    Engine("onnxruntime-int8-dynamic", "int8-coarse", "onnx-dynamic", "model.onnx", "onnxruntime"),
    Engine("onnxruntime-int8-dynamic-per-channel", "int8-coarse", "onnx-dynamic-per-channel", "model.onnx", "onnxruntime"),
    Engine("onnxruntime-int8-dynamic-unfused", "int8-coarse", "onnx-dynamic-plain", "model.onnx", "onnxruntime"),
    Engine("onnxruntime-int8-static", "int8-coarse", "onnx-static", "model.onnx", "onnxruntime"),
    Engine("onnxruntime-f32", "f32", "onnx-optimized", "model.onnx", "onnxruntime"),
    Engine("ctranslate2-int8", "int8", "ctranslate2-int8", "model", "ctranslate2", ["int8_float32"], CTRANSLATE2),
    Engine("ctranslate2-f32", "f32", "ctranslate2", "model", "ctranslate2", ["float32"], CTRANSLATE2),
    Engine("torch-int8-dynamic", "int8-coarse", None, "", "torch", ["int8"]),
    Engine("torch-f32", "f32", None, "", "torch", ["f32"], TORCH),
    Engine("rten-int8-dynamic", "int8-coarse", "onnx-dynamic-plain", "model.onnx", RUST, ["rten"]),
    Engine("rten-f32", "f32", "onnx", "model.onnx", RUST, ["rten"]),
    Engine("tract-int8-dynamic", "int8-coarse", "onnx-dynamic-plain", "model.onnx", RUST, ["tract"]),
    Engine("tract-f32", "f32", "onnx", "model.onnx", RUST, ["tract"]),
    Engine("candle-f32", "f32", None, "", RUST, ["candle"]),
]
# Beginnings of the names that --quick runs: what can be installed and is near to fewbit.
QUICK = ["fewbit", "openvino", "onnxruntime", "ctranslate2"]
# Those that --engines has unless told otherwise for a model that is no BERT: they run every family, and fit into memory together at the
# size of Qwen3-Embedding-0.6B.
ANY_FAMILY = ["fewbit", "openvino-int8", "onnxruntime-int8-dynamic-per-channel", "torch-f32"]
# The engine that the others are divided by, the one whose embeddings are right by definition, and ours.
BEST_PEER, REFERENCE, OURS = "openvino-int8", "torch-f32", "fewbit-int8"
