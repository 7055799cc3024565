//! Element types of stored tensors.

use std::fmt;

/// Element type of a stored tensor, named as safetensors names it.
///
/// Only types whose elements are whole bytes and that fewbit can read or pass through; the rarer ones of the
/// format (`F4`, `F6_E2M3`, `F8_E8M0`, `C64`, …) are unknown to [`DType::parse`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(
    missing_docs,
    reason = "each variant is the safetensors name of the type"
)]
pub enum DType {
    Bool,
    U8,
    I8,
    F8E4M3,
    F8E5M2,
    I16,
    U16,
    F16,
    BF16,
    I32,
    U32,
    F32,
    F64,
    I64,
    U64,
}

impl DType {
    /// Every type, in the order of the variants.
    pub const ALL: &'static [DType] = &[
        DType::Bool,
        DType::U8,
        DType::I8,
        DType::F8E4M3,
        DType::F8E5M2,
        DType::I16,
        DType::U16,
        DType::F16,
        DType::BF16,
        DType::I32,
        DType::U32,
        DType::F32,
        DType::F64,
        DType::I64,
        DType::U64,
    ];

    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        match self {
            DType::Bool | DType::U8 | DType::I8 | DType::F8E4M3 | DType::F8E5M2 => 1,
            DType::I16 | DType::U16 | DType::F16 | DType::BF16 => 2,
            DType::I32 | DType::U32 | DType::F32 => 4,
            DType::F64 | DType::I64 | DType::U64 => 8,
        }
    }

    /// The safetensors spelling, for instance `"BF16"` or `"F8_E4M3"`.
    pub const fn name(self) -> &'static str {
        match self {
            DType::Bool => "BOOL",
            DType::U8 => "U8",
            DType::I8 => "I8",
            DType::F8E4M3 => "F8_E4M3",
            DType::F8E5M2 => "F8_E5M2",
            DType::I16 => "I16",
            DType::U16 => "U16",
            DType::F16 => "F16",
            DType::BF16 => "BF16",
            DType::I32 => "I32",
            DType::U32 => "U32",
            DType::F32 => "F32",
            DType::F64 => "F64",
            DType::I64 => "I64",
            DType::U64 => "U64",
        }
    }

    /// Parses the safetensors spelling, which is case-sensitive; `None` for any other text.
    ///
    /// ```
    /// use fewbit_numerics::dtype::DType;
    /// assert_eq!(DType::parse("F8_E4M3"), Some(DType::F8E4M3));
    /// assert_eq!(DType::parse("F4"), None);
    /// ```
    pub fn parse(name: &str) -> Option<Self> {
        DType::ALL
            .iter()
            .copied()
            .find(|dtype| dtype.name() == name)
    }

    /// Whether elements are floating-point numbers.
    pub const fn is_float(self) -> bool {
        matches!(
            self,
            DType::F8E4M3 | DType::F8E5M2 | DType::F16 | DType::BF16 | DType::F32 | DType::F64
        )
    }
}

impl fmt::Display for DType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_parses_back_and_displays() {
        for &dtype in DType::ALL {
            assert_eq!(DType::parse(dtype.name()), Some(dtype));
            assert_eq!(dtype.to_string(), dtype.name());
        }
        let names: Vec<&str> = DType::ALL.iter().map(|dtype| dtype.name()).collect();
        assert_eq!(
            names.join(" "),
            "BOOL U8 I8 F8_E4M3 F8_E5M2 I16 U16 F16 BF16 I32 U32 F32 F64 I64 U64"
        );
    }

    #[test]
    fn sizes_and_kinds() {
        let bytes: Vec<usize> = DType::ALL.iter().map(|dtype| dtype.bytes()).collect();
        assert_eq!(bytes, [1, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 8, 8, 8]);
        let floats: Vec<DType> = DType::ALL
            .iter()
            .copied()
            .filter(|d| d.is_float())
            .collect();
        assert_eq!(
            floats,
            [
                DType::F8E4M3,
                DType::F8E5M2,
                DType::F16,
                DType::BF16,
                DType::F32,
                DType::F64
            ]
        );
    }

    #[test]
    fn unknown_names_are_none() {
        for name in [
            "",
            "f32",
            "F32 ",
            "float32",
            "F4",
            "F8_E8M0",
            "F8_E4M3FNUZ",
            "C64",
            "I4",
        ] {
            assert_eq!(DType::parse(name), None, "{name:?}");
        }
    }
}
