"""Whether the stored weights are what the libraries would have stored. Each function returns a short verdict, or raises."""

import json
import re
from pathlib import Path

import bitsandbytes.functional
import numpy
import torch
from safetensors.torch import load_file


class Difference(Exception):
    """Stored weights differ from the reference."""


def tensors_of(directory):
    tensors = {}
    for file in sorted(Path(directory).glob("*.safetensors")):
        tensors |= load_file(file)
    return tensors


def same_bits(found, expected, what):
    if found.dtype != expected.dtype or found.shape != expected.shape:
        raise Difference(f"{what}: expected {expected.dtype} {tuple(expected.shape)}, found {found.dtype} {tuple(found.shape)}")
    if found.contiguous().numpy(force=True).tobytes() != expected.contiguous().numpy(force=True).tobytes():
        differing = (found != expected).sum().item()
        raise Difference(f"{what}: {differing} of {found.numel()} values differ")


def widened(tensor):
    """bfloat16 has no numpy form; float32 holds it exactly."""
    return tensor.float() if tensor.is_floating_point() else tensor


def same_rest(stored, originals, modules, floats=None):
    """What is not quantized is the source's, name by name and bit by bit, or what torch makes of it in the dtype ``floats``. Beside int8
    weights normalizations do not become bfloat16."""
    four_bit = any(".weight.quant_state." in name for name in stored)
    keeps = lambda name: floats is None or floats == torch.bfloat16 and not four_bit and "LayerNorm" in name
    belongs = tuple(f"{module}.{part}" for module in modules for part in ("weight", "input_scale", "input_zero_point"))
    rest = {name for name in stored if not name.startswith(belongs)}
    expected = {name for name in originals if not name.startswith(belongs)}
    if rest != expected:
        raise Difference(f"names differ: {sorted(rest ^ expected)}")
    for name in rest:
        expected = originals[name] if keeps(name) or not originals[name].is_floating_point() else originals[name].to(floats)
        if stored[name].dtype != expected.dtype:
            raise Difference(f"{name}: expected {expected.dtype}, found {stored[name].dtype}")
        same_bits(widened(stored[name]), widened(expected), name)


def rounded(source, directory, dtype):
    """fp16, bf16: every float tensor is torch's conversion of the source's."""
    stored = tensors_of(directory)
    originals = tensors_of(source)
    if stored.keys() != originals.keys():
        raise Difference(f"names differ: {sorted(stored.keys() ^ originals.keys())}")
    for name, original in originals.items():
        expected = original.to(dtype) if original.is_floating_point() else original
        if stored[name].dtype != expected.dtype:
            raise Difference(f"{name}: expected {expected.dtype}, found {stored[name].dtype}")
        same_bits(widened(stored[name]), widened(expected), name)
    return f"all {len(originals)} equal"


def four_bit_from_file(stored, module, shape):
    """The weight that the file means, by formats' definition: table[code] * absmax, in float32, a separate rounding each."""
    (state_name,) = [name for name in stored if name.startswith(f"{module}.weight.quant_state.bitsandbytes__")]
    state = json.loads(bytes(stored[state_name].tolist()).decode())
    absmax = stored[f"{module}.weight.absmax"].numpy()
    if "nested_offset" in state:
        nested_map = stored[f"{module}.weight.nested_quant_map"].numpy()
        nested = numpy.repeat(stored[f"{module}.weight.nested_absmax"].numpy(), state["nested_blocksize"])[: absmax.size]
        absmax = nested_map[absmax] * nested + numpy.float32(state["nested_offset"])
    packed = stored[f"{module}.weight"].numpy().reshape(-1)
    codes = numpy.stack([packed >> 4, packed & 15], axis=1).reshape(-1)[: shape[0] * shape[1]]
    values = stored[f"{module}.weight.quant_map"].numpy()[codes] * numpy.repeat(absmax, state["blocksize"])[: codes.size]
    assert values.dtype == numpy.float32
    return torch.from_numpy(values.reshape(shape)), state


def positive_zeros(tensor):
    """FP4's code 8 means zero: the table in the file holds +0, the CPU kernel of bitsandbytes answers -0."""
    return tensor + 0.0


def mean_scale_error(weight, absmax):
    """Mean relative error of each block's largest magnitude, which codes keep exactly, against the block's absmax."""
    blocks = torch.nn.functional.pad(weight.reshape(-1), (0, -weight.numel() % 64)).reshape(-1, 64)
    return ((blocks.abs().amax(1) - absmax) / absmax.clamp(min=1e-30)).abs().mean().item()


def four_bit(source, directory, loaded, kind, double, floats=None, gptq=False):
    """nf4, fp4: what bitsandbytes itself makes of the same weights.

    With double quantization the codes of the weights must be the same, but not those of the absmax: their offset is a mean,
    whose summation order is the writer's choice. Their error must then be no larger than that of bitsandbytes. Of GPTQ's codes, which are
    not the nearest, only what they stand for is compared: bitsandbytes must dequantize them to what the file means.
    """
    stored, originals = tensors_of(directory), tensors_of(source)
    modules = sorted(name.split(".weight.quant_state")[0] for name in stored if ".weight.quant_state." in name)
    if not modules:
        raise Difference("no 4-bit weight in the file")
    same_rest(stored, originals, modules, floats)
    equal = 0
    for module in modules:
        original = originals[f"{module}.weight"]
        packed, state = bitsandbytes.functional.quantize_4bit(original, quant_type=kind, compress_statistics=double, blocksize=64)
        reference = positive_zeros(bitsandbytes.functional.dequantize_4bit(packed, state))
        from_file, stored_state = four_bit_from_file(stored, module, original.shape)
        from_file = positive_zeros(from_file)
        if (stored_state["quant_type"], stored_state["blocksize"], tuple(stored_state["shape"])) != (kind, 64, tuple(original.shape)):
            raise Difference(f"{module}: quant_state {stored_state}")
        expected = from_file if floats is None else positive_zeros(from_file.to(floats))
        same_bits(widened(positive_zeros(loaded[module])), widened(expected), f"{module} dequantized by bitsandbytes")
        codes = stored[f"{module}.weight"].reshape(-1)
        if gptq:
            equal += int(not torch.equal(codes, packed.reshape(-1)))
            continue
        same_bits(codes, packed.reshape(-1), f"{module} codes")
        if torch.equal(from_file, reference):
            equal += 1
        elif not double:
            raise Difference(f"{module}: {(from_file != reference).sum().item()} values differ from bitsandbytes' own")
        else:
            _, plain = bitsandbytes.functional.quantize_4bit(original, quant_type=kind, blocksize=64)
            ours, theirs = mean_scale_error(from_file, plain.absmax), mean_scale_error(reference, plain.absmax)
            if ours > 1.02 * theirs:
                raise Difference(f"{module}: mean error of the scales {ours:.2e}, of bitsandbytes' own {theirs:.2e}")
    if gptq and equal == 0:
        raise Difference("all codes are the nearest")
    return f"{equal} of {len(modules)} {'with other codes' if gptq else 'equal'}"


def unpack_int32(packed, columns):
    """compressed-tensors' order: element k of a row in bits 8k .. 8k + 8 from the least significant, offset by 128."""
    return (packed.contiguous().view(torch.uint8).reshape(packed.shape[0], -1)[:, :columns].to(torch.int16) - 128).to(torch.int8)


def pair_sums(codes):
    """|a| + |b| of the columns 2i and 2i + 1."""
    magnitudes = codes.to(torch.int16).abs()
    magnitudes = magnitudes[:, : magnitudes.shape[1] // 2 * 2]
    return magnitudes[:, 0::2] + magnitudes[:, 1::2]


def int8(source, directory, loaded, gptq=False, saturation_proof=False, floats=None):
    """dynamic, weight-only: dequantized by compressed-tensors = code * scale, and the codes are the nearest, but for those of GPTQ."""
    stored, originals = tensors_of(directory), tensors_of(source)
    modules = sorted(name.removesuffix(".weight_scale") for name in stored if name.endswith(".weight_scale"))
    if not modules:
        raise Difference("no int8 weight in the file")
    same_rest(stored, originals, modules, floats)
    for module in modules:
        original = originals[f"{module}.weight"]
        scale = stored[f"{module}.weight_scale"]
        if scale.shape not in ((original.shape[0], 1), (1,)):
            raise Difference(f"{module}: scale shape {tuple(scale.shape)}")
        if f"{module}.weight_packed" in stored:
            if stored[f"{module}.weight_shape"].tolist() != list(original.shape):
                raise Difference(f"{module}: weight_shape {stored[f'{module}.weight_shape'].tolist()}")
            codes = unpack_int32(stored[f"{module}.weight_packed"], original.shape[1])
        else:
            codes = stored[f"{module}.weight"]
        expected = codes.float() * scale
        # The library rounds scales, too, to the dtype that it computes in.
        if floats is None:
            same_bits(loaded[module], expected, f"{module} dequantized by compressed-tensors")
        # A table is looked up: nothing is summed.
        if saturation_proof and not module.endswith("embeddings") and (widest := pair_sums(codes).max().item()) > 128:
            raise Difference(f"{module}: a pair of codes has magnitudes of {widest} together")
        if gptq:
            continue
        # Half a scale and a little for the rounding of the quotient; beyond the last code, values may be clipped.
        value = original / scale
        nearest = (codes - value).abs() <= 0.5001
        clipped = (codes == 127) & (value > 126.5) | (codes <= -127) & (value < -126.5)
        wrong = (~(nearest | clipped)).sum().item()
        if wrong:
            raise Difference(f"{module}: {wrong} codes are not the nearest")
    return f"{len(modules)} exact"


def unpack_int4(packed, columns):
    """compressed-tensors' order: element k of a row in bits 4k .. 4k + 4 from the least significant, offset by 8."""
    nibbles = packed.contiguous().view(torch.uint8).reshape(packed.shape[0], -1)
    nibbles = torch.stack([nibbles & 15, nibbles >> 4], dim=2).reshape(packed.shape[0], -1)
    return (nibbles[:, :columns].to(torch.int16) - 8).to(torch.int8)


def bits_of(directory):
    """The bits of a module's codes, by its name, as the configuration says."""
    config = json.loads((Path(directory) / "config.json").read_text())["quantization_config"]
    groups = [(group["weights"]["num_bits"], [target.removeprefix("re:") for target in group["targets"]]) for group in config["config_groups"].values()]

    def bits(module):
        (found,) = {bits for bits, targets in groups if any(re.match(target, module) for target in targets)}
        return found

    return bits


def groups(source, directory, loaded, mixed=False):
    """int4 groups, and int8 channels beside them: dequantized by compressed-tensors = (code - zero point) * scale, and the codes are the nearest."""
    stored, originals = tensors_of(directory), tensors_of(source)
    modules = sorted(name.removesuffix(".weight_scale") for name in stored if name.endswith(".weight_scale"))
    layers = [module for module in modules if not module.endswith("embeddings")]
    bits_of_module = bits_of(directory)
    kinds = sorted({bits_of_module(module) for module in layers})
    if kinds != ([4, 8] if mixed else [4]):
        raise Difference(f"weights of {kinds} bits in the file")
    same_rest(stored, originals, modules, None)
    for module in layers:
        original = originals[f"{module}.weight"]
        rows, columns = original.shape
        scale = stored[f"{module}.weight_scale"]
        packed = f"{module}.weight_packed" in stored
        bits = bits_of_module(module)
        unpack = unpack_int4 if bits == 4 else unpack_int32
        least, most = -(1 << bits - 1), (1 << bits - 1) - 1
        codes = unpack(stored[f"{module}.weight_packed"], columns) if packed else stored[f"{module}.weight"]
        if codes.min() < least or codes.max() > most:
            raise Difference(f"{module}: codes of more than {bits} bits")
        zero_points = stored.get(f"{module}.weight_zero_point")
        if zero_points is None:
            zero_points = torch.zeros(scale.shape, dtype=torch.int8)
        elif packed:
            # Packed down the rows.
            zero_points = unpack(zero_points.T, rows).T
        size = columns // scale.shape[1]
        scale, zero_points = (part.repeat_interleave(size, dim=1) for part in (scale, zero_points))
        same_bits(loaded[module], (codes - zero_points).float() * scale, f"{module} dequantized by compressed-tensors")
        value = original / scale + zero_points
        nearest = (codes - value).abs() <= 0.5001
        # int8 rows have no use for -128.
        clipped = (codes == most) & (value > most - 0.5) | (codes <= least + (bits == 8)) & (value < least + 0.5 + (bits == 8))
        wrong = (~(nearest | clipped)).sum().item()
        if wrong:
            raise Difference(f"{module}: {wrong} codes are not the nearest")
    return f"{len(layers)} exact"
