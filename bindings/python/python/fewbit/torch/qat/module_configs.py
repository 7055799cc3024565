"""Which config each layer of a model has, where they are not all the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from fnmatch import fnmatchcase

from torch import nn

from fewbit.torch.qat.config import SCALES, BaseConfig, Scales, expect


def is_glob(pattern: str) -> bool:
    """Whether a key is a pattern, and not the name of a module."""
    return any(character in pattern for character in "*?[")


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern is about a module: about its name, or that of a module that it is in."""
    return fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")


class ModuleConfigs:
    """The configs of layers by their names and types.

    Attributes:
        base: Of all layers that nothing else is said of.
        given: By types, names and patterns: what the caller says.
        of_recipe: By names: what a recipe says of the rest.
    """

    def __init__(self, base: BaseConfig, given: Mapping[type[nn.Module] | str, BaseConfig], of_recipe: Mapping[str, BaseConfig]) -> None:
        self.base = base
        self.given = given
        self.of_recipe = of_recipe
        self._used: set[type[nn.Module] | str] = set()

    def of(self, name: str, kind: type[nn.Module]) -> BaseConfig:
        """The config of a layer of a type.

        Raises:
            ValueError: Two patterns that say different things of it.
        """
        patterns = [key for key in self.given if isinstance(key, str) and matches(name, key)]
        for keys in ([key for key in patterns if key == name], patterns, [key for key in self.given if key is kind]):
            if keys:
                self._used.update(keys)
                first = self.given[keys[0]]
                other = next((key for key in keys if self.given[key] != first), None)
                if other is not None:
                    raise ValueError(
                        f"module_configs: {name}: expected one config, found two: by {keys[0]!r} and by {other!r}\n"
                        "  hint: narrower patterns, or the name of the layer, which goes before them"
                    )
                return first
        return self.of_recipe.get(name, self.base)

    def unused(self) -> type[nn.Module] | str | None:
        """A type, name or pattern that no layer was asked about by."""
        return next((key for key in self.given if key not in self._used), None)

    def with_scales(self, scales: Scales) -> ModuleConfigs:
        """The same, where scales of weights come about like this, as far as a config can have them so.

        Raises:
            ValueError: No such scales.
        """
        expect("scales", scales, SCALES)
        given = {key: _with_scales(config, scales) for key, config in self.given.items()}
        of_recipe = {key: _with_scales(config, scales) for key, config in self.of_recipe.items()}
        return ModuleConfigs(_with_scales(self.base, scales), given, of_recipe)


def _with_scales(config: BaseConfig, scales: Scales) -> BaseConfig:
    kind = config.weight.kind
    if kind == "nf4" or (kind == "int8" and scales == "mse"):
        return config
    return dataclasses.replace(config, scales=scales)  # type: ignore[call-arg]
