"""Converts one checkpoint for every engine: float files and INT8 files, cached beside each other.

    python convert.py MODEL OUT --calibration texts.jsonl --fewbit target/release/fewbit [--only NAME,…]

A conversion that is there already, made of the same weights with the same library versions and the same calibration texts, is kept.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["TQDM_DISABLE"] = "1"

import float_model
import workloads

CALIBRATION_TEXTS = 128
# An ONNX file may not be larger; the exporter by itself, and what is fused, then have the weights beside it.
LARGEST_ONNX_BYTES = 2**31


def exportable(model, attention=None):
    """The float model, ready for export: last hidden states as its only output; and the names of its inputs. `attention` is float_model's."""
    import torch

    network = float_model.load(model, attention)
    names = float_model.input_names(network.config)

    class LastHiddenState(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, *inputs):
            return self.network(**dict(zip(names, inputs))).last_hidden_state

    return LastHiddenState().eval(), names


def example(names):
    """Inputs for tracing: two sequences, one of them padded."""
    import torch

    batch = workloads.pad([[101, 2023, 2003, 1037, 3231, 102], [101, 2023, 102]])
    return tuple(torch.from_numpy(batch[name]) for name in names)


def onnx(job):
    """model.onnx: float32, batch and length dynamic. From the TorchScript exporter with eager attention, as that is the graph in which
    onnxruntime's optimizer finds every attention; what the newer exporter makes, it leaves in pieces."""
    import torch

    network, names = exportable(job.model, "eager")
    torch.onnx.export(
        network,
        example(names),
        str(job.out / "model.onnx"),
        input_names=names,
        output_names=["last_hidden_state"],
        dynamic_axes={name: {0: "batch", 1: "tokens"} for name in [*names, "last_hidden_state"]},
        opset_version=17,
        dynamo=False,
    )


def onnx_optimized(job):
    """model.onnx: the fusions of onnxruntime.transformers (attention, GELU, LayerNorm with residual). In other families than BERT they find
    the last two, RMSNorm too, but no attention; those that it has under the name of qwen3 find no more."""
    from onnxruntime.transformers import optimizer

    config = json.loads((job.model / "config.json").read_text())
    source = job.source("onnx")
    optimized = optimizer.optimize_model(
        str(source / "model.onnx"),
        model_type="bert",
        num_heads=config["num_attention_heads"],
        hidden_size=config["hidden_size"],
        opt_level=1,
    )
    large = sum(file.stat().st_size for file in source.iterdir()) >= LARGEST_ONNX_BYTES
    optimized.save_model_to_file(str(job.out / "model.onnx"), use_external_data_format=large)


def onnx_dynamic(job, source, per_channel):
    """model.onnx: onnxruntime's quantize_dynamic of the conversion `source`; a scale for each weight matrix or for each output channel."""
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        job.source(source) / "model.onnx",
        job.out / "model.onnx",
        weight_type=QuantType.QInt8,
        per_channel=per_channel,
        # Shape inference does not know the types behind fused operators; they are all float.
        extra_options={"DefaultTensorType": TensorProto.FLOAT},
    )


def onnx_static(job):
    """model.onnx: quantize_static, QDQ, MinMax ranges of the calibration texts, products with a constant matrix."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

    class Texts(CalibrationDataReader):
        def __init__(self):
            self.batches = iter(job.calibration_batches())

        def get_next(self):
            return next(self.batches, None)

    quantize_static(
        job.source("onnx") / "model.onnx",
        job.out / "model.onnx",
        Texts(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        calibrate_method=CalibrationMethod.MinMax,
        op_types_to_quantize=["MatMul", "Gemm"],
        extra_options={"MatMulConstBOnly": True},
    )


def openvino_model(job):
    import openvino

    network, names = exportable(job.model)
    model = openvino.convert_model(network, example_input=example(names))
    for port, name in zip(model.inputs, names):
        port.get_tensor().set_names({name})
        port.get_node().set_friendly_name(name)
        port.get_node().set_partial_shape(openvino.PartialShape([-1, -1]))
    model.validate_nodes_and_infer_types()
    return model


def openvino(job):
    """model.xml: openvino.convert_model of the torch model, float32."""
    import openvino as ov

    ov.save_model(openvino_model(job), job.out / "model.xml", compress_to_fp16=False)


def openvino_int8(job):
    """model.xml: NNCF post-training quantization for transformers."""
    import nncf
    import openvino as ov

    quantized = nncf.quantize(
        openvino_model(job),
        nncf.Dataset(job.calibration_batches()),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=CALIBRATION_TEXTS,
    )
    ov.save_model(quantized, job.out / "model.xml", compress_to_fp16=False)


def openvino_int8_weights(job):
    """model.xml: NNCF's compression of the weights alone to INT8, which is what OpenVINO does to decoders; what activations are is up to the plugin."""
    import nncf
    import openvino as ov

    ov.save_model(nncf.compress_weights(openvino_model(job)), job.out / "model.xml", compress_to_fp16=False)


def ctranslate2(job, quantization):
    from ctranslate2.converters import TransformersConverter

    TransformersConverter(str(job.model)).convert(str(job.out / "model"), quantization=quantization)


def fewbit(job):
    """model/: fewbit quantize --method dynamic."""
    command = [job.fewbit, "quantize", job.model, "--output", job.out / "model", "--method", "dynamic"]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.stderr)


# Name, what makes it, the packages (besides torch and transformers) whose versions it depends on, the conversions it starts from.
CONVERSIONS = {
    "onnx": (onnx, ["onnx"], []),
    "onnx-optimized": (onnx_optimized, ["onnxruntime"], ["onnx"]),
    "onnx-dynamic": (lambda job: onnx_dynamic(job, "onnx-optimized", False), ["onnxruntime"], ["onnx-optimized"]),
    "onnx-dynamic-per-channel": (lambda job: onnx_dynamic(job, "onnx-optimized", True), ["onnxruntime"], ["onnx-optimized"]),
    "onnx-dynamic-plain": (lambda job: onnx_dynamic(job, "onnx", True), ["onnxruntime"], ["onnx"]),
    "onnx-static": (onnx_static, ["onnxruntime"], ["onnx"]),
    "openvino": (openvino, ["openvino"], []),
    "openvino-int8": (openvino_int8, ["openvino", "nncf"], []),
    "openvino-int8-weights": (openvino_int8_weights, ["openvino", "nncf"], []),
    "ctranslate2": (lambda job: ctranslate2(job, "float32"), ["ctranslate2"], []),
    "ctranslate2-int8": (lambda job: ctranslate2(job, "int8"), ["ctranslate2"], []),
    "fewbit-int8": (fewbit, [], []),
}


class Job:
    """One conversion: where it reads and where it writes."""

    def __init__(self, arguments, name):
        self.arguments, self.name = arguments, name
        self.model, self.fewbit = arguments.model, arguments.fewbit
        self.target = arguments.out / name
        self.out = None

    def source(self, name):
        return self.arguments.out / name

    def calibration_batches(self):
        """The calibration texts, each a batch of its own: nothing padded, so that padding does not set a range."""
        from transformers import AutoConfig

        names = float_model.input_names(AutoConfig.from_pretrained(self.model))
        texts = workloads.read_texts(self.arguments.calibration, CALIBRATION_TEXTS)
        batches = [workloads.pad([sequence]) for sequence in workloads.tokenize(self.model, texts)]
        return [{name: batch[name] for name in names} for batch in batches]

    def stamp(self):
        """Everything that the result depends on."""
        _, packages, sources = CONVERSIONS[self.name]
        files = [self.model / "config.json", *sorted(self.model.glob("*.safetensors")), self.arguments.calibration, Path(__file__), Path(float_model.__file__)]
        if self.name.startswith("fewbit"):
            files.append(self.fewbit)
        return {
            "files": {file.name: hashlib.file_digest(file.open("rb"), "sha256").hexdigest() for file in files},
            "packages": {name: importlib.metadata.version(name) for name in ["torch", "transformers", *packages]},
            "sources": {name: json.loads((self.source(name) / "stamp.json").read_text()) for name in sources},
        }

    def run(self):
        """Makes the conversion unless it is there; renamed into place when it is whole."""
        stamp = self.stamp()
        written = self.target / "stamp.json"
        if written.exists() and json.loads(written.read_text()) == stamp:
            return
        print(f"converting: {self.name}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(dir=self.arguments.out) as scratch:
            self.out = Path(scratch) / self.name
            self.out.mkdir()
            CONVERSIONS[self.name][0](self)
            (self.out / "stamp.json").write_text(json.dumps(stamp, indent=1))
            shutil.rmtree(self.target, ignore_errors=True)
            self.out.rename(self.target)


def order(names):
    """`names` and what they start from, sources first."""
    found = []
    for name in names:
        for needed in [*order(CONVERSIONS[name][2]), name]:
            if needed not in found:
                found.append(needed)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--fewbit", type=Path, help="the fewbit program, for the conversion fewbit-int8")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(CONVERSIONS))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in order(arguments.only):
        Job(arguments, name).run()


if __name__ == "__main__":
    main()
