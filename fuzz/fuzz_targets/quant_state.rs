//! The `quant_state` of a bitsandbytes 4-bit weight, beside tensors that fit it as well as anything can.
#![no_main]

use fewbit_checkpoint::bitsandbytes::FourBitLayout;
use fewbit_checkpoint::weight_layout::TensorPart;
use fewbit_checkpoint::{Checkpoint, CheckpointError, StoredWeight, WeightLayout};
use fewbit_fuzz::{Scratch, Tensor, safetensors_file};
use fewbit_numerics::double_quantization::{self, NESTED_BLOCK_SIZE};
use fewbit_numerics::dtype::DType;
use fewbit_numerics::dynamic_map::dynamic_map;
use fewbit_numerics::four_bit::{FourBitType, quantize_blocks};
use libfuzzer_sys::fuzz_target;
use safetensors::Dtype;
use serde_json::Value;
use std::borrow::Cow;
use std::sync::LazyLock;

static SCRATCH: LazyLock<Scratch> = LazyLock::new(|| {
    let scratch = Scratch::new();
    let config = r#"{"quantization_config":{"quant_method":"bitsandbytes","load_in_4bit":true}}"#;
    scratch.write("config.json", config.as_bytes());
    scratch
});

const MODULE: &str = "encoder.layer.0.output.dense";
/// Larger weights show nothing that these do not.
const MOST_ELEMENTS: usize = 1 << 14;

/// The weight as the form, and its values.
type Read = (FourBitLayout, Vec<u8>, Vec<f32>, Vec<f32>);

fn read(tensors: &[Tensor], shape: [usize; 2]) -> Result<Read, CheckpointError> {
    SCRATCH.write("model.safetensors", &safetensors_file(tensors));
    let checkpoint = Checkpoint::open(SCRATCH.path()).expect("a checkpoint");
    let weight = checkpoint.stored_weight(MODULE, shape)?;
    let values = weight.dequantize(shape)?;
    let StoredWeight::FourBit {
        packed,
        absmax,
        nested: _,
        block_size,
        kind,
        dtype,
    } = weight
    else {
        panic!("a weight with a quant_state is one of 4 bits");
    };
    let layout = FourBitLayout {
        kind,
        block_size,
        double_quantization: false,
        dtype: match dtype {
            DType::F16 => "float16",
            DType::BF16 => "bfloat16",
            _ => "float32",
        }
        .to_owned(),
    };
    Ok((layout, packed.into_owned(), absmax, values))
}

/// What the state says, where it says something that can be stored.
fn promised(state: &[u8]) -> (FourBitType, [usize; 2], usize, Option<usize>) {
    let state: Value = serde_json::from_slice(state).unwrap_or_default();
    let size = |value: &Value| usize::try_from(value.as_u64()?).ok();
    let kind = match state["quant_type"].as_str() {
        Some("fp4") => FourBitType::Fp4,
        _ => FourBitType::Nf4,
    };
    let shape = [size(&state["shape"][0]), size(&state["shape"][1])];
    let shape = match shape {
        [Some(rows), Some(columns)] if rows.saturating_mul(columns) <= MOST_ELEMENTS => {
            [rows, columns]
        }
        _ => [4, 32],
    };
    let block_size = size(&state["blocksize"])
        .filter(|&size| size > 0)
        .unwrap_or(64);
    let nested = (!state["nested_offset"].is_null()).then(|| {
        size(&state["nested_blocksize"])
            .filter(|&size| size > 0)
            .unwrap_or(NESTED_BLOCK_SIZE)
    });
    (kind, shape, block_size, nested)
}

fuzz_target!(|state: &[u8]| {
    let (kind, shape, block_size, nested) = promised(state);
    let elements = shape[0] * shape[1];
    let values: Vec<f32> = (0..elements)
        .map(|i| (i * 7919 % 2003) as f32 / 1001.0 - 1.0)
        .collect();
    // The codes of any block size, as only even ones are written.
    let mut blocks = quantize_blocks(&values, 64, kind);
    let count = elements.div_ceil(block_size);
    blocks.absmax = (0..count).map(|i| 0.5 + (i % 64) as f32 / 128.0).collect();
    let name = |part: &str| format!("{MODULE}.weight{part}");
    let mut tensors = vec![
        Tensor::bytes(
            name(""),
            Dtype::U8,
            &[blocks.packed.len(), 1],
            blocks.packed.clone(),
        ),
        Tensor::floats(name(".quant_map"), &[16], kind.table()),
        Tensor::bytes(
            name(&format!(".quant_state.bitsandbytes__{}", kind.name())),
            Dtype::U8,
            &[state.len()],
            state.to_vec(),
        ),
    ];
    match nested {
        None => tensors.push(Tensor::floats(name(".absmax"), &[count], &blocks.absmax)),
        Some(nested_block_size) => {
            let codes = double_quantization::quantize(&blocks.absmax).codes;
            let nested_count = count.div_ceil(nested_block_size);
            tensors.push(Tensor::bytes(name(".absmax"), Dtype::U8, &[count], codes));
            tensors.push(Tensor::floats(
                name(".nested_absmax"),
                &[nested_count],
                &vec![0.5; nested_count],
            ));
            tensors.push(Tensor::floats(
                name(".nested_quant_map"),
                &[256],
                dynamic_map(),
            ));
        }
    }
    let (layout, packed, absmax, values) = match read(&tensors, shape) {
        Ok(read) => read,
        Err(error) => {
            let file = error.file().expect("an error names the file");
            assert!(file.starts_with(SCRATCH.path()), "{error}");
            return;
        }
    };
    assert_eq!(values.len(), elements);
    assert_eq!(packed, blocks.packed);
    assert_eq!(absmax.len(), count);
    // Written again, the weight is the same; with the absmax values quantized anew, all but them.
    for double_quantization in [false, true] {
        let layout = FourBitLayout {
            double_quantization,
            ..layout.clone()
        };
        let weight = StoredWeight::FourBit {
            packed: Cow::Borrowed(&packed),
            absmax: absmax.clone(),
            nested: double_quantization.then(|| double_quantization::quantize(&absmax)),
            block_size: layout.block_size,
            kind: layout.kind,
            dtype: DType::F32,
        };
        let parts = layout
            .encode(MODULE, shape, 0, &weight)
            .expect("a weight in the layout's form");
        let plans = layout.plan(MODULE, shape);
        assert_eq!(plans.len(), parts.len());
        let written: Vec<Tensor> = plans
            .iter()
            .zip(parts)
            .map(|(plan, TensorPart { name, bytes, .. })| {
                assert_eq!((&plan.name, plan.byte_len()), (&name, bytes.len()));
                let dtype = match plan.dtype {
                    DType::U8 => Dtype::U8,
                    DType::F32 => Dtype::F32,
                    other => panic!("{name}: no part of a 4-bit weight has the type {other}"),
                };
                Tensor::bytes(name, dtype, &plan.shape, bytes.into_owned())
            })
            .collect();
        let again = read(&written, shape);
        if double_quantization {
            // Quantizing absmax values near the greatest float can overflow, which reading refuses.
            let Ok(again) = again else { continue };
            assert_eq!(
                (again.0, again.1),
                (
                    FourBitLayout {
                        double_quantization: false,
                        ..layout
                    },
                    packed.clone()
                )
            );
            assert_eq!(again.2.len(), count);
        } else {
            assert_eq!(
                again.expect("what was written is read"),
                (layout, packed.clone(), absmax.clone(), values.clone())
            );
        }
    }
});
