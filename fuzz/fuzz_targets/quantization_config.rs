//! A config.json with a `quantization_config`, over weights that are stored in every layout.
#![no_main]

use fewbit_checkpoint::{Checkpoint, QuantizationConfig};
use fewbit_fuzz::{Scratch, Tensor, safetensors_file};
use fewbit_numerics::four_bit::{FourBitType, quantize_blocks};
use libfuzzer_sys::fuzz_target;
use safetensors::Dtype;
use serde_json::Value;
use std::sync::LazyLock;

// Eight of them are a word of AWQ's codes, and of GPTQ's zero points.
const ROWS: usize = 8;
const COLUMNS: usize = 32;
const SHAPE: [usize; 2] = [ROWS, COLUMNS];

static SCRATCH: LazyLock<Scratch> = LazyLock::new(|| {
    let scratch = Scratch::new();
    scratch.write("model.safetensors", &safetensors_file(&tensors()));
    scratch
});

/// One module in each form, named so that the usual targets and ignore lists tell them apart.
const MODULES: [&str; 16] = [
    "bert.pooler.dense",
    "bert.embeddings.word_embeddings",
    "encoder.layer.0.attention.self.query",
    "encoder.layer.0.attention.self.key",
    "encoder.layer.0.attention.output.dense",
    "encoder.layer.0.intermediate.dense",
    "encoder.layer.1.output.dense",
    "encoder.layer.2.output.dense",
    "encoder.layer.3.output.dense",
    "encoder.layer.4.output.dense",
    "encoder.layer.5.output.dense",
    "encoder.layer.6.output.dense",
    "encoder.layer.7.output.dense",
    "encoder.layer.8.output.dense",
    "encoder.layer.9.output.dense",
    "encoder.layer.10.output.dense",
];

fn tensors() -> Vec<Tensor> {
    let [
        float,
        table,
        affine,
        one_scale,
        packed4,
        groups,
        packed8,
        eight_bit,
        nf4,
        fp4,
        gptq4,
        gptq8,
        awq,
        fp8,
        nvfp4,
        mxfp4,
    ] = MODULES;
    let floats = |name: String, shape: &[usize]| {
        let count = shape.iter().product();
        let values: Vec<f32> = (1..=count).map(|i| i as f32 / 64.0).collect();
        Tensor::floats(name, shape, &values)
    };
    let codes = |name: String| {
        let bytes = (0..ROWS * COLUMNS).map(|i| (i * 37) as u8).collect();
        Tensor::bytes(name, Dtype::I8, &SHAPE, bytes)
    };
    let mut tensors = vec![floats(format!("{float}.weight"), &SHAPE)];
    for (module, scales) in [
        (table, &[ROWS, 1][..]),
        (affine, &[ROWS, 1]),
        (one_scale, &[1]),
    ] {
        tensors.push(codes(format!("{module}.weight")));
        tensors.push(floats(format!("{module}.weight_scale"), scales));
    }
    tensors.push(floats(format!("{affine}.input_scale"), &[1]));
    tensors.push(Tensor::bytes(
        format!("{affine}.input_zero_point"),
        Dtype::I8,
        &[1],
        vec![250],
    ));
    for (module, bits, scales) in [
        (packed4, 4, [ROWS, 1]),
        (groups, 4, [ROWS, 4]),
        (packed8, 8, [ROWS, 1]),
    ] {
        let words = COLUMNS * bits / 32;
        let bytes = (0..ROWS * words * 4).map(|i| (i * 29) as u8).collect();
        tensors.push(Tensor::bytes(
            format!("{module}.weight_packed"),
            Dtype::I32,
            &[ROWS, words],
            bytes,
        ));
        tensors.push(floats(format!("{module}.weight_scale"), &scales));
        let shape = SHAPE
            .iter()
            .flat_map(|&size| (size as u64).to_le_bytes())
            .collect();
        tensors.push(Tensor::bytes(
            format!("{module}.weight_shape"),
            Dtype::I64,
            &[2],
            shape,
        ));
    }
    tensors.push(codes(format!("{eight_bit}.weight")));
    tensors.push(floats(format!("{eight_bit}.SCB"), &[ROWS]));
    for (module, kind) in [(nf4, FourBitType::Nf4), (fp4, FourBitType::Fp4)] {
        let values: Vec<f32> = (0..ROWS * COLUMNS)
            .map(|i| i as f32 / 128.0 - 0.5)
            .collect();
        let blocks = quantize_blocks(&values, 64, kind);
        let state = format!(
            r#"{{"quant_type":"{}","blocksize":64,"dtype":"float16","shape":[{ROWS},{COLUMNS}]}}"#,
            kind.name()
        )
        .into_bytes();
        tensors.push(Tensor::bytes(
            format!("{module}.weight"),
            Dtype::U8,
            &[blocks.packed.len(), 1],
            blocks.packed,
        ));
        tensors.push(Tensor::floats(
            format!("{module}.weight.absmax"),
            &[blocks.absmax.len()],
            &blocks.absmax,
        ));
        tensors.push(Tensor::floats(
            format!("{module}.weight.quant_map"),
            &[16],
            kind.table(),
        ));
        tensors.push(Tensor::bytes(
            format!("{module}.weight.quant_state.bitsandbytes__{}", kind.name()),
            Dtype::U8,
            &[state.len()],
            state,
        ));
    }
    // Rows are inputs; the bits of a code say which of rows and columns are words.
    for (module, words, zeros) in [
        (gptq4, [COLUMNS / 8, ROWS], ROWS / 8),
        (gptq8, [COLUMNS / 4, ROWS], ROWS / 4),
        (awq, [COLUMNS, ROWS / 8], ROWS / 8),
    ] {
        const GROUPS: usize = 4;
        for (part, shape) in [("qweight", words), ("qzeros", [GROUPS, zeros])] {
            let bytes = (0..4 * shape[0] * shape[1]).map(|i| (i * 41) as u8);
            let name = format!("{module}.{part}");
            tensors.push(Tensor::bytes(name, Dtype::I32, &shape, bytes.collect()));
        }
        let scales = (0..GROUPS * ROWS).flat_map(|i| [i as u8, 0x38]);
        tensors.push(Tensor::bytes(
            format!("{module}.scales"),
            Dtype::F16,
            &[GROUPS, ROWS],
            scales.collect(),
        ));
    }
    // Groups that do not lie side by side, as with an order of activations.
    let groups = (0..COLUMNS).flat_map(|column| (column as u32 % 4).to_le_bytes());
    tensors.push(Tensor::bytes(
        format!("{gptq4}.g_idx"),
        Dtype::I32,
        &[COLUMNS],
        groups.collect(),
    ));
    // Codes that are no NaN, and scales that are no zero.
    let numbers = |count: usize| (0..count).map(|i| (i * 37 % 0x7e + 1) as u8).collect();
    tensors.push(Tensor::bytes(
        format!("{fp8}.weight"),
        Dtype::F8_E4M3,
        &SHAPE,
        numbers(ROWS * COLUMNS),
    ));
    tensors.push(floats(format!("{fp8}.weight_scale"), &[ROWS, 1]));
    for (module, dtype, scales) in [
        (nvfp4, Dtype::F8_E4M3, COLUMNS / 16),
        (mxfp4, Dtype::U8, COLUMNS / 32),
    ] {
        let packed = [ROWS, COLUMNS / 2];
        tensors.push(Tensor::bytes(
            format!("{module}.weight_packed"),
            Dtype::U8,
            &packed,
            numbers(packed[0] * packed[1]),
        ));
        tensors.push(Tensor::bytes(
            format!("{module}.weight_scale"),
            dtype,
            &[ROWS, scales],
            numbers(ROWS * scales),
        ));
    }
    tensors.push(floats(format!("{nvfp4}.weight_global_scale"), &[1]));
    tensors
}

fuzz_target!(|config: &[u8]| {
    let parsed = serde_json::from_slice::<Value>(config).ok();
    let quantization = parsed.as_ref().map(QuantizationConfig::from_config);
    let path = SCRATCH.write("config.json", config);
    let checkpoint = match Checkpoint::open(SCRATCH.path()) {
        Ok(checkpoint) => checkpoint,
        Err(error) => {
            assert_eq!(error.file(), Some(path.as_path()), "{error}");
            let expected = match quantization {
                Some(Ok(_)) => parsed.is_some_and(|value| !value.is_object()),
                Some(Err(expected)) => expected.kind() == error.kind(),
                None => true,
            };
            assert!(expected, "{error}");
            return;
        }
    };
    let parsed = parsed.expect("a checkpoint that was opened has a config that is JSON");
    let quantization = quantization
        .and_then(Result::ok)
        .expect("and one that is read");
    assert_eq!(*checkpoint.quantization(), quantization);
    assert!(!quantization.to_string().is_empty());
    // What it says does not depend on how it is spelled.
    let spelled: Value = serde_json::from_str(&parsed.to_string()).expect("JSON that was written");
    assert_eq!(
        QuantizationConfig::from_config(&spelled).expect("the same config"),
        quantization
    );
    for module in MODULES {
        match checkpoint.stored_weight(module, SHAPE) {
            Ok(weight) => {
                let values = weight
                    .dequantize(SHAPE)
                    .expect("the shape it was read with");
                assert_eq!(values.len(), ROWS * COLUMNS);
                assert!(values.iter().all(|value| value.is_finite()), "{module}");
            }
            Err(error) => assert!(
                error
                    .file()
                    .is_some_and(|file| file.starts_with(SCRATCH.path())),
                "{module}: {error}"
            ),
        }
    }
});
