//! Instruction sets: one folder each, holding leaf intrinsics, and one row of [`TABLE`].
//!
//! To add one: a folder with a token that implements [`Simd`](crate::simd::Simd) and [`Int8Tile`](crate::simd::Int8Tile), a
//! `kernel_set!` that instantiates the algorithms for it, a variant of [`Isa`](crate::Isa), and a row below. Dispatch, tests
//! and benchmarks read the table.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
pub(crate) mod scalar;

use crate::kernels::Kernels;

/// The routines of every instruction set that this program was built with, from plain to fast.
pub(crate) static TABLE: &[&Kernels] = &[
    &scalar::KERNELS,
    #[cfg(target_arch = "x86_64")]
    &avx2::KERNELS,
];

/// Instantiates every algorithm for one instruction set and collects the routines in `KERNELS`.
///
/// `attribute` goes on each routine and enables the CPU features; `token` is the type that implements the traits. The list below is
/// the one place where operation, name, arguments and algorithm of a routine meet.
macro_rules! kernel_set {
    (isa: $isa:expr, name: $name:literal, attribute: $attribute:tt, token: $token:ident $(,)?) => {
        $crate::arch::kernel_set! { @emit ($isa) $name $attribute ($token)
            LinearF32, "linear_f32f32f32_6x16":
                linear_f32(call: Linear<'_>, source: Stored<'_, f32>) = linear::linear;
            LinearF16, "linear_f32f16f32_6x16":
                linear_f16(call: Linear<'_>, source: Stored<'_, F16>) = linear::linear;
            LinearBf16, "linear_f32bf16f32_6x16":
                linear_bf16(call: Linear<'_>, source: Stored<'_, Bf16>) = linear::linear;
            LinearWeightOnlyInt8, "linear_f32s8f32_6x16":
                linear_weight_only_int8(call: Linear<'_>, source: DecodedInt8<'_>) = linear::linear;
            LinearFourBit, "linear_f32u4f32_6x16":
                linear_four_bit(call: Linear<'_>, source: DecodedFourBit<'_>) = linear::linear;
            LinearInt8, "linear_u8s8i32_6x16":
                linear_int8(call: LinearInt8<'_>) = linear_int8::linear_int8;
            QuantizeRows, "quantize_rows_f32u8_1x16":
                quantize_rows(x: &[f32], scheme: ActivationScheme, out: &mut QuantizedRows)
                    = quantize_rows::quantize_rows;
            LayerNorm, "layer_norm_f32_1x16":
                layer_norm(call: LayerNorm<'_>) = layer_norm::layer_norm;
            Activation, "activation_f32_1x16":
                activation(kind: Activation, x: &mut [f32]) = activation::activation;
            Add, "add_f32_1x16": add(x: &mut [f32], y: &[f32]) = vector::add;
            Normalize, "normalize_f32_1x16": normalize(x: &mut [f32]) = vector::normalize;
            Attention, "attention_f32_6x16":
                attention(input: &AttentionInput<'_>, out: &mut [f32], workspace: &mut Workspace)
                    = attention::attention;
        }
    };
    (@emit ($isa:expr) $name:literal $attribute:tt ($token:ident) $(
        $operation:ident, $suffix:literal:
            $routine:ident($($argument:ident: $type:ty),*) = $module:ident::$algorithm:ident;
    )*) => {
        mod routines {
            use fewbit_numerics::activation::ActivationScheme;
            use $crate::attention::AttentionInput;
            use $crate::generic::layer_norm::LayerNorm;
            use $crate::generic::linear::Linear;
            use $crate::generic::linear_int8::LinearInt8;
            use $crate::generic::panel_element::{Bf16, F16};
            use $crate::generic::panel_source::{DecodedFourBit, DecodedInt8, Stored};
            use $crate::quantized_rows::QuantizedRows;
            use $crate::row_operations::Activation;
            use $crate::simd::Simd;
            use $crate::workspace::Workspace;

            $(
                /// # Safety
                ///
                /// The CPU has the instruction set.
                # $attribute
                pub(super) unsafe fn $routine($($argument: $type),*) {
                    // SAFETY: this function's contract.
                    let s = unsafe { <super::$token as Simd>::assume_supported() };
                    $crate::generic::$module::$algorithm(s, $($argument),*);
                }
            )*
        }

        /// The routines of this instruction set.
        pub(crate) static KERNELS: $crate::kernels::Kernels = $crate::kernels::Kernels {
            isa: $isa,
            routines: &[$(
                $crate::kernels::Routine {
                    name: concat!($name, "_", $suffix),
                    isa: $isa,
                    operation: $crate::kernels::Operation::$operation,
                },
            )*],
            $($routine: routines::$routine,)*
        };
    };
}
pub(crate) use kernel_set;
