"""A model directory made of another, with fewer bits."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal, cast, overload

from fewbit import _fewbit
from fewbit.calibration import Calibration, Path, Texts, calibration_request, is_path, warn_of_noise
from fewbit.models import resolve_model
from fewbit.progress import progress_bar
from fewbit.quantize_report import QuantizePlan, QuantizeReport
from fewbit.records import make_record
from fewbit.threads import resolve_threads
from fewbit.training import TrainingReport, said_where_it_goes_on, scheme_to_train, training_request, warn_of_training

_EMBEDDINGS = ("auto", "keep", "int8", "nf4", "fp16", "bf16")
_FLOAT_DTYPES = ("f32", "fp16", "bf16")


@overload
def quantize_model(
    source: Path,
    out: Path | None = None,
    method: str | None = None,
    *,
    dry_run: Literal[True],
    recipe: Path | Mapping[str, Any] | None = None,
    weights: str | None = None,
    group_size: int | str | None = None,
    asymmetric: bool = False,
    layout: str | None = None,
    weight_scales: str | None = None,
    modules: Mapping[str, str | Mapping[str, Any]] | None = None,
    double_quant: bool = False,
    block_size: int | None = None,
    scales: str | None = None,
    embeddings: str | None = None,
    quantize_embeddings: bool = False,
    float_dtype: str | None = None,
    skip: str | Sequence[str] = (),
    weight_only: str | Sequence[str] = (),
    activations: str | None = None,
    gptq: bool = False,
    saturation_proof: bool = False,
    calibration: Texts | None = None,
    stats: Path | Sequence[Path] = (),
    min_sqnr: float | None = None,
    samples: int | None = None,
    batches: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    field: str | Sequence[str] = (),
    input_ids_column: str | None = None,
    attention_mask_column: str | None = None,
    observer: str | None = None,
    backend: str | None = None,
    sensitivity: str | None = None,
    data: Texts | None = None,
    steps: int | None = None,
    learning_rate: float | None = None,
    evaluation_interval: int | None = None,
    patience: int | None = None,
    force: bool = False,
    max_shard_size: str | int = "5GB",
    resume: bool = False,
    threads: int | None = None,
    show_progress: bool = False,
) -> QuantizePlan: ...
@overload
def quantize_model(
    source: Path,
    out: Path,
    method: Literal["qat"],
    *,
    data: Texts,
    dry_run: Literal[False] = False,
    recipe: Path | Mapping[str, Any] | None = None,
    weights: str | None = None,
    group_size: int | str | None = None,
    asymmetric: bool = False,
    layout: str | None = None,
    weight_scales: str | None = None,
    modules: Mapping[str, str | Mapping[str, Any]] | None = None,
    double_quant: bool = False,
    block_size: int | None = None,
    scales: str | None = None,
    embeddings: str | None = None,
    quantize_embeddings: bool = False,
    float_dtype: str | None = None,
    skip: str | Sequence[str] = (),
    weight_only: str | Sequence[str] = (),
    activations: str | None = None,
    gptq: bool = False,
    saturation_proof: bool = False,
    calibration: Texts | None = None,
    stats: Path | Sequence[Path] = (),
    min_sqnr: float | None = None,
    samples: int | None = None,
    batches: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    field: str | Sequence[str] = (),
    input_ids_column: str | None = None,
    attention_mask_column: str | None = None,
    observer: str | None = None,
    backend: str | None = None,
    sensitivity: str | None = None,
    steps: int | None = None,
    learning_rate: float | None = None,
    evaluation_interval: int | None = None,
    patience: int | None = None,
    force: bool = False,
    max_shard_size: str | int = "5GB",
    resume: bool = False,
    threads: int | None = None,
    show_progress: bool = False,
) -> TrainingReport: ...
@overload
def quantize_model(
    source: Path,
    out: Path,
    method: str | None = None,
    *,
    dry_run: Literal[False] = False,
    recipe: Path | Mapping[str, Any] | None = None,
    weights: str | None = None,
    group_size: int | str | None = None,
    asymmetric: bool = False,
    layout: str | None = None,
    weight_scales: str | None = None,
    modules: Mapping[str, str | Mapping[str, Any]] | None = None,
    double_quant: bool = False,
    block_size: int | None = None,
    scales: str | None = None,
    embeddings: str | None = None,
    quantize_embeddings: bool = False,
    float_dtype: str | None = None,
    skip: str | Sequence[str] = (),
    weight_only: str | Sequence[str] = (),
    activations: str | None = None,
    gptq: bool = False,
    saturation_proof: bool = False,
    calibration: Texts | None = None,
    stats: Path | Sequence[Path] = (),
    min_sqnr: float | None = None,
    samples: int | None = None,
    batches: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    field: str | Sequence[str] = (),
    input_ids_column: str | None = None,
    attention_mask_column: str | None = None,
    observer: str | None = None,
    backend: str | None = None,
    sensitivity: str | None = None,
    data: Texts | None = None,
    steps: int | None = None,
    learning_rate: float | None = None,
    evaluation_interval: int | None = None,
    patience: int | None = None,
    force: bool = False,
    max_shard_size: str | int = "5GB",
    resume: bool = False,
    threads: int | None = None,
    show_progress: bool = False,
) -> QuantizeReport: ...
@overload
def quantize_model(source: Any, *arguments: Any, **options: Any) -> Any: ...
def quantize_model(source: Any, *arguments: Any, **options: Any) -> Any:
    """Quantizes a model directory and writes a standard checkpoint directory, which fewbit and Hugging Face transformers load.

    Given an ``nn.Module`` this is ``quantize_model(model, method, config, calibration_loader, device, use_student_input_ids)`` of PyTorch
    scripts, :func:`fewbit.torch.manager.quantize_module`, and needs torch. Given a path, these are the words of ``fewbit quantize``:

    Args:
        source: Model directory or Hub id.
        out: Directory to write; must be absent or empty, unless ``force``. Nothing is left there unless it is whole.
        method: ``dynamic``, ``static``, ``weight-only``, ``fp16``, ``bf16``, ``nf4`` (``int4``) or ``fp4``; or ``qat``: training on ``data`` in one of these forms,
            which ``weights`` and ``activations`` name (:class:`TrainingReport`).
        dry_run: Says what would be done to every tensor (:class:`QuantizePlan`), and writes nothing.
        recipe: A recipe file, or its keys, in place of ``method`` and its options. Beside ``qat`` it says what is trained.
        weights: Integer methods (dynamic, static, weight-only): the codes of weights, ``int8`` (the default), ``int4`` or ``fp8``; of
            ``weight-only`` also ``nvfp4`` and ``mxfp4``; of ``qat`` ``int8``, ``int4`` or ``nf4``.
        group_size: int4, and int8 with ``weight-only``: neighbouring weights of a row that share a scale, 64 by default (int8: all),
            or ``"channel"`` for all of a row.
        asymmetric: int4: groups have zero points, too.
        layout: int4: ``pack-quantized`` (the default) or ``int-quantized``; with ``weight-only`` also ``gptq``, ``gptq_v2`` or ``awq``. int8 with
            ``weight-only``: ``bitsandbytes`` for LLM.int8.
        weight_scales: fp8: ``per-channel`` (the default), or ``per-tensor`` for one scale of all weights of a layer.
        modules: Integer methods: the weights of single layers, by their paths or by globs on these, a path before globs: ``"int8"``, ``"int4+group-32"``,
            or the keys of a recipe's ``modules``. :func:`fewbit.sensitivity` chooses them.
        double_quant: nf4 and fp4: quantizes the scales, too.
        block_size: nf4 and fp4: weights that share one scale; 64 by default.
        scales: nf4, fp4 and int4 weights: the scale of a block or group is its largest magnitude, ``absmax`` (the default of nf4 and fp4), or the one
            with the least squared error, ``mse`` (that of int4), or ``activation-weighted``: the same, weighted by the mean squares of inputs over the
            texts of ``calibration``.
        embeddings: How the word embedding table is stored: ``keep`` (as other floats), ``int8``, ``fp16``, ``bf16``; nf4 and fp4: also ``nf4``. By
            default ``int8`` for the int8 methods, unless a head shares the table, else ``keep``. Codes beside 4-bit layers are read by no other
            loader than fewbit.
        quantize_embeddings: Int8 methods: the old name of ``embeddings="int8"``.
        float_dtype: The dtype of what is not quantized: ``f32``, ``fp16`` or ``bf16``; by default that of the source.
        skip: Globs of modules that stay float, besides the defaults.
        weight_only: dynamic: globs of layers of which only the weights are quantized.
        activations: dynamic: ``per-token``, or ``per-tensor`` for PyTorch's ``quantize_dynamic``, with a ``backend`` of PyTorch. qat: ``dynamic`` (a scale a token), ``static`` or
            ``none``; by default ``dynamic`` with int8 weights and ``none`` with others.
        gptq: Any method but fp16 and bf16: rounds weights so that the layers' outputs on the texts of ``calibration`` change least.
        saturation_proof: With ``gptq``: no two neighbouring weights can saturate 16-bit sums.
        calibration: For ``static``, ``gptq`` and activation-weighted ``scales``: texts, or a file of texts or token ids.
        stats: For ``static``: files that :func:`fewbit.calibrate` wrote; several are merged.
        min_sqnr: For ``static``: inputs whose signal to noise ratio with one range is lower, in dB, are dynamic.
        samples, batches, batch_size, seed, field, input_ids_column, attention_mask_column, observer, backend: As for
            :func:`fewbit.calibrate`.
        sensitivity: For ``static``: ``output`` measures what each input's range does to the embeddings, too.
        data: For ``qat``: texts like those that the model will see, without labels, a few thousand or more; or a file of texts or token ids, of which ``samples`` are drawn, by
            default all, 100,000 at most.
        steps: qat: steps of the optimizer, at most; 2000 by default, of ``batch_size`` texts, 16 by default.
        learning_rate: qat: the greatest learning rate, between a rise over the first steps and a fall to 0; by default 5e-5, of models with a task head 1e-5.
        evaluation_interval: qat: steps between two measurements on the texts that are held out, a twentieth and 256 at most; what was trained is saved with each, in
            ``out.training``; 100 by default.
        patience: qat: measurements without a gain after which training ends, 10 by default; the best weights are written.
        force: Replaces ``out`` if it exists.
        max_shard_size: Weights of more than this are written as several files with an index, as by transformers' ``save_pretrained``: ``5GB``,
            ``500MB``, or a number of bytes. No tensor is cut.
        resume: Goes on where the same call was interrupted, to the same bytes: files of weights that are whole, and with ``gptq`` or activation-weighted ``scales`` layers, are
            kept beside ``out``, in ``out.partial``, until ``out`` is there. A single file is begun anew. A training goes on from ``out.training``.
        threads: Worker threads; they never change a result.
        show_progress: Whether to show a progress bar.

    Raises:
        FewbitError: The model cannot be read or quantized so, or ``out`` cannot be written.
        ValueError: Options that do not go together.

    >>> import tempfile
    >>> model, out = "crates/model/tests/golden/predictions/bert-single-label", tempfile.mkdtemp()
    >>> quantize_model(model, out + "/int8", "dynamic").compression_ratio > 1.5
    True
    >>> texts = ["the cat sat on the mat", "ann lives in new york", "not the dog", "where does bob live?"] * 6
    >>> trained = quantize_model(model, out + "/trained", "qat", data=texts, weights="int4", group_size="channel", steps=4, batch_size=4)
    >>> trained.steps, trained.held_out_texts, trained.recipe["qat"]
    (4, 1, True)
    """
    if isinstance(source, str | os.PathLike):
        return _quantize_directory(cast(Path, source), *arguments, **options)
    from fewbit.torch.manager import quantize_module  # type: ignore[import-untyped,import-not-found,unused-ignore]

    return quantize_module(source, *arguments, **options)  # pyright: ignore[reportUnknownVariableType]


def _quantize_directory(
    source: Path,
    out: Path | None = None,
    method: str | None = None,
    *,
    dry_run: bool = False,
    recipe: Path | Mapping[str, Any] | None = None,
    weights: str | None = None,
    group_size: int | str | None = None,
    asymmetric: bool = False,
    layout: str | None = None,
    weight_scales: str | None = None,
    modules: Mapping[str, str | Mapping[str, Any]] | None = None,
    double_quant: bool = False,
    block_size: int | None = None,
    scales: str | None = None,
    embeddings: str | None = None,
    quantize_embeddings: bool = False,
    float_dtype: str | None = None,
    skip: str | Sequence[str] = (),
    weight_only: str | Sequence[str] = (),
    activations: str | None = None,
    gptq: bool = False,
    saturation_proof: bool = False,
    calibration: Texts | None = None,
    stats: Path | Sequence[Path] = (),
    min_sqnr: float | None = None,
    samples: int | None = None,
    batches: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    field: str | Sequence[str] = (),
    input_ids_column: str | None = None,
    attention_mask_column: str | None = None,
    observer: str | None = None,
    backend: str | None = None,
    sensitivity: str | None = None,
    data: Texts | None = None,
    steps: int | None = None,
    learning_rate: float | None = None,
    evaluation_interval: int | None = None,
    patience: int | None = None,
    force: bool = False,
    max_shard_size: str | int = "5GB",
    resume: bool = False,
    threads: int | None = None,
    show_progress: bool = False,
) -> QuantizeReport | QuantizePlan:
    trained = method == "qat"
    training = training_request(
        method,
        data,
        steps=steps,
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed,
        evaluation_interval=evaluation_interval,
        patience=patience,
    )
    if trained and recipe is not None:
        # Any method of a recipe can be trained.
        method = None
    elif trained:
        method, weights = scheme_to_train(weights, activations)
        activations = None
    if (method is None) == (recipe is None):
        raise ValueError(f"expected a method or a recipe, found {'neither' if method is None else 'both'}")
    if out is None and not dry_run:
        raise ValueError("out: expected a directory to write, found none\n  hint: dry_run=True writes nothing")
    if recipe is not None:
        named: dict[str, object] = {
            "weights": weights,
            "group_size": group_size,
            "asymmetric": asymmetric,
            "layout": layout,
            "weight_scales": weight_scales,
            "modules": modules,
            "double_quant": double_quant,
            "block_size": block_size,
            "scales": scales,
            "embeddings": embeddings,
            "quantize_embeddings": quantize_embeddings,
            "float_dtype": float_dtype,
            "activations": activations,
            "gptq": gptq,
            "saturation_proof": saturation_proof,
        }
        for name, value in named.items():
            if value not in (None, False):
                raise ValueError(f"{name}: expected a method beside it, found a recipe\n  hint: change the key `{name}` of the recipe")
    codes = ("int8", "int4", "fp8", "nvfp4", "mxfp4")
    if weights is not None and weights not in codes:
        hint = "\n  hint: method 'nf4' has these weights" if weights == "nf4" else ""
        raise ValueError(f"weights: expected one of {', '.join(codes)}, found {weights!r}{hint}")
    layouts = ("pack-quantized", "int-quantized", "gptq", "gptq_v2", "awq", "bitsandbytes")
    if layout is not None and layout not in layouts:
        raise ValueError(f"layout: expected one of {', '.join(layouts)}, found {layout!r}")
    if weight_scales not in (None, "per-channel", "per-tensor"):
        raise ValueError(f"weight_scales: expected per-channel or per-tensor, found {weight_scales!r}")
    if weight_scales is not None and weights != "fp8":
        raise ValueError("weight_scales: expected weights='fp8' beside it\n  hint: leave it out: int8 weights have what backend has")
    if weights == "fp8" and method == "static":
        of_integers = {"min_sqnr": min_sqnr, "observer": observer, "backend": backend, "sensitivity": sensitivity}
        for name, value in of_integers.items():
            if value is not None:
                raise ValueError(f"{name}: does not go with weights='fp8'\n  hint: leave it out: every input has its largest magnitude as its range")
    if not (group_size is None or group_size == "channel" or (isinstance(group_size, int) and group_size > 0)):
        raise ValueError(f"group_size: expected a positive number of columns or 'channel', found {group_size!r}")
    if activations not in (None, "per-token", "per-tensor"):
        methods = {"dynamic": "dynamic", "static": "static", "none": "weight-only"}
        hint = f"\n  hint: method {methods[activations]!r} has such inputs" if activations in methods else ""
        raise ValueError(f"activations: expected per-token or per-tensor, found {activations!r}{hint}")
    if activations == "per-tensor" and backend in (None, "native"):
        raise ValueError(
            "activations='per-tensor': expected backend fbgemm, x86, qnnpack or onednn beside it: it gives what PyTorch's quantize_dynamic"
            " gives there\n  hint: leave it out for a scale a token, which is more accurate"
        )
    if embeddings not in (None, *_EMBEDDINGS):
        raise ValueError(f"embeddings: expected one of {', '.join(_EMBEDDINGS)}, found {embeddings!r}")
    if quantize_embeddings and embeddings not in (None, "int8"):
        raise ValueError(f"quantize_embeddings: expected nothing beside embeddings={embeddings!r}\n  hint: it is the old name of embeddings='int8'")
    if float_dtype not in (None, *_FLOAT_DTYPES):
        raise ValueError(f"float_dtype: expected one of {', '.join(_FLOAT_DTYPES)}, found {float_dtype!r}")
    if sensitivity not in (None, "sqnr", "output"):
        raise ValueError(f"sensitivity: expected sqnr or output, found {sensitivity!r}")
    fixed = method == "static"
    if data is not None and calibration is not None:
        raise ValueError("data and calibration: expected one of them, found both\n  hint: what is trained on is calibrated with, too")
    texts = calibration if data is None else data
    given = texts is not None or bool(stats)
    if fixed and not given:
        raise ValueError(
            "method static: expected calibration or stats\n  hint: a few hundred texts like those that the model will see; `dynamic` needs none"
        )
    request = calibration_request(
        texts,
        "calibration" if data is None else "data",
        stats=stats,
        min_sqnr=min_sqnr,
        samples=samples,
        batches=batches,
        batch_size=batch_size,
        # Of texts to train on it says the order, too.
        seed=seed if data is None or is_path(data) else None,
        field=field,
        input_ids_column=input_ids_column,
        attention_mask_column=attention_mask_column,
        observer=observer,
        backend=backend,
    )
    if data is not None:
        request["seed"] = seed
    weighted = scales == "activation-weighted"
    rounds = gptq or weighted or recipe is not None or trained
    if (gptq or weighted) and texts is None:
        who = "gptq" if gptq else "scales"
        raise ValueError(f"{who}: expected calibration\n  hint: a few hundred texts like those that the model will see; stats hold ranges alone")
    if method is not None and not fixed:
        of_static: dict[str, object] = {"stats": stats, "min_sqnr": min_sqnr, "observer": observer, "sensitivity": sensitivity}
        of_any: dict[str, object] = {} if rounds else {"calibration": calibration}
        for name, value in {**of_static, **of_any}.items():
            if value is not None and value not in ((), []):
                why = "unless activations are static" if trained else "which is not calibrated"
                raise ValueError(f"{name}: does not go with the method `{'qat' if trained else method}`, {why}\n  hint: leave it out")
        if backend not in (None, "native") and activations != "per-tensor":
            expected = "activations='static' beside it" if trained else "static, or dynamic with activations='per-tensor'"
            raise ValueError(
                f"backend {backend} with the method `{'qat' if trained else method}`: expected {expected}\n  hint: leave the backend out"
            )
    options = {
        "method": method,
        "recipe": json.dumps({"version": 1, **recipe}) if isinstance(recipe, Mapping) else None,
        "recipe_file": os.fspath(recipe) if isinstance(recipe, str | os.PathLike) else None,
        "weights": weights or "int8",
        "group_size": group_size,
        "asymmetric": asymmetric,
        "layout": layout or "pack-quantized",
        "weight_scales": weight_scales or "per-channel",
        "modules": {} if modules is None else {pattern: of if isinstance(of, str) else dict(of) for pattern, of in modules.items()},
        "double_quant": double_quant,
        "block_size": block_size,
        "scales": scales,
        "embeddings": embeddings,
        "quantize_embeddings": quantize_embeddings,
        "float_dtype": float_dtype,
        "skip": [skip] if isinstance(skip, str) else list(skip),
        "weight_only": [weight_only] if isinstance(weight_only, str) else list(weight_only),
        "activations": activations,
        "gptq": gptq,
        "saturation_proof": saturation_proof,
        "calibration": request if given or backend is not None else None,
        "trained": trained,
        "training": training,
        "sensitivity_of_output": sensitivity == "output",
        "force": force,
        "max_shard_size": str(max_shard_size),
        "resume": resume,
        "threads": resolve_threads(threads),
    }
    target = None if dry_run or out is None else os.fspath(out)
    with progress_bar(show_progress) as progress, said_where_it_goes_on(target) if training else nullcontext():
        text = _fewbit.quantize_model(resolve_model(source), target, json.dumps(options), progress=progress)
    answer = json.loads(text)
    layers, stored = answer["layers"]
    if stored > layers:
        warnings.warn(f"the files hold {stored} layers, config.json asks for {layers}: the others are not used", stacklevel=3)
    decided = None if answer["calibration"] is None else make_record(Calibration, answer["calibration"])
    warn_of_noise(decided, min_sqnr, stacklevel=3)
    extra = {"calibration": answer["calibration"]}
    if answer["plan"] is not None:
        return make_record(QuantizePlan, {**answer["plan"], "files": answer["files"], **extra})
    if answer["training"] is not None:
        report = make_record(TrainingReport, {**answer["training"], **extra})
        warn_of_training(report, stacklevel=3)
        return report
    return make_record(QuantizeReport, {**answer["report"], **extra})
