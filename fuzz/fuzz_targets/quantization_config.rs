//! A config.json with a `quantization_config`, over weights that are stored in every layout.
#![no_main]

use fewbit_checkpoint::{Checkpoint, QuantizationConfig};
use fewbit_fuzz::{Scratch, Tensor, safetensors_file};
use fewbit_numerics::four_bit::{FourBitType, quantize_blocks};
use libfuzzer_sys::fuzz_target;
use safetensors::Dtype;
use serde_json::Value;
use std::sync::LazyLock;

const ROWS: usize = 4;
const COLUMNS: usize = 32;
const SHAPE: [usize; 2] = [ROWS, COLUMNS];

static SCRATCH: LazyLock<Scratch> = LazyLock::new(|| {
    let scratch = Scratch::new();
    scratch.write("model.safetensors", &safetensors_file(&tensors()));
    scratch
});

/// One module in each form, named so that the usual targets and ignore lists tell them apart.
const MODULES: [&str; 10] = [
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
