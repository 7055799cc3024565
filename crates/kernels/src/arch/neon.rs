//! 64-bit ARM with NEON: four registers of four lanes for each vector.

mod int8;
mod lanes;

pub(crate) use int8::lowered_activations;
pub(crate) use lanes::Neon;

crate::arch::kernel_set! {
    isa: crate::Isa::Neon,
    name: "neon",
    attribute: [target_feature(enable = "neon")],
    token: Neon,
    int8_tile: Neon,
    int8_tile_name: "6x16",
    float_tile_name: "6x16",
}
