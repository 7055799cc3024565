"""What a model is trained to become: schemes of weights and inputs, by the names that torchao has for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

Scales = Literal["absmax", "mse", "learned"]
SCALES = ("absmax", "mse", "learned")


def expect(name: str, found: Any, known: tuple[str, ...]) -> None:
    """Errors unless a setting is a word that is known.

    Raises:
        ValueError: Another word.
    """
    if found not in known:
        raise ValueError(f"{name}: expected one of {', '.join(known)}, found {found!r}")


@dataclass(frozen=True)
class WeightScheme:
    """How the weight of a layer is quantized.

    Attributes:
        kind: ``int8`` with a scale for each output, ``int4`` in groups of columns, or ``nf4`` in blocks of the flattened weight.
        scales: ``absmax`` and ``mse`` follow from the weight, ``learned`` ones are parameters (LSQ, arXiv:1902.08153).
        group_size: Columns of an int4 group; ``None``: a whole row.
        asymmetric: Whether int4 groups have zero points.
        scale_interval: Forward passes in training from one search of ``mse`` scales to the next.
        block_size: Elements of an NF4 block.
        double_quant: Whether the absmax values of NF4 blocks are quantized, too.
    """

    kind: str
    scales: str = "absmax"
    group_size: int | None = None
    asymmetric: bool = False
    scale_interval: int = 2
    block_size: int = 64
    double_quant: bool = False

    def __str__(self) -> str:
        if self.kind == "nf4":
            return f"NF4 weights in blocks of {self.block_size}{', doubly quantized' if self.double_quant else ''}"
        words = "int8 weights"
        if self.kind == "int4":
            words = f"int4 weights {f'in groups of {self.group_size}' if self.group_size else 'by output'}{', asymmetric' if self.asymmetric else ''}"
        return words if self.scales == "absmax" else f"{words}, scales {self.scales}"


@dataclass(frozen=True)
class InputScheme:
    """How the inputs of a layer are quantized.

    Attributes:
        kind: ``per-token``, ``static`` or ``float``.
        averaging_constant: What a batch counts in the moving averages of a static range.
        scales: ``observed``, or ``learned``: scale and zero point are parameters (LSQ+, arXiv:2004.09576).
        observed_steps: Forward passes in training after which learned ones are trained; until then they follow the range.
    """

    kind: str
    averaging_constant: float = 0.01
    scales: str = "observed"
    observed_steps: int = 32

    def __str__(self) -> str:
        return f"inputs {self.kind}{', learned' if self.scales == 'learned' else ''}"


@dataclass(frozen=True)
class BaseConfig:
    """A scheme of quantization: one of the classes below."""

    #: The method of :func:`fewbit.quantize_model` that writes such a model.
    method: ClassVar[str]
    #: How inputs of linear layers and convolutions are quantized, as :class:`InputScheme` has it.
    input_kind: ClassVar[str] = "float"

    @property
    def weight(self) -> WeightScheme:
        """How weights of linear layers and convolutions are quantized."""
        raise NotImplementedError

    @property
    def inputs(self) -> InputScheme:
        """How the inputs of these are quantized."""
        return InputScheme(self.input_kind)


@dataclass(frozen=True)
class _Int8Config(BaseConfig):
    scales: Literal["absmax", "learned"] = "absmax"

    def __post_init__(self) -> None:
        expect("scales", self.scales, ("absmax", "learned"))

    @property
    def weight(self) -> WeightScheme:
        return WeightScheme("int8", self.scales)


@dataclass(frozen=True)
class Int8DynamicActivationInt8WeightConfig(_Int8Config):
    """W8A8: int8 weights with a scale for each output, inputs of 8 bits with a scale for each token; the method ``dynamic``.

    Attributes:
        scales: ``absmax``, or ``learned``.
    """

    method = "dynamic"
    input_kind = "per-token"


@dataclass(frozen=True)
class Int8StaticActivationInt8WeightConfig(_Int8Config):
    """W8A8 with one range for all inputs of a layer, moving averages of what training has seen; the method ``static``.

    Attributes:
        scales: ``absmax``, or ``learned``: of weights.
        averaging_constant: What a batch counts in the averages.
        input_scales: ``observed``, or ``learned``: scale and zero point of inputs are parameters, which begin at the averages.
        observed_steps: Forward passes in training after which learned ones are trained; until then they follow the averages.
    """

    averaging_constant: float = 0.01
    input_scales: Literal["observed", "learned"] = "observed"
    observed_steps: int = 32

    method = "static"
    input_kind = "static"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.averaging_constant <= 1:
            raise ValueError(f"averaging_constant: expected a number above 0 and up to 1, found {self.averaging_constant}")
        expect("input_scales", self.input_scales, ("observed", "learned"))
        if self.observed_steps < 1:
            raise ValueError(f"observed_steps: expected at least 1, found {self.observed_steps}")

    @property
    def inputs(self) -> InputScheme:
        return InputScheme(self.input_kind, self.averaging_constant, self.input_scales, self.observed_steps)


@dataclass(frozen=True)
class Int8WeightOnlyConfig(_Int8Config):
    """W8A16: int8 weights with a scale for each output, float inputs; the method ``weight-only``.

    Attributes:
        scales: ``absmax``, or ``learned``.
    """

    method = "weight-only"


@dataclass(frozen=True)
class _Int4Config(BaseConfig):
    group_size: int | None = 64
    asymmetric: bool = False
    scales: Scales = "mse"
    scale_interval: int = 2

    def __post_init__(self) -> None:
        expect("scales", self.scales, SCALES)
        for name, value in (("group_size", self.group_size), ("scale_interval", self.scale_interval)):
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, found {value}")

    @property
    def weight(self) -> WeightScheme:
        return WeightScheme("int4", self.scales, self.group_size, self.asymmetric, self.scale_interval)


@dataclass(frozen=True)
class Int4WeightOnlyConfig(_Int4Config):
    """W4A16: int4 weights in groups, float inputs; the method ``weight-only`` with ``weights="int4"``.

    Attributes:
        group_size: Columns of a row that share a scale; ``None``: all.
        asymmetric: Whether groups have zero points.
        scales: ``absmax``, ``mse`` (the least squared error of the weights) or ``learned``.
        scale_interval: Forward passes in training from one search of ``mse`` scales to the next; between them scales stay.
    """

    method = "weight-only"


@dataclass(frozen=True)
class Int8DynamicActivationInt4WeightConfig(_Int4Config):
    """W4A8: int4 weights in groups, inputs of 8 bits with a scale for each token; the method ``dynamic`` with ``weights="int4"``.

    Attributes are those of :class:`Int4WeightOnlyConfig`.
    """

    method = "dynamic"
    input_kind = "per-token"


@dataclass(frozen=True)
class NF4WeightOnlyConfig(BaseConfig):
    """NF4 weights in blocks of the flattened weight, float inputs; the method ``nf4``.

    Attributes:
        block_size: Elements that share an absmax.
        double_quant: Whether absmax values are quantized, too.
    """

    block_size: int = 64
    double_quant: bool = False

    method = "nf4"

    def __post_init__(self) -> None:
        if self.block_size not in (32, 64, 128, 256, 512, 1024, 2048, 4096):
            raise ValueError(f"block_size: expected a power of two from 32 to 4096, found {self.block_size}")

    @property
    def weight(self) -> WeightScheme:
        return WeightScheme("nf4", block_size=self.block_size, double_quant=self.double_quant)


@dataclass(frozen=True)
class QATConfig:
    """A step of quantization-aware training, for :func:`fewbit.torch.quantize_`.

    Attributes:
        base_config: What the model is trained to become; ``convert`` finds it in the model.
        step: ``prepare`` or ``convert``.
    """

    base_config: BaseConfig | str | None = None
    step: Literal["prepare", "convert"] = "prepare"

    def __post_init__(self) -> None:
        expect("step", self.step, ("prepare", "convert"))
        if self.step == "prepare" and self.base_config is None:
            raise ValueError("base_config: expected one for the step `prepare`, found none\n  hint: QATConfig(Int8DynamicActivationInt8WeightConfig())")


_WORDS: Mapping[str, BaseConfig] = {
    "dynamic": Int8DynamicActivationInt8WeightConfig(),
    "static": Int8StaticActivationInt8WeightConfig(),
    "weight-only": Int8WeightOnlyConfig(),
    "w4a8": Int8DynamicActivationInt4WeightConfig(),
    "int4": Int4WeightOnlyConfig(),
    "nf4": NF4WeightOnlyConfig(),
}


def base_config_of(config: Any) -> BaseConfig:
    """The scheme of a config or of a word: ``dynamic``, ``static``, ``weight-only``, ``w4a8``, ``int4`` or ``nf4``.

    Raises:
        ValueError: Another word.
        TypeError: Something else.
    """
    if isinstance(config, QATConfig):
        config = config.base_config
    if isinstance(config, BaseConfig):
        return config
    if isinstance(config, str):
        found = _WORDS.get(config)
        if found is None:
            raise ValueError(f"config: expected one of {', '.join(_WORDS)}, found {config!r}")
        return found
    raise TypeError(
        f"config: expected a config of fewbit.torch or one of {', '.join(_WORDS)}, found {type(config).__name__}\n"
        "  hint: those of torchao have the same names here: fewbit.torch.Int8DynamicActivationInt4WeightConfig(group_size=64)"
    )
