"""Recipes of ``fewbit quantize`` as configs of training, and the configs of trained layers as a recipe."""

# torch is typed in parts, and what modules are made of is private there.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

import json
import os
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from fewbit import _fewbit
from fewbit.torch import encoders
from fewbit.torch.qat import adapters
from fewbit.torch.qat.config import (
    BaseConfig,
    Int4WeightOnlyConfig,
    Int8DynamicActivationInt4WeightConfig,
    Int8DynamicActivationInt8WeightConfig,
    Int8StaticActivationInt8WeightConfig,
    Int8WeightOnlyConfig,
    NF4WeightOnlyConfig,
)

#: The configs of a method, by the weights.
_CONFIGS: dict[tuple[str, str], type[Any]] = {
    ("dynamic", "int8"): Int8DynamicActivationInt8WeightConfig,
    ("dynamic", "int4"): Int8DynamicActivationInt4WeightConfig,
    ("static", "int8"): Int8StaticActivationInt8WeightConfig,
    ("weight-only", "int8"): Int8WeightOnlyConfig,
    ("weight-only", "int4"): Int4WeightOnlyConfig,
}
_KEYS = {
    "version", "method", "weights", "group_size", "asymmetric", "layout", "scales", "block_size", "double_quant", "embeddings", "skip", "weight_only",
    "modules", "static_inputs", "gptq",
}  # fmt: skip


@dataclass
class LayerConfigs:
    """What a recipe says of the layers of one model.

    Attributes:
        config: Of the layers that ``modules`` does not name.
        modules: Configs of single layers, by their names in the model.
        skip: Names of layers that stay float.
        has_table: Whether tables of word embeddings are quantized, too.
    """

    config: BaseConfig
    modules: dict[str, BaseConfig] = field(default_factory=dict[str, BaseConfig])
    skip: list[str] = field(default_factory=list[str])
    has_table: bool = False


def is_recipe(config: Any) -> bool:
    """Whether an argument is a recipe: its keys, or the path of a file."""
    is_path = isinstance(config, os.PathLike) or (isinstance(config, str) and config.endswith((".toml", ".json")))
    return is_path or isinstance(config, Mapping)


def configs_of_recipe(source: Any, model: nn.Module) -> LayerConfigs:
    """What a recipe says of the layers of ``model``.

    Args:
        source: A path, or the keys.
        model: A float model.

    Raises:
        FewbitError: No recipe.
        ValueError: A key that training does not know what to do with, or a glob that matches no layer.
    """
    if isinstance(source, Mapping):
        recipe = json.loads(_fewbit.read_recipe(text=json.dumps({"version": 1, **source})))
    else:
        recipe = json.loads(_fewbit.read_recipe(file=os.fspath(source)))
    return _Reading(recipe, model).run()


class _Reading:
    """A recipe, and the layers that its globs are about, by the names in the model and by those without the prefix of an encoder."""

    def __init__(self, recipe: dict[str, Any], model: nn.Module) -> None:
        self.recipe = recipe
        self.method: str = recipe["method"]
        self.model = model
        self.layers: dict[str, str] = {name: name for name in _linear_layers(model)}
        for prefix, encoder in encoders.encoders_in(model):
            self.layers.update({(f"{prefix}.{name}" if prefix else name): name for name in _linear_layers(encoder)})

    def run(self) -> LayerConfigs:
        recipe = self.recipe
        for key in recipe:
            if key not in _KEYS:
                raise ValueError(f"recipe: expected none of the keys that training does not know, found `{key}`\n  hint: leave it out, and convert what was written")
        if (self.method, "int8") not in _CONFIGS and self.method != "nf4":
            raise ValueError(f"recipe: expected the method dynamic, static, weight-only or nf4, found `{self.method}`")
        if recipe.get("gptq"):
            warnings.warn("gptq: training begins with the nearest codes of the float weights, and is what chooses codes", stacklevel=4)
        found = LayerConfigs(self._config(recipe, self.method), has_table=self._has_table())
        for pattern in recipe.get("skip", []):
            found.skip += self._matching("skip", pattern)
        weights: dict[str, Mapping[str, Any]] = {}
        # A layer's own path comes last, and so before globs.
        modules: dict[str, Any] = recipe.get("modules", {})
        for pattern in sorted(modules, key=lambda pattern: pattern in self.layers.values() or pattern in self.layers):
            weights.update((name, modules[pattern]) for name in self._matching("modules", pattern))
        only = {name for pattern in recipe.get("weight_only", []) for name in self._matching("weight_only", pattern)}
        static = recipe.get("static_inputs")
        for name, short in self.layers.items():
            # Without a scale of its own an input is quantized token by token.
            method = "weight-only" if name in only else "dynamic" if static is not None and short not in static and name not in static else self.method
            if name in weights or method != self.method:
                found.modules[name] = self._config(weights.get(name, recipe), method)
        return found

    def _matching(self, key: str, pattern: str) -> list[str]:
        own = [name for name, short in self.layers.items() if pattern in (name, short)]
        names = own or [name for name, short in self.layers.items() if fnmatchcase(name, pattern) or fnmatchcase(short, pattern)]
        if not names:
            raise ValueError(f"recipe: {key}: expected names of linear layers, or globs, found {pattern!r}, which matches none\n  hint: model.named_modules() lists them")
        return names

    def _config(self, keys: Mapping[str, Any], method: str) -> BaseConfig:
        if method == "nf4":
            if keys.get("scales", "absmax") != "absmax":
                raise ValueError(f"recipe: scales: expected `absmax` of NF4 blocks, found `{keys['scales']}`")
            return NF4WeightOnlyConfig(keys.get("block_size", 64), keys.get("double_quant", False))
        weights = keys.get("weights", "int8")
        kind = _CONFIGS.get((method, weights))
        if kind is None:
            raise ValueError(f"recipe: weights: expected int8, or with `dynamic` and `weight-only` int4, found `{weights}` with `{method}`")
        asymmetric = keys.get("asymmetric", False)
        layout = keys.get("layout", "pack-quantized")
        if weights == "int8":
            if "group_size" in keys or "layout" in keys:
                raise ValueError("recipe: weights: expected int8 with a scale for each output, found other int8 weights")
            config: BaseConfig = kind()
            return config
        if layout != "pack-quantized" and not (asymmetric and layout == "int-quantized"):
            raise ValueError(f"recipe: layout: expected none, found `{layout}`\n  hint: `fewbit convert` writes other layouts of what training gives")
        if asymmetric and layout == "pack-quantized":
            warnings.warn("layout: asymmetric int4 of training is written as `int-quantized`: the same codes, a byte each", stacklevel=6)
        scales = keys.get("scales", "mse")
        if scales not in ("absmax", "mse"):
            raise ValueError(f"recipe: scales: expected `absmax` or `mse`, found `{scales}`, which needs calibration texts")
        size = keys.get("group_size", 64)
        config = kind(group_size=None if size == "channel" else size, asymmetric=asymmetric, scales=scales)
        return config

    def _has_table(self) -> bool:
        word = self.recipe.get("embeddings", "keep")
        if word not in ("auto", "keep", "int8", "nf4") or (word == "int8" and self.method == "nf4"):
            raise ValueError(f"recipe: embeddings: expected one that training has with `{self.method}`, found `{word}`")
        if word != "auto":
            return bool(word != "keep")
        if self.method == "nf4":
            return False
        # Loaders cannot run a head that predicts words on the codes of the table that it shares.
        tables = [module.weight for module in self.model.modules() if isinstance(module, nn.Embedding)]
        heads = {id(module.weight) for module in self.model.modules() if isinstance(module, nn.Linear)}
        return not any(id(table) in heads for table in tables)


def _linear_layers(model: nn.Module) -> list[str]:
    """The names of linear layers; of one with an adapter that of the adapted one alone."""
    adapted = tuple(f"{name}." for name, module in model.named_modules() if adapters.is_adapted(module))
    return [
        name
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear) or adapters.is_adapted(module)) and not name.startswith(adapted)
    ]


def recipe_of(configs: Mapping[str, BaseConfig], tables: Mapping[str, BaseConfig]) -> dict[str, Any] | str:
    """The recipe, but for the ranges of static inputs, of an encoder whose layers have these configs; or the reason why no recipe says so.

    Args:
        configs: Of linear layers, by the names in the encoder.
        tables: Of embedding tables.
    """
    if not configs:
        return "only its embeddings are quantized"
    methods = {config.method for config in configs.values()}
    if "nf4" in methods:
        if len(set(configs.values())) > 1:
            return "beside NF4 layers a directory has none of another kind, or with other blocks"
        config = next(iter(configs.values()))
        if any(table != config for table in tables.values()):
            return "beside NF4 layers a directory has a table in the same blocks"
        found: dict[str, Any] = {"method": "nf4", **_weight_keys(config)}
        return {**found, "embeddings": "nf4"} if tables else found
    if any(table.method == "nf4" for table in tables.values()):
        return "beside integers a directory has no table of NF4 codes"
    if {"static", "weight-only"} <= methods:
        return "layers with static inputs and with float ones do not go into one directory"
    # A static model quantizes inputs without a range token by token, and one of the method dynamic has single layers with float inputs.
    method = next(known for known in ("static", "dynamic", "weight-only") if known in methods)
    keys = {name: _weight_keys(config) for name, config in configs.items()}
    commonest = Counter(json.dumps(entry) for entry in keys.values()).most_common(1)[0][0]
    found = {"method": method, **json.loads(commonest)}
    modules = {name: entry for name, entry in keys.items() if json.dumps(entry) != commonest}
    if modules:
        found["modules"] = modules
    only = [name for name, config in configs.items() if config.method == "weight-only" and method != "weight-only"]
    if only:
        found["weight_only"] = only
    return {**found, "embeddings": "int8"} if tables else found


def _weight_keys(config: BaseConfig) -> dict[str, Any]:
    """The keys of a recipe, or of a layer in it, that say the same of the weights."""
    weight = config.weight
    if weight.kind == "nf4":
        return {"block_size": weight.block_size, "double_quant": weight.double_quant}
    if weight.kind == "int8":
        return {"weights": "int8"}
    found: dict[str, Any] = {"weights": "int4", "group_size": "channel" if weight.group_size is None else weight.group_size}
    # Scales that were learned are written as they are.
    found["scales"] = "mse" if weight.scales == "mse" else "absmax"
    if weight.asymmetric:
        # transformers makes no place for packed zero points.
        found.update(asymmetric=True, layout="int-quantized")
    return found
