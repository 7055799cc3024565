//! The JSON object that says how a 4-bit tensor was quantized.
use super::parse_kind;
use fewbit_numerics::dtype::DType;
use fewbit_numerics::four_bit::FourBitType;
use serde_json::{Map, Value, json};

/// The longest text of a finite f32 written as an f64, for instance `-1.1754943508222875e-38`.
const LONGEST_NUMBER: usize = 24;

/// The content of `quant_state.bitsandbytes__*`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct QuantState {
    pub(super) kind: FourBitType,
    pub(super) block_size: usize,
    /// torch's name of the dtype that the tensor had and dequantizes to.
    pub(super) dtype: String,
    pub(super) shape: Vec<usize>,
    pub(super) nested: Option<NestedState>,
}

/// How the absmax values were quantized.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct NestedState {
    pub(super) block_size: usize,
    pub(super) offset: f32,
}

impl QuantState {
    fn to_json(&self) -> String {
        let mut object = Map::new();
        object.insert("quant_type".to_owned(), json!(self.kind.name()));
        object.insert("blocksize".to_owned(), json!(self.block_size));
        object.insert("dtype".to_owned(), json!(self.dtype));
        object.insert("shape".to_owned(), json!(self.shape));
        if let Some(NestedState { block_size, offset }) = self.nested {
            object.insert("nested_blocksize".to_owned(), json!(block_size));
            object.insert("nested_dtype".to_owned(), json!("float32"));
            // As an f64, which holds it exactly: every reader gets the same f32 back.
            object.insert("nested_offset".to_owned(), json!(f64::from(offset)));
        }
        Value::Object(object).to_string()
    }

    /// Bytes of the padded JSON: the same for every offset.
    pub(super) fn padded_len(&self) -> usize {
        let mut state = self.clone();
        match &mut state.nested {
            None => state.to_json().len(),
            Some(nested) => {
                nested.offset = 0.0;
                // `0.0` stands where up to LONGEST_NUMBER characters can stand.
                state.to_json().len() - "0.0".len() + LONGEST_NUMBER
            }
        }
    }

    /// The JSON, padded with spaces, which JSON allows after a value.
    pub(super) fn to_padded_json(&self) -> Vec<u8> {
        let mut bytes = self.to_json().into_bytes();
        bytes.resize(self.padded_len().max(bytes.len()), b' ');
        bytes
    }

    /// Reads the JSON; the error says which field is not what was expected.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let object: Value = serde_json::from_slice(bytes)
            .map_err(|error| format!("quant_state is not valid JSON: {error}"))?;
        let field = |name: &str, expected: &str| {
            let found = object.get(name).unwrap_or(&Value::Null);
            format!("quant_state field `{name}`: expected {expected}, found {found}")
        };
        let text = |name: &str, expected: &str| {
            object
                .get(name)
                .and_then(Value::as_str)
                .ok_or_else(|| field(name, expected))
        };
        let size = |name: &str| {
            object
                .get(name)
                .and_then(Value::as_u64)
                .and_then(|size| usize::try_from(size).ok())
                .filter(|&size| size > 0)
                .ok_or_else(|| field(name, "a positive integer"))
        };
        const KINDS: &str = "\"nf4\" or \"fp4\"";
        let kind =
            parse_kind(text("quant_type", KINDS)?).ok_or_else(|| field("quant_type", KINDS))?;
        let shape = object
            .get("shape")
            .and_then(Value::as_array)
            .and_then(|shape| {
                shape
                    .iter()
                    .map(|size| usize::try_from(size.as_u64()?).ok())
                    .collect()
            })
            .ok_or_else(|| field("shape", "a list of sizes"))?;
        let nested = match object.get("nested_offset") {
            None | Some(Value::Null) => None,
            Some(_) => {
                let offset = object
                    .get("nested_offset")
                    .and_then(Value::as_f64)
                    .map(|offset| offset as f32);
                let offset = offset
                    .filter(|offset| offset.is_finite())
                    .ok_or_else(|| field("nested_offset", "a finite number"))?;
                match object.get("nested_dtype") {
                    None => {}
                    Some(Value::String(dtype)) if dtype == "float32" => {}
                    Some(_) => return Err(field("nested_dtype", "\"float32\"")),
                }
                Some(NestedState {
                    block_size: size("nested_blocksize")?,
                    offset,
                })
            }
        };
        let state = QuantState {
            kind,
            block_size: size("blocksize")?,
            dtype: text("dtype", DTYPES)?.to_owned(),
            shape,
            nested,
        };
        state
            .dtype()
            .map(|_| state.clone())
            .ok_or_else(|| field("dtype", DTYPES))
    }

    /// The dtype as an element type.
    pub(super) fn dtype(&self) -> Option<DType> {
        dtype_named(&self.dtype)
    }
}

/// The element type that a dtype's name stands for.
pub(super) fn dtype_named(name: &str) -> Option<DType> {
    match name {
        "float32" => Some(DType::F32),
        "float16" => Some(DType::F16),
        "bfloat16" => Some(DType::BF16),
        _ => None,
    }
}

const DTYPES: &str = "\"float32\", \"float16\" or \"bfloat16\"";

#[cfg(test)]
mod tests {
    use super::*;

    fn state(offset: f32) -> QuantState {
        let nested = Some(NestedState {
            block_size: 256,
            offset,
        });
        QuantState {
            kind: FourBitType::Nf4,
            block_size: 64,
            dtype: "float16".to_owned(),
            shape: vec![64, 128],
            nested,
        }
    }

    #[test]
    fn every_offset_takes_the_same_room_and_survives() {
        // Extremes of the exponent and of the number of digits, and a sweep over bit patterns.
        let extremes = [
            0.0,
            -0.0,
            1.0,
            f32::MAX,
            f32::MIN,
            f32::MIN_POSITIVE,
            -f32::MIN_POSITIVE,
            f32::from_bits(1),
            0.1,
            16_777_216.0,
        ];
        let sweep = (0..=u32::MAX)
            .step_by(65_521)
            .map(f32::from_bits)
            .filter(|value| value.is_finite());
        for offset in extremes.into_iter().chain(sweep) {
            let bytes = state(offset).to_padded_json();
            assert_eq!(bytes.len(), state(0.0).padded_len(), "{offset:e}");
            let read = QuantState::parse(&bytes).unwrap();
            assert_eq!(
                read.nested.unwrap().offset.to_bits(),
                offset.to_bits(),
                "{offset:e}"
            );
        }
    }

    #[test]
    fn fields_that_are_wrong() {
        let good = state(0.5).to_json();
        for (from, to, expected) in [
            (
                "\"nf4\"",
                "\"int4\"",
                "quant_state field `quant_type`: expected \"nf4\" or \"fp4\", found \"int4\"",
            ),
            (
                "\"blocksize\":64",
                "\"blocksize\":0",
                "quant_state field `blocksize`: expected a positive integer, found 0",
            ),
            (
                "[64,128]",
                "[64,-1]",
                "quant_state field `shape`: expected a list of sizes, found [64,-1]",
            ),
            (
                "\"float16\"",
                "\"float64\"",
                "quant_state field `dtype`: expected \"float32\", \"float16\" or \"bfloat16\", found \"float64\"",
            ),
            (
                "0.5",
                "1e300",
                "quant_state field `nested_offset`: expected a finite number, found 1e+300",
            ),
            (
                "0.5",
                "\"x\"",
                "quant_state field `nested_offset`: expected a finite number, found \"x\"",
            ),
            (
                "256",
                "null",
                "quant_state field `nested_blocksize`: expected a positive integer, found null",
            ),
        ] {
            assert_eq!(
                QuantState::parse(good.replace(from, to).as_bytes()).unwrap_err(),
                expected
            );
        }
        assert!(
            QuantState::parse(b"{")
                .unwrap_err()
                .starts_with("quant_state is not valid JSON: ")
        );
    }
}
