//! What each method writes, against the scalar reference of fewbit-numerics.

use fewbit_checkpoint::stored_weight::{Int8Activations, StoredWeight};
use fewbit_checkpoint::{Checkpoint, TensorView};
use fewbit_numerics::activation::ActivationScheme;
use fewbit_numerics::double_quantization::{self, NESTED_BLOCK_SIZE};
use fewbit_numerics::dtype::DType;
use fewbit_numerics::dynamic_map::dynamic_map;
use fewbit_numerics::error_statistics::ErrorStatistics;
use fewbit_numerics::four_bit::{FourBitBlocks, FourBitType, quantize_blocks};
use fewbit_numerics::four_bit_scales::{encode_with_scale, least_error_scale};
use fewbit_numerics::rows::quantize_rows_int8;
use fewbit_quantize::{
    BlockScales, EmbeddingStorage, FourBitRecipe, IntegerRecipe, Method, QuantizePlan, Recipe,
};

use crate::tiny_bert::{HIDDEN, TinyBert, VOCABULARY, linear_modules, to_bytes};

fn values(checkpoint: &Checkpoint, tensor: &str) -> Vec<f32> {
    checkpoint.require(tensor).unwrap().to_f32().unwrap()
}

/// Names of the tensors that are the same in both checkpoints, byte for byte.
fn unchanged(source: &Checkpoint, output: &Checkpoint) -> Vec<String> {
    let same = |a: TensorView<'_>, b: TensorView<'_>| {
        (a.info.dtype, &a.info.shape, a.bytes().unwrap())
            == (b.info.dtype, &b.info.shape, b.bytes().unwrap())
    };
    source
        .tensors()
        .filter_map(|info| {
            let written = output.get(&info.name)?;
            same(source.require(&info.name).unwrap(), written).then(|| info.name.clone())
        })
        .collect()
}

/// Names that are not in `names`.
fn others(source: &Checkpoint, names: &[String]) -> Vec<String> {
    source
        .tensors()
        .map(|info| info.name.clone())
        .filter(|name| !names.contains(name))
        .collect()
}

fn weights(modules: &[String]) -> Vec<String> {
    modules
        .iter()
        .map(|module| format!("{module}.weight"))
        .collect()
}

/// The linear layers of the encoder with their prefix, and their shapes.
fn prefixed_modules(prefix: &str) -> Vec<(String, [usize; 2])> {
    linear_modules()
        .into_iter()
        .map(|(name, shape)| (format!("{prefix}{name}"), shape))
        .collect()
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

#[test]
fn dynamic_stores_the_codes_and_scales_of_the_reference() {
    let source = TinyBert::f32().write();
    let recipe = IntegerRecipe::dynamic().with_embeddings(EmbeddingStorage::Keep);
    let (_, output) = source.converted(&recipe.into());
    let float = source.open();
    let modules = prefixed_modules("bert.");
    for (module, shape) in &modules {
        let expected = quantize_rows_int8(
            &values(&float, &format!("{module}.weight")),
            shape[0],
            shape[1],
        );
        let StoredWeight::Int8 {
            codes,
            scales,
            activations,
        } = output.stored_weight(module, *shape).unwrap()
        else {
            panic!("{module} is not int8");
        };
        assert_eq!(codes.as_ref(), expected.codes, "{module}");
        assert_eq!(scales, expected.scales, "{module}");
        assert_eq!(
            activations,
            Int8Activations::Dynamic(ActivationScheme::Affine)
        );
    }
    // Everything that is no linear layer of the encoder is as it was.
    let names: Vec<String> = modules.into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        sorted(others(&float, &unchanged(&float, &output))),
        sorted(weights(&names))
    );
}

#[test]
fn weight_only_stores_packed_codes_of_the_reference() {
    let source = TinyBert::new(DType::F32, "").write();
    let recipe = IntegerRecipe::weight_only().with_embeddings(EmbeddingStorage::Keep);
    let (_, output) = source.converted(&recipe.into());
    let float = source.open();
    for (module, shape) in prefixed_modules("") {
        let expected = quantize_rows_int8(
            &values(&float, &format!("{module}.weight")),
            shape[0],
            shape[1],
        );
        let StoredWeight::Groups {
            codes,
            scales,
            bits,
            ..
        } = output.stored_weight(&module, shape).unwrap()
        else {
            panic!("{module} is not weight-only");
        };
        assert_eq!(
            (codes.as_ref(), bits),
            (expected.codes.as_slice(), 8),
            "{module}"
        );
        assert_eq!(scales, expected.scales, "{module}");
        assert!(!output.contains(&format!("{module}.weight")));
    }
}

#[test]
fn embeddings_are_stored_by_row_when_asked_for() {
    let source = TinyBert::f32().write();
    let float = source.open();
    for options in [IntegerRecipe::dynamic(), IntegerRecipe::weight_only()] {
        let method = options.method();
        let recipe = options.with_embeddings(EmbeddingStorage::Int8).into();
        let report = source
            .quantize_into(&recipe, &source.out(method.name()), false)
            .unwrap();
        let output = Checkpoint::open(&report.output).unwrap();
        let module = "bert.embeddings.word_embeddings";
        let expected = quantize_rows_int8(
            &values(&float, &format!("{module}.weight")),
            VOCABULARY,
            HIDDEN,
        );
        let codes = output.require(&format!("{module}.weight")).unwrap();
        assert_eq!(codes.info.dtype, DType::I8);
        let bytes: Vec<u8> = expected
            .codes
            .iter()
            .map(|code| code.cast_unsigned())
            .collect();
        assert_eq!(codes.bytes().unwrap(), bytes);
        assert_eq!(
            values(&output, &format!("{module}.weight_scale")),
            expected.scales
        );
        // The other tables are float.
        for table in ["position_embeddings", "token_type_embeddings"] {
            let name = format!("bert.embeddings.{table}.weight");
            assert_eq!(values(&output, &name), values(&float, &name));
        }
    }
}

#[test]
fn four_bit_methods_store_the_blocks_of_the_reference() {
    let source = TinyBert::f32().write();
    let float = source.open();
    // 1024 and 1536 elements: whole blocks of 64, and one short block of 4096.
    for (kind, scales) in [
        (FourBitType::Nf4, BlockScales::Absmax),
        (FourBitType::Nf4, BlockScales::Mse),
        (FourBitType::Fp4, BlockScales::Absmax),
        (FourBitType::Fp4, BlockScales::Mse),
    ] {
        for block_size in [64, 4096] {
            for double in [false, true] {
                let recipe = FourBitRecipe::new(kind)
                    .with_block_size(block_size)
                    .with_scales(scales)
                    .with_double_quantization(double)
                    .into();
                let name = format!("{}-{scales}-{block_size}-{double}", kind.name());
                let report = source
                    .quantize_into(&recipe, &source.out(&name), false)
                    .unwrap();
                let output = Checkpoint::open(&report.output).unwrap();
                for (module, shape) in prefixed_modules("bert.") {
                    let weight = values(&float, &format!("{module}.weight"));
                    let mut expected = quantize_blocks(&weight, block_size, kind);
                    if scales == BlockScales::Mse {
                        fit(&weight, block_size, kind, &mut expected);
                    }
                    let StoredWeight::FourBit {
                        packed,
                        absmax,
                        block_size: stored_block_size,
                        kind: stored_kind,
                        ..
                    } = output.stored_weight(&module, shape).unwrap()
                    else {
                        panic!("{name}: {module} is not 4-bit");
                    };
                    assert_eq!(
                        (stored_block_size, stored_kind),
                        (block_size, kind),
                        "{name}"
                    );
                    assert_eq!(packed.as_ref(), expected.packed, "{name} {module}");
                    let expected_absmax = if double {
                        nested(&expected.absmax)
                    } else {
                        expected.absmax
                    };
                    assert_eq!(absmax, expected_absmax, "{name} {module}");
                }
                // Embeddings, norms, biases, pooler and classifier are as they were.
                assert_eq!(
                    others(&float, &unchanged(&float, &output)).len(),
                    linear_modules().len(),
                    "{name}"
                );
            }
        }
    }
}

/// The scales with the least squared error of whole blocks, and their codes; a short block stays as it is.
fn fit(weight: &[f32], block_size: usize, kind: FourBitType, blocks: &mut FourBitBlocks) {
    let packed = blocks.packed.chunks_mut(block_size / 2);
    for ((block, packed), scale) in weight
        .chunks_exact(block_size)
        .zip(packed)
        .zip(&mut blocks.absmax)
    {
        *scale = least_error_scale(block, *scale, kind);
        encode_with_scale(block, *scale, kind, packed);
    }
}

/// The absmax values after a round trip through double quantization.
fn nested(absmax: &[f32]) -> Vec<f32> {
    let quantized = double_quantization::quantize(absmax);
    double_quantization::dequantize(
        &quantized.codes,
        dynamic_map(),
        &quantized.nested_absmax,
        NESTED_BLOCK_SIZE,
        quantized.offset,
    )
}

#[test]
fn half_precision_converts_every_float_and_no_integer() {
    let source = TinyBert::f32().write();
    let float = source.open();
    for (method, dtype) in [(Method::Fp16, DType::F16), (Method::Bf16, DType::BF16)] {
        let report = source
            .quantize_into(&Recipe::new(method), &source.out(method.name()), false)
            .unwrap();
        let output = Checkpoint::open(&report.output).unwrap();
        assert_eq!(output.tensors().count(), float.tensors().count());
        for info in output.tensors() {
            let original = float.require(&info.name).unwrap();
            let written = output.require(&info.name).unwrap();
            if original.info.dtype == DType::I64 {
                assert_eq!(
                    (info.dtype, written.bytes().unwrap()),
                    (DType::I64, original.bytes().unwrap())
                );
            } else {
                assert_eq!(info.dtype, dtype);
                assert_eq!(
                    written.bytes().unwrap(),
                    to_bytes(&original.to_f32().unwrap(), dtype)
                );
            }
        }
    }
}

#[test]
fn narrow_sources_are_widened_and_keep_their_dtype_elsewhere() {
    for dtype in [DType::F16, DType::BF16] {
        let source = TinyBert::new(dtype, "bert.").write();
        let float = source.open();
        let module = "bert.encoder.layer.1.output.dense";
        let shape = [32, 48];
        let weight = values(&float, &format!("{module}.weight"));

        let recipe = Recipe::new(Method::Dynamic);
        let report = source
            .quantize_into(&recipe, &source.out("int8"), false)
            .unwrap();
        let output = Checkpoint::open(&report.output).unwrap();
        let expected = quantize_rows_int8(&weight, shape[0], shape[1]);
        let StoredWeight::Int8 { codes, scales, .. } = output.stored_weight(module, shape).unwrap()
        else {
            panic!("not int8");
        };
        assert_eq!(
            (codes.as_ref(), scales),
            (expected.codes.as_slice(), expected.scales)
        );
        let bias = output.require(&format!("{module}.bias")).unwrap();
        assert_eq!(bias.info.dtype, dtype);

        let recipe = Recipe::new(Method::Nf4);
        let report = source
            .quantize_into(&recipe, &source.out("nf4"), false)
            .unwrap();
        let output = Checkpoint::open(&report.output).unwrap();
        let state = output
            .require(&format!("{module}.weight.quant_state.bitsandbytes__nf4"))
            .unwrap();
        let state: serde_json::Value = serde_json::from_slice(&state.bytes().unwrap()).unwrap();
        let name = if dtype == DType::F16 {
            "float16"
        } else {
            "bfloat16"
        };
        assert_eq!(state["dtype"], name);
    }
}

#[test]
fn a_source_of_the_same_dtype_is_kept() {
    let source = TinyBert::new(DType::F16, "bert.").write();
    let (report, output) = source.converted(&Recipe::new(Method::Fp16));
    let float = source.open();
    assert_eq!(unchanged(&float, &output).len(), float.tensors().count());
    assert_eq!(report.compression_ratio, 1.0);
    assert!(report.modules.is_empty());
}

/// F64 holds every F32: a checkpoint in F64 gives what the same one in F32 gives, with any method, and says what F64 loses.
#[test]
fn f64_is_read_as_f32() {
    let narrow = TinyBert::f32();
    let mut wide = narrow.clone();
    wide.config["dtype"] = "float64".into();
    for tensor in &mut wide.tensors {
        if tensor.plan.dtype == DType::F32 {
            tensor.plan.dtype = DType::F64;
            let values = tensor.bytes.as_chunks().0.iter();
            tensor.bytes = values
                .flat_map(|bytes| f64::from(f32::from_le_bytes(*bytes)).to_le_bytes())
                .collect();
        }
    }
    let (narrow, wide) = (narrow.write(), wide.write());
    for recipe in Recipe::standard() {
        let label = recipe.label();
        let (_, expected) = narrow.converted_into(&recipe, &label);
        let (report, found) = wide.converted_into(&recipe, &label);
        let names: Vec<String> = expected.tensors().map(|info| info.name.clone()).collect();
        assert_eq!(
            sorted(unchanged(&expected, &found)),
            sorted(names),
            "{label}"
        );
        assert!(
            report.notes.iter().any(|note| note.contains("F64")),
            "{label}"
        );
        assert_ne!(found.config()["dtype"], "float64", "{label}");
    }
}

/// What only a head or the pooler would use may hold anything; it is carried over and named.
#[test]
fn what_the_encoder_does_not_use_may_be_infinite() {
    let mut model = TinyBert::f32();
    model.poke("bert.pooler.dense.weight", 5, f32::NAN);
    model.poke("classifier.bias", 1, f32::INFINITY);
    let source = model.write();
    for recipe in Recipe::standard() {
        let label = recipe.label();
        let (report, output) = source.converted_into(&recipe, &label);
        assert!(
            values(&output, "bert.pooler.dense.weight")[5].is_nan(),
            "{label}"
        );
        assert_eq!(
            values(&output, "classifier.bias")[1],
            f32::INFINITY,
            "{label}"
        );
        for tensor in ["bert.pooler.dense.weight", "classifier.bias"] {
            assert!(
                report.notes.iter().any(|note| note.contains(tensor)),
                "{label} {tensor}"
            );
        }
    }
}

#[test]
fn written_bytes_are_those_of_the_plan() {
    let source = TinyBert::f32().write();
    let float = source.open();
    for recipe in Recipe::standard() {
        let plan = QuantizePlan::new(&float, &recipe).unwrap();
        let out = source.out(&recipe.label());
        let report = source.quantize_into(&recipe, &out, false).unwrap();
        let output = Checkpoint::open(&out).unwrap();
        let written: usize = output.tensors().map(|info| info.byte_len).sum();
        assert_eq!(written, plan.output_bytes(), "{}", recipe.label());
        assert_eq!(report.output_bytes, written);
        let planned: Vec<&str> = plan
            .rows()
            .iter()
            .flat_map(|row| &row.outputs)
            .map(|output| output.name.as_str())
            .collect();
        assert_eq!(planned.len(), output.tensors().count());
        assert!(planned.iter().all(|name| output.contains(name)));
    }
}

#[test]
fn reported_errors_are_those_of_the_dequantized_weights() {
    let source = TinyBert::f32().write();
    let float = source.open();
    for recipe in Recipe::standard() {
        let out = source.out(&recipe.label());
        let report = source.quantize_into(&recipe, &out, false).unwrap();
        let output = Checkpoint::open(&out).unwrap();
        let mut reported = 0;
        for (module, shape) in prefixed_modules("bert.") {
            let weight = values(&float, &format!("{module}.weight"));
            let stored = output.stored_weight(&module, shape).unwrap();
            let dequantized = stored.dequantize(shape).unwrap();
            let expected = ErrorStatistics::between(&weight, &dequantized);
            let found = report
                .modules
                .iter()
                .find(|report| report.module == module)
                .unwrap();
            assert_eq!(
                (found.sqnr_db, found.cosine, found.max_absolute_error),
                (expected.sqnr_db, expected.cosine, expected.max_absolute),
                "{} {module}",
                recipe.label()
            );
            reported += 1;
        }
        // fp16, bf16 and the defaults of int8 methods also convert the embedding table, which is reported as well.
        let embeddings = usize::from(!matches!(
            report.recipe.embeddings(),
            EmbeddingStorage::Keep if report.recipe.method().float_dtype().is_none()
        ));
        assert_eq!(report.modules.len(), reported + embeddings);
    }
}

#[test]
fn values_that_vanish_in_fp16_are_counted() {
    let mut model = TinyBert::f32();
    model
        .poke("classifier.weight", 5, 1e-9)
        .poke("bert.pooler.dense.weight", 0, -1e-9);
    let (report, _) = model.write().converted(&Recipe::new(Method::Fp16));
    assert_eq!(report.underflowed, 2);
    let (report, _) = model.write().converted(&Recipe::new(Method::Bf16));
    assert_eq!(report.underflowed, 0);
}

#[test]
fn a_large_tensor_is_converted_slice_by_slice_as_if_whole() {
    // 140000 rows of 32: more than two slices, the last of them short.
    let rows = 140_000;
    let mut model = TinyBert::f32();
    model.config["vocab_size"] = rows.into();
    let weights: Vec<f32> = (0..rows * HIDDEN)
        .map(|i| ((i * 7919 % 10_007) as f32 - 5000.0) * 1e-4)
        .collect();
    let table = model.tensor("bert.embeddings.word_embeddings.weight");
    table.plan.shape = vec![rows, HIDDEN];
    table.bytes = to_bytes(&weights, DType::F32);
    let source = model.write();
    let module = "bert.embeddings.word_embeddings";

    let recipe = Recipe::from(IntegerRecipe::dynamic().with_embeddings(EmbeddingStorage::Int8));
    let mut calls = Vec::new();
    let report = fewbit_quantize::quantize_model(
        &source.directory,
        &recipe,
        source.out("int8"),
        false,
        &mut |done, total, tensor| calls.push((done, total, tensor.to_owned())),
    )
    .unwrap();
    let output = Checkpoint::open(&report.output).unwrap();
    let expected = quantize_rows_int8(&weights, rows, HIDDEN);
    let codes: Vec<u8> = expected
        .codes
        .iter()
        .map(|code| code.cast_unsigned())
        .collect();
    assert_eq!(
        output
            .require(&format!("{module}.weight"))
            .unwrap()
            .bytes()
            .unwrap(),
        codes
    );
    assert_eq!(
        values(&output, &format!("{module}.weight_scale")),
        expected.scales
    );

    // Progress grows to the total, in several steps for the large tensor.
    assert!(calls.is_sorted_by_key(|(done, _, _)| *done));
    let (done, total, _) = calls.last().unwrap();
    assert_eq!((*done, *total), (report.source_bytes, report.source_bytes));
    let table = calls
        .iter()
        .filter(|(_, _, name)| name == &format!("{module}.weight"));
    assert_eq!(table.count(), 3);

    let report = source
        .quantize_into(&Recipe::new(Method::Bf16), &source.out("bf16"), false)
        .unwrap();
    let output = Checkpoint::open(&report.output).unwrap();
    assert_eq!(
        output
            .require(&format!("{module}.weight"))
            .unwrap()
            .bytes()
            .unwrap(),
        to_bytes(&weights, DType::BF16)
    );
}
