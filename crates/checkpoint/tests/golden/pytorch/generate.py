"""Writes the golden PyTorch checkpoints beside this script with the real torch.save.

Each directory holds config.json, the checkpoint, and expected.safetensors with the same tensors as torch.load gives them, made
contiguous. `bert` is the model of crates/model/tests/golden/architectures/bert, saved again, and `adapter` the adapter `lora` beside it.

Versions: torch 2.15.0, safetensors 0.8.0.
Run: OMP_NUM_THREADS=1 python generate.py
"""

import json
import pickle
import shutil
import struct
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
MODELS = HERE.parents[3] / "model" / "tests" / "golden"
MODEL = MODELS / "architectures" / "bert"


def state_dict():
    generator = torch.Generator().manual_seed(3)

    def random(*shape):
        return torch.randn(shape, generator=generator)

    matrix = random(4, 6)
    module = torch.nn.Linear(3, 2)
    with torch.no_grad():
        module.weight.copy_(random(2, 3))
        module.bias.copy_(random(2))
    tied = random(5, 4)
    storage = random(40)
    tensors = OrderedDict()
    tensors["float"] = matrix
    tensors["double"] = random(3).double()
    tensors["half"] = random(2, 3).half()
    tensors["bfloat16"] = random(2, 3).bfloat16()
    tensors["int64"] = torch.arange(5).reshape(1, 5)
    tensors["int32"] = torch.tensor([-7, 70000], dtype=torch.int32)
    tensors["int16"] = torch.tensor([-300, 300], dtype=torch.int16)
    tensors["int8"] = torch.tensor([-128, 127], dtype=torch.int8)
    tensors["uint8"] = torch.tensor([0, 255], dtype=torch.uint8)
    tensors["bool"] = torch.tensor([True, False, True])
    tensors["scalar"] = torch.tensor(2.5)
    tensors["empty"] = torch.zeros(0, 3)
    tensors["transposed"] = matrix.t()
    tensors["permuted"] = storage[4:28].reshape(2, 3, 4).permute(2, 0, 1)
    tensors["rows"] = storage[3:23].reshape(5, 4)[1:4]
    tensors["columns"] = storage[:20].reshape(5, 4)[:, 1:3]
    tensors["every_third"] = storage[2::3]
    tensors["one_row"] = storage[:8].reshape(1, 8)[:, 2:]
    tensors["tied"] = tied
    tensors["tied.again"] = tied
    tensors["tied.transposed"] = tied.t()
    tensors["tied.transposed.again"] = tied.t()
    tensors["parameter"] = torch.nn.Parameter(random(3, 2))
    tensors["frozen"] = torch.nn.Parameter(random(2), requires_grad=False)
    tensors["parameter_with_state"] = torch.nn.Parameter(random(2, 3))
    tensors["parameter_with_state"].note = "an attribute of Python"
    # As a module gives it: with the attribute _metadata.
    for name, value in module.state_dict().items():
        tensors[f"module.{name}"] = value
    tensors._metadata = module.state_dict()._metadata
    return tensors


def directory(name):
    path = HERE / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    (path / "config.json").write_text("{}\n")
    return path


def expected(path, *files):
    tensors = {}
    for file in files:
        for name, value in torch.load(path / file, weights_only=True).items():
            if isinstance(value, torch.Tensor):
                tensors[name] = value.detach().clone(memory_format=torch.contiguous_format)
    save_file(tensors, path / "expected.safetensors")


def save(name, tensors, file="pytorch_model.bin", **options):
    path = directory(name)
    torch.save(tensors, path / file, **options)
    expected(path, file)
    return path


def sharded():
    path = directory("sharded")
    parts = [{"a": torch.arange(6.0).reshape(2, 3), "b": torch.arange(3)}, {"c": torch.arange(4.0).reshape(2, 2).t()}]
    names = [f"pytorch_model-0000{at}-of-00002.bin" for at in (1, 2)]
    for name, part in zip(names, parts):
        torch.save(part, path / name)
    weight_map = {tensor: name for name, part in zip(names, parts) for tensor in part}
    index = {"metadata": {"total_size": 64}, "weight_map": weight_map}
    (path / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=2) + "\n")
    expected(path, *names)


class StoragePart:
    def __init__(self, part):
        self.part = part


class Rebuilt:
    def __init__(self, part, offset, shape, strides):
        self.arguments = (StoragePart(part), offset, shape, strides, False, OrderedDict())

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, self.arguments


class PartPickler(pickle.Pickler):
    def persistent_id(self, value):
        if isinstance(value, StoragePart):
            return "storage", torch.FloatStorage, "7", "cpu", 40, value.part
        return None


def stream_parts():
    """Tensors of parts of a storage, which torch.save once wrote and torch.load still reads."""
    path = directory("stream-parts")
    part = ("8", 4, 24)
    tensors = {
        "whole": Rebuilt(None, 0, (5, 8), (8, 1)),
        "part": Rebuilt(part, 0, (24,), (1,)),
        "rows": Rebuilt(part, 8, (2, 4), (4, 1)),
        "transposed": Rebuilt(part, 1, (4, 2), (1, 4)),
        "last": Rebuilt(("9", 39, 1), 0, (1,), (1,)),
    }
    with open(path / "pytorch_model.bin", "wb") as file:
        pickle.dump(torch.serialization.MAGIC_NUMBER, file, protocol=2)
        pickle.dump(torch.serialization.PROTOCOL_VERSION, file, protocol=2)
        pickle.dump({"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}, file, protocol=2)
        PartPickler(file, protocol=2).dump(tensors)
        pickle.dump(["7"], file, protocol=2)
        file.write(struct.pack("<q", 40) + torch.arange(40.0).numpy().tobytes())
    expected(path, "pytorch_model.bin")


def main():
    save("archive", state_dict())
    save("stream", state_dict(), _use_new_zipfile_serialization=False)
    # Types without a storage class of their own.
    new_types = {
        "float8_e4m3fn": torch.tensor([0.5, -448.0]).to(torch.float8_e4m3fn),
        "float8_e5m2": torch.tensor([0.5, -57344.0]).to(torch.float8_e5m2),
        "uint16": torch.tensor([1, 65535], dtype=torch.uint16),
        "uint32": torch.tensor([1, 4294967295], dtype=torch.uint32),
        "uint64": torch.tensor([[1], [2], [3]], dtype=torch.uint64).t(),
    }
    save("new-types", new_types)
    save("values-beside", OrderedDict(step=5, weight=torch.arange(3.0), none=None, version="x", rate=0.5, optimizer={"state": [1]}))
    torch.save({"state_dict": {"weight": torch.arange(3.0)}, "epoch": 3}, directory("nested") / "pytorch_model.bin")
    sharded()
    stream_parts()
    torch.save(load_file(MODELS / "adapters" / "lora" / "adapter_model.safetensors"), directory("adapter") / "adapter_model.bin")
    path = directory("bert")
    shutil.copy(MODEL / "config.json", path)
    torch.save(OrderedDict(load_file(MODEL / "model.safetensors")), path / "pytorch_model.bin")
    total = sum(file.stat().st_size for file in HERE.rglob("*") if file.is_file())
    print(f"{total} bytes")


if __name__ == "__main__":
    main()
