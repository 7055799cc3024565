//! Weights to codes and back, beside a copy of the bytes of the floats: from the second-level cache and from memory.

use std::hint::black_box;

use fewbit_kernels::{FloatBytes, Isa};
use fewbit_numerics::four_bit::FourBitType;
use fewbit_numerics::half_precision::{f32_to_bf16_bytes, f32_to_f16_bytes};

use super::{Report, values};

/// Elements of a row.
const COLUMNS: usize = 4096;

/// Elements of a block.
const BLOCK_SIZE: usize = 64;

pub(crate) fn codecs(report: &Report<'_>) {
    for (place, elements) in [("L2", 1 << 16), ("memory", 1 << 25)] {
        if report.selects_none("codec") || (report.kernels.isa() == Isa::Scalar && place != "L2") {
            continue;
        }
        of_size(report, place, elements);
    }
}

fn of_size(report: &Report<'_>, place: &str, elements: usize) {
    let kernels = report.kernels;
    let source = values(elements);
    let mut floats = vec![0.0; elements];
    let bytes = size_of::<f32>() * elements;
    let measure = |what: &str, bytes: usize, call: &mut dyn FnMut()| {
        report.measure(&format!("codec {what} {place}"), bytes, "GB/s  ", call);
    };
    measure("copy f32", bytes, &mut || {
        floats.copy_from_slice(black_box(&source));
    });
    let mut half = vec![0; 2 * elements];
    let mut bfloat = vec![0; 2 * elements];
    f32_to_f16_bytes(&source, &mut half);
    f32_to_bf16_bytes(&source, &mut bfloat);
    let sources = [
        ("f32", bytes, FloatBytes::of_f32(&source)),
        ("f16", bytes / 2, FloatBytes::f16(&half)),
        ("bf16", bytes / 2, FloatBytes::bf16(&bfloat)),
    ];
    let mut packed = vec![0; elements / 2];
    let mut absmax = vec![0.0; elements / BLOCK_SIZE];
    let mut codes = vec![0; elements];
    let mut scales = vec![0.0; elements / COLUMNS];
    for (name, bytes, source) in sources {
        for kind in [FourBitType::Nf4, FourBitType::Fp4] {
            let (packed, absmax) = (&mut packed, &mut absmax);
            measure(&format!("{} {name}", kind.name()), bytes, &mut || {
                let source = black_box(source);
                let _finite = kernels.quantize_four_bit(source, BLOCK_SIZE, kind, packed, absmax);
            });
        }
        measure(&format!("int8 {name}"), bytes, &mut || {
            let source = black_box(source);
            let _finite = kernels.quantize_int8(source, COLUMNS, &mut codes, &mut scales);
        });
        measure(&format!("absmax {name}"), bytes, &mut || {
            let source = black_box(source);
            let _finite = kernels.group_absmax(source, COLUMNS, &mut scales);
        });
        measure(&format!("error_sums {name}"), bytes, &mut || {
            black_box(kernels.error_sums(black_box(source), &floats));
        });
    }
    // These are of the floats that they give.
    measure("dequantize nf4", bytes, &mut || {
        let (packed, kind) = (black_box(&packed), FourBitType::Nf4);
        kernels.dequantize_four_bit(packed, &absmax, BLOCK_SIZE, kind, &mut floats);
    });
    measure("dequantize int8", bytes, &mut || {
        kernels.dequantize_int8(black_box(&codes), &scales, COLUMNS, &mut floats);
    });
    let scales = vec![0.1; elements / BLOCK_SIZE];
    let zero_points = vec![1; elements / BLOCK_SIZE];
    for (name, points) in [("int4", None), ("int4 asymmetric", Some(&zero_points[..]))] {
        measure(&format!("encode {name} f32"), bytes, &mut || {
            kernels.encode_int4(black_box(&source), BLOCK_SIZE, &scales, points, &mut codes);
        });
        measure(&format!("dequantize {name}"), bytes, &mut || {
            let codes = black_box(&codes);
            kernels.dequantize_int4(codes, BLOCK_SIZE, &scales, points, &mut floats);
        });
    }
}
