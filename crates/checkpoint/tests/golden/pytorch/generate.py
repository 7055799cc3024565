"""Writes the golden PyTorch checkpoints beside this script with the real torch.save.

Each directory holds config.json, the checkpoint, and expected.safetensors with the same tensors as torch.load gives them, made
contiguous. `bert` is the model of crates/model/tests/golden/architectures/bert, saved again.

Versions: torch 2.15.0, safetensors 0.8.0.
Run: OMP_NUM_THREADS=1 python generate.py
"""

import json
import shutil
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
MODEL = HERE.parents[3] / "model" / "tests" / "golden" / "architectures" / "bert"


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
    path = directory("bert")
    shutil.copy(MODEL / "config.json", path)
    torch.save(OrderedDict(load_file(MODEL / "model.safetensors")), path / "pytorch_model.bin")
    total = sum(file.stat().st_size for file in HERE.rglob("*") if file.is_file())
    print(f"{total} bytes")


if __name__ == "__main__":
    main()
