//! Portable routines: arrays of sixteen numbers and plain loops. `f32::mul_add` makes every fused multiply-add exact, by a library
//! call where the build's baseline has no such instruction.

mod int8;
mod lanes;

pub(crate) use lanes::Scalar;

crate::arch::kernel_set! {
    isa: crate::Isa::Scalar,
    name: "scalar",
    attribute: [inline(never)],
    token: Scalar,
    int8_tile: Scalar,
    int8_tile_name: "6x16",
    float_tile_name: "6x16",
}
