//! Speed of the routines of every instruction set that this CPU has, at the shapes of a small encoder (hidden size 384).
//!
//! `cargo bench -p fewbit-kernels`; an argument selects lines that contain it: `cargo bench -p fewbit-kernels -- linear_int8`.
#![allow(clippy::print_stdout, reason = "a benchmark prints its results")]

mod codecs;

use std::hint::black_box;
use std::time::{Duration, Instant};

use fewbit_kernels::{
    Activation, ActivationBits, Arithmetic, AttentionInput, Epilogue, Isa, Kernels, Norm, NormKind,
    OutputColumns, PackedFloat, PackedFourBit, PackedInt8, PackedWeightOnlyInt8, QuantizedRows,
    QuantizedSequence, RowScale, Workspace, multiply_adds_per_second,
};
use fewbit_numerics::activation::ActivationScheme;
use fewbit_numerics::four_bit::{FourBitType, quantize_blocks};
use fewbit_numerics::half_precision::{f32_to_bf16_bytes, f32_to_f16_bytes};
use fewbit_numerics::rows::quantize_rows_int8;

fn main() {
    let (options, filters): (Vec<String>, Vec<String>) = std::env::args()
        .skip(1)
        .partition(|argument| argument.starts_with("--"));
    let filter = filters.first().cloned().unwrap_or_default();
    // `cargo bench` passes --bench; as a test, everything runs a few times only.
    let patience = match options.iter().any(|option| option == "--bench") {
        true => Duration::from_millis(200),
        false => Duration::ZERO,
    };
    for kernels in Kernels::available() {
        for arithmetic in [Arithmetic::F32, Arithmetic::Int8] {
            let peak = multiply_adds_per_second(kernels, arithmetic) / 1e9;
            let name = format!("{} peak {arithmetic:?}", kernels.isa());
            println!("{name:<44} {peak:7.2} GMAC/s");
        }
        let report = Report {
            kernels,
            filter: &filter,
            patience,
        };
        for (out_features, in_features) in [(384, 384), (1536, 384), (384, 1536)] {
            products(&report, out_features, in_features);
        }
        row_operations(&report);
        attention(&report);
        codecs::codecs(&report);
    }
}

struct Report<'a> {
    kernels: &'static Kernels,
    filter: &'a str,
    /// How long to repeat one call.
    patience: Duration,
}

impl Report<'_> {
    /// Whether no line that begins like that can be selected: what it measures need not be made.
    fn selects_none(&self, what: &str) -> bool {
        let name = format!("{} {what}", self.kernels.isa());
        !name.contains(self.filter)
            && !self.filter.contains(&name)
            && !self.filter.starts_with(what)
    }

    /// Prints `work` units a nanosecond.
    fn measure(&self, what: &str, work: usize, unit: &str, mut call: impl FnMut()) {
        let name = format!("{} {what}", self.kernels.isa());
        if !name.contains(self.filter) {
            return;
        }
        let time = best_time(self.patience, &mut call);
        let rate = work as f64 / time.as_nanos() as f64;
        let microseconds = time.as_nanos() as f64 / 1e3;
        println!("{name:<44} {rate:7.2} {unit} {microseconds:10.1} us");
    }
}

/// The least time of one call among many.
fn best_time(patience: Duration, call: &mut impl FnMut()) -> Duration {
    call();
    let begin = Instant::now();
    let mut best = Duration::MAX;
    let mut calls = 0;
    while calls < 3 || begin.elapsed() < patience {
        let start = Instant::now();
        call();
        best = best.min(start.elapsed());
        calls += 1;
    }
    best.max(Duration::from_nanos(1))
}

/// Numbers in -1..1 that do not repeat soon.
fn values(count: usize) -> Vec<f32> {
    let mut state = 0x2545_f491_u32;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn products(report: &Report<'_>, out_features: usize, in_features: usize) {
    let kernels = report.kernels;
    let weight = values(out_features * in_features);
    let bias = values(out_features);
    let store = Epilogue::store(Some(&bias));
    let mut half = vec![0; 2 * weight.len()];
    f32_to_f16_bytes(&weight, &mut half);
    let float16 = PackedFloat::from_f16_bytes(&half, out_features, in_features);
    f32_to_bf16_bytes(&weight, &mut half);
    let bfloat16 = PackedFloat::from_bf16_bytes(&half, out_features, in_features);
    let float = PackedFloat::from_f32(&weight, out_features, in_features);
    let codes = quantize_rows_int8(&weight, out_features, in_features);
    let int8 = PackedInt8::new(
        kernels,
        ActivationBits::Eight,
        &codes.codes,
        &codes.scales,
        out_features,
        in_features,
    );
    let weight_only = PackedWeightOnlyInt8::new(
        &codes.codes,
        &codes.scales,
        in_features,
        out_features,
        in_features,
    );
    let blocks = quantize_blocks(&weight, 64, FourBitType::Nf4);
    let four_bit = PackedFourBit::new(
        blocks.packed,
        blocks.absmax,
        64,
        FourBitType::Nf4,
        out_features,
        in_features,
    );
    let mut workspace = Workspace::new();
    for rows in [1, 2, 3, 16, 128] {
        // Portable code is slow; it is here to be correct.
        if kernels.isa() == Isa::Scalar && rows > 16 {
            continue;
        }
        let x = values(rows * in_features);
        let mut out = vec![0.0; rows * out_features];
        let mut quantized = QuantizedRows::new();
        let _finite = kernels.quantize_rows(
            &x,
            rows,
            in_features,
            RowScale::PerToken(ActivationScheme::Affine),
            &mut quantized,
        );
        let macs = rows * out_features * in_features;
        let shape = format!("{rows}x{out_features}x{in_features}");
        let mut measure = |what: &str, call: &mut dyn FnMut(&mut [f32], &mut Workspace)| {
            report.measure(&format!("{what} {shape}"), macs, "GMAC/s", || {
                call(black_box(&mut out), &mut workspace);
            });
        };
        measure("linear_f32", &mut |out, workspace| {
            kernels.linear_float(
                &x,
                rows,
                &float,
                store,
                OutputColumns::of_matrix(out, out_features),
                workspace,
            );
        });
        measure("linear_f16", &mut |out, workspace| {
            kernels.linear_float(
                &x,
                rows,
                &float16,
                store,
                OutputColumns::of_matrix(out, out_features),
                workspace,
            );
        });
        measure("linear_bf16", &mut |out, workspace| {
            kernels.linear_float(
                &x,
                rows,
                &bfloat16,
                store,
                OutputColumns::of_matrix(out, out_features),
                workspace,
            );
        });
        measure("linear_weight_only_int8", &mut |out, workspace| {
            kernels.linear_weight_only_int8(
                &x,
                rows,
                &weight_only,
                store,
                OutputColumns::of_matrix(out, out_features),
                workspace,
            );
        });
        measure("linear_four_bit", &mut |out, workspace| {
            kernels.linear_four_bit(
                &x,
                rows,
                &four_bit,
                store,
                OutputColumns::of_matrix(out, out_features),
                workspace,
            );
        });
        measure("linear_int8", &mut |out, workspace| {
            kernels.linear_int8(
                &quantized,
                &int8,
                store,
                OutputColumns::of_matrix(out, out_features),
                workspace,
            );
        });
    }
}

fn row_operations(report: &Report<'_>) {
    let kernels = report.kernels;
    let (rows, columns) = (64, 384);
    let elements = rows * columns;
    let original = values(elements);
    let mut x = original.clone();
    for &kind in Activation::ALL {
        report.measure(&format!("{kind:?}"), elements, "G/s   ", || {
            x.copy_from_slice(&original);
            kernels.activation(kind, black_box(&mut x));
        });
    }
    let gamma = values(columns);
    report.measure("layer_norm 64x384", elements, "G/s   ", || {
        let norm = Norm {
            kind: NormKind::Layer,
            gamma: &gamma,
            beta: &gamma,
            epsilon: 1e-12,
        };
        kernels.layer_norm(black_box(&mut x), None, norm);
    });
    let mut quantized = QuantizedRows::new();
    report.measure("quantize_rows 64x384", elements, "G/s   ", || {
        let x = black_box(&original);
        let scale = RowScale::PerToken(ActivationScheme::Affine);
        let _finite = kernels.quantize_rows(x, rows, columns, scale, &mut quantized);
    });
}

/// Either kind of attention.
type AttentionRoutine = fn(&Kernels, &AttentionInput<'_>, &mut [f32], &mut Workspace);

fn attention(report: &Report<'_>) {
    let (heads, head_size) = (12, 32);
    let width = heads * head_size;
    let mut workspace = Workspace::new();
    for tokens in [16, 128, 512] {
        if report.kernels.isa() == Isa::Scalar && tokens > 128 {
            continue;
        }
        let x = values(tokens * 3 * width);
        let mut out = vec![0.0; tokens * width];
        let input = AttentionInput {
            queries: &x,
            keys: &x[width..],
            values: &x[2 * width..],
            row_stride: 3 * width,
            key_row_stride: 3 * width,
            query_tokens: 0..tokens,
            tokens,
            heads,
            key_value_heads: heads,
            head_size,
            scale: 1.0 / (head_size as f32).sqrt(),
            bias: None,
            positions: None,
        };
        let macs = 2 * tokens * tokens * width;
        let kinds: [(&str, AttentionRoutine); 2] = [
            ("attention", Kernels::attention),
            ("attention_int8", Kernels::attention_int8),
        ];
        let mut sequence = QuantizedSequence::new();
        let what = format!("quantize_sequence {tokens} tokens 12x32");
        report.measure(&what, 2 * tokens * width, "G/s   ", || {
            let kernels = report.kernels;
            kernels.quantize_sequence(&input, black_box(&mut sequence), &mut workspace);
        });
        for (name, attention) in kinds {
            let what = format!("{name} {tokens} tokens 12x32");
            report.measure(&what, macs, "GMAC/s", || {
                attention(report.kernels, &input, black_box(&mut out), &mut workspace);
            });
        }
    }
}
