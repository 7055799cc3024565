//! Instruction sets, found at run time.

#[cfg(target_arch = "aarch64")]
use std::arch::is_aarch64_feature_detected;
use std::fmt;

/// The environment variable that forces an instruction set.
pub const ISA_VARIABLE: &str = "FEWBIT_ISA";

/// An instruction set that kernels are written for; the order is from plain to fast within a processor architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Portable code without intrinsics.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// AVX2 and AVX-VNNI.
    AvxVnni,
    /// x86-64 with AVX-512 F, BW, DQ, VL and VNNI.
    Avx512Vnni,
    /// AVX-512 VNNI and BF16: products with bf16 weights and attention round their operands to bf16. Only where it is asked for by name.
    Avx512Bf16,
    /// 64-bit ARM with NEON.
    Neon,
    /// NEON and dot products of bytes (FEAT_DotProd).
    NeonDotprod,
    /// NEON and products of matrices of bytes (FEAT_I8MM).
    NeonI8mm,
}

impl Isa {
    /// Every instruction set, also those of other processors, from plain to fast.
    pub const ALL: &'static [Isa] = &[
        Isa::Scalar,
        Isa::Avx2,
        Isa::AvxVnni,
        Isa::Avx512Vnni,
        Isa::Avx512Bf16,
        Isa::Neon,
        Isa::NeonDotprod,
        Isa::NeonI8mm,
    ];

    /// `"scalar"`, `"avx2"`, `"neon-dotprod"` …: the spelling of `FEWBIT_ISA` and the first word of a routine's name.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::AvxVnni => "avxvnni",
            Isa::Avx512Vnni => "avx512vnni",
            Isa::Avx512Bf16 => "avx512bf16",
            Isa::Neon => "neon",
            Isa::NeonDotprod => "neon-dotprod",
            Isa::NeonI8mm => "neon-i8mm",
        }
    }

    /// The instruction set of that name.
    pub fn parse(name: &str) -> Option<Isa> {
        Isa::ALL.iter().copied().find(|isa| isa.name() == name)
    }

    /// Whether this program has routines for it and this CPU can run them.
    pub fn is_supported(self) -> bool {
        match self {
            Isa::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => Isa::Avx2.is_supported() && is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => {
                Isa::Avx2.is_supported()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => {
                Isa::Avx512Vnni.is_supported() && is_x86_feature_detected!("avx512bf16")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::AvxVnni | Isa::Avx512Vnni | Isa::Avx512Bf16 => false,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod => Isa::Neon.is_supported() && is_aarch64_feature_detected!("dotprod"),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm => Isa::Neon.is_supported() && is_aarch64_feature_detected!("i8mm"),
            #[cfg(not(target_arch = "aarch64"))]
            Isa::Neon | Isa::NeonDotprod | Isa::NeonI8mm => false,
        }
    }

    /// Whether all its routines give the bits of [`Isa::Scalar`]. A set that does not is never chosen by itself.
    ///
    /// ```
    /// use fewbit_kernels::{Exactness, Isa, Routine};
    /// assert!(Isa::fastest().keeps_same_bits());
    /// assert!(
    ///     Routine::all()
    ///         .filter(|routine| routine.isa.keeps_same_bits())
    ///         .all(|routine| routine.exactness == Exactness::SameBits)
    /// );
    /// ```
    pub const fn keeps_same_bits(self) -> bool {
        !matches!(self, Isa::Avx512Bf16)
    }

    /// The fastest supported instruction set among those that keep the same bits.
    pub fn fastest() -> Isa {
        Isa::ALL
            .iter()
            .copied()
            .rfind(|isa| isa.keeps_same_bits() && isa.is_supported())
            .unwrap_or(Isa::Scalar)
    }

    /// The instruction set that the value of `FEWBIT_ISA` asks for: the fastest when the variable is absent or empty.
    ///
    /// # Errors
    ///
    /// The value names no instruction set, or one that this CPU lacks.
    pub fn from_variable(value: Option<&str>) -> Result<Isa, IsaError> {
        let name = match value {
            None | Some("") => return Ok(Isa::fastest()),
            Some(name) => name,
        };
        let isa = Isa::parse(name).ok_or_else(|| IsaError::Unknown {
            found: name.to_owned(),
        })?;
        if isa.is_supported() {
            Ok(isa)
        } else {
            Err(IsaError::Unsupported { isa })
        }
    }

    /// [`Isa::from_variable`] of the process environment.
    ///
    /// # Errors
    ///
    /// As [`Isa::from_variable`].
    pub fn from_environment() -> Result<Isa, IsaError> {
        let value = std::env::var_os(ISA_VARIABLE);
        let value = value.as_ref().map(|value| value.to_string_lossy());
        Isa::from_variable(value.as_deref())
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// `FEWBIT_ISA` asks for what cannot be given.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum IsaError {
    /// No instruction set has this name.
    Unknown {
        /// The value of the variable.
        found: String,
    },
    /// This CPU, or this build, lacks the instruction set.
    Unsupported {
        /// What was asked for.
        isa: Isa,
    },
}

impl fmt::Display for IsaError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{ISA_VARIABLE}: ")?;
        match self {
            IsaError::Unknown { found } => {
                write!(formatter, "unknown instruction set: expected ")?;
                write_names(formatter, Isa::ALL.iter().copied())?;
                write!(formatter, ", found `{found}`")?;
            }
            IsaError::Unsupported { isa } => {
                write!(formatter, "instruction set that this CPU lacks: expected ")?;
                let supported = Isa::ALL.iter().copied().filter(|isa| isa.is_supported());
                write_names(formatter, supported)?;
                write!(formatter, ", found `{isa}`")?;
            }
        }
        write!(
            formatter,
            "\n  hint: unset it to use the fastest that this CPU has"
        )
    }
}

impl std::error::Error for IsaError {}

fn write_names(formatter: &mut fmt::Formatter<'_>, isas: impl Iterator<Item = Isa>) -> fmt::Result {
    for (index, isa) in isas.enumerate() {
        let separator = if index == 0 { "" } else { " or " };
        write!(formatter, "{separator}`{isa}`")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_back() {
        for &isa in Isa::ALL {
            assert_eq!(Isa::parse(isa.name()), Some(isa));
        }
        assert_eq!(Isa::parse("AVX2"), None);
    }

    #[test]
    fn the_variable_forces_a_set_or_is_refused() {
        assert_eq!(Isa::from_variable(None), Ok(Isa::fastest()));
        assert_eq!(Isa::from_variable(Some("")), Ok(Isa::fastest()));
        assert_eq!(Isa::from_variable(Some("scalar")), Ok(Isa::Scalar));
        assert_eq!(
            Isa::from_variable(Some("avx9")).unwrap_err().to_string(),
            "FEWBIT_ISA: unknown instruction set: expected `scalar` or `avx2` or `avxvnni` or `avx512vnni` or `avx512bf16` or `neon` \
             or `neon-dotprod` or `neon-i8mm`, found `avx9`\n  \
             hint: unset it to use the fastest that this CPU has"
        );
        for &isa in Isa::ALL {
            let expected = if isa.is_supported() {
                Ok(isa)
            } else {
                Err(IsaError::Unsupported { isa })
            };
            assert_eq!(Isa::from_variable(Some(isa.name())), expected);
        }
    }

    #[test]
    fn a_set_that_rounds_is_never_chosen_by_itself() {
        assert!(Isa::fastest().keeps_same_bits());
        let rounding: Vec<_> = Isa::ALL
            .iter()
            .filter(|isa| !isa.keeps_same_bits())
            .collect();
        assert_eq!(rounding, [&Isa::Avx512Bf16]);
    }

    #[test]
    fn an_unsupported_set_names_the_choices() {
        let text = IsaError::Unsupported { isa: Isa::Avx2 }.to_string();
        assert!(
            text.starts_with("FEWBIT_ISA: instruction set that this CPU lacks: expected `scalar`")
        );
        assert!(text.contains("found `avx2`\n  hint: "));
    }
}
