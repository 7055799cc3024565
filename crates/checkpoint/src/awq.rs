//! The AWQ layout `gemm`, written and read: codes and zero points of eight outputs in an int32 word, in an order of its own.
//!
//! A weight of shape (out, in), whose columns are in `groups` groups, is stored as
//!
//! | tensor | dtype | shape |
//! |---|---|---|
//! | `X.qweight` | I32 | \[in, out / 8\]: a word has the codes of eight outputs in the [order](AWQ_ORDER) 0, 2, 4, 6, 1, 3, 5, 7 |
//! | `X.qzeros` | I32 | \[groups, out / 8\]: the same of zero points |
//! | `X.scales` | F16 | \[groups, out\] |
//!
//! A value is `(code - zero point) * scale`, all codes being unsigned; symmetric groups have the zero point 8.
use crate::float_weight::read_float;
use crate::grouped_columns::{
    GroupedColumns, ReadColumns, half_scales, scales_of, word_bytes, words_of,
};
use crate::quantization_error::{malformed, unsupported};
use crate::weight_layout::TensorPart;
use crate::{
    Checkpoint, CheckpointError, CheckpointErrorKind, StoredWeight, TensorPlan, WeightLayout,
};
use fewbit_numerics::dtype::DType;
#[cfg(doc)]
use fewbit_numerics::int_packing::AWQ_ORDER;
use fewbit_numerics::int_packing::{
    in_awq_order, out_of_awq_order, pack_rows, transposed, unpack_rows,
};
use serde_json::{Value, json};
use std::fmt;

/// Bits of a code.
const BITS: usize = 4;
/// Codes of a word.
const CODES: usize = 8;

/// What `quantization_config` says of an AWQ checkpoint: nothing beyond what the tensors say, once the layout is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwqConfig;

impl AwqConfig {
    /// Reads a `quantization_config` object.
    pub(crate) fn from_json(config: &Value) -> Result<Self, CheckpointError> {
        let bits = ["bits", "w_bit"].iter().find_map(|field| config.get(field));
        match bits.map(|bits| (bits, bits.as_u64())) {
            Some((_, Some(4))) => {}
            Some((_, Some(bits))) => return Err(unsupported(format!("AWQ with {bits} bits"))),
            found => {
                let found = found.map_or(&Value::Null, |(found, _)| found);
                return Err(malformed(format!(
                    "quantization_config.bits: expected a number, found {found}"
                )));
            }
        }
        let version = ["version", "format"]
            .iter()
            .find_map(|field| config.get(field).filter(|value| !value.is_null()));
        match version.map(|version| (version, version.as_str().map(str::to_ascii_lowercase))) {
            None => Ok(Self),
            Some((_, Some(name))) if name == "gemm" => Ok(Self),
            Some((_, Some(name))) => Err(unsupported(format!("AWQ of the version `{name}`"))),
            Some((version, None)) => Err(malformed(format!(
                "quantization_config.version: expected a name, found {version}"
            ))),
        }
    }
}

impl fmt::Display for AwqConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("awq gemm")
    }
}

/// int4 weights as AWQ stores them.
///
/// ```
/// use fewbit_checkpoint::WeightLayout;
/// use fewbit_checkpoint::awq::AwqLayout;
///
/// let layout = AwqLayout { group_size: Some(32), asymmetric: true };
/// let planned = layout.plan("pooler.dense", [16, 64]);
/// assert_eq!((&planned[0].name[..], planned[0].byte_len()), ("pooler.dense.qweight", 16 * 64 / 2));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AwqLayout {
    /// Columns of a group, at least 1; none: a whole row.
    pub group_size: Option<usize>,
    /// Whether groups have zero points of their own; all are 8 otherwise.
    pub asymmetric: bool,
}

impl AwqLayout {
    /// The `quantization_config` object for config.json.
    ///
    /// `skip_modules` must name every linear layer that loaders create for the model and that is stored as float here.
    pub fn config(&self, skip_modules: &[String]) -> Value {
        let group_size = self.group_size.map_or(json!(-1), Value::from);
        json!({
            "quant_method": "awq",
            "version": "gemm",
            "bits": BITS,
            "group_size": group_size,
            "zero_point": true,
            "modules_to_not_convert": skip_modules,
        })
    }
}

/// As errors name it.
impl fmt::Display for AwqLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        GroupedColumns::describe(f, "awq", self.group_size, self.asymmetric)
    }
}

impl WeightLayout for AwqLayout {
    fn plan(&self, module: &str, shape: [usize; 2]) -> Vec<TensorPlan> {
        let [rows, columns] = shape;
        let name = |part: &str| format!("{module}.{part}");
        let groups = self.group_size.map_or(1, |size| columns / size.max(1));
        vec![
            TensorPlan::new(name("qweight"), DType::I32, [columns, rows / CODES]),
            TensorPlan::new(name("qzeros"), DType::I32, [groups, rows / CODES]),
            TensorPlan::new(name("scales"), DType::F16, [groups, rows]),
        ]
    }

    /// Of a whole weight, as its rows are columns of the tensors.
    ///
    /// # Errors
    /// Also for scales that are no float16, and for outputs that are no multiple of eight.
    fn encode<'a>(
        &self,
        module: &str,
        shape: [usize; 2],
        first_row: usize,
        rows: &'a StoredWeight<'_>,
    ) -> Result<Vec<TensorPart<'a>>, CheckpointError> {
        let parts = GroupedColumns::of_weight(
            module,
            shape,
            first_row,
            rows,
            (self.group_size, self.asymmetric),
            self,
        )?;
        let GroupedColumns {
            codes,
            scales,
            zero_points,
            group_size,
        } = parts;
        let [out, inside] = shape;
        let groups = inside / group_size.max(1);
        let words = |codes: &[i8], rows: usize| {
            let codes = transposed(codes, out, rows);
            word_bytes(pack_rows(&in_awq_order(&codes), rows, out, BITS))
        };
        let part = |name: &str, bytes: Vec<u8>| TensorPart {
            name: format!("{module}.{name}"),
            offset: 0,
            bytes: bytes.into(),
        };
        Ok(vec![
            part("qweight", words(codes, inside)),
            part("qzeros", words(&zero_points, groups)),
            part(
                "scales",
                half_scales(rows, module, &transposed(scales, out, groups))?,
            ),
        ])
    }
}

/// Reads the weight of `module`; the tensors that exist say whether it is quantized.
pub(crate) fn read<'a>(
    checkpoint: &'a Checkpoint,
    module: &str,
    shape: [usize; 2],
) -> Result<StoredWeight<'a>, CheckpointError> {
    if !checkpoint.contains(&format!("{module}.qweight")) {
        return read_float(checkpoint, module, shape);
    }
    let [out, inside] = shape;
    let qweight = checkpoint.require(&format!("{module}.qweight"))?;
    qweight.expect_dtype(&[DType::I32])?;
    qweight.expect_shape(&[inside, out / CODES])?;
    if !out.is_multiple_of(CODES) {
        let message = format!("outputs: expected a multiple of {CODES}, found {out}");
        return Err(qweight.error(CheckpointErrorKind::WrongShape, message));
    }
    let scales = checkpoint.require(&format!("{module}.scales"))?;
    let groups = match scales.info.shape[..] {
        [groups, _] if groups > 0 && inside.is_multiple_of(groups) => groups,
        _ => 1,
    };
    scales.expect_shape(&[groups, out])?;
    let qzeros = checkpoint.require(&format!("{module}.qzeros"))?;
    qzeros.expect_dtype(&[DType::I32])?;
    qzeros.expect_shape(&[groups, out / CODES])?;
    let codes = |words: &[i32], rows: usize| {
        let codes = out_of_awq_order(&unpack_rows(words, rows, out, BITS));
        transposed(&codes, rows, out)
    };
    let size = (inside / groups).max(1);
    ReadColumns {
        codes: codes(&words_of(&qweight)?, inside),
        zero_points: codes(&words_of(&qzeros)?, groups),
        scales: transposed(&scales_of(&scales)?, groups, out),
        groups,
        bits: BITS,
        group_of_column: (0..inside).map(|column| column / size).collect(),
    }
    .into_weight(shape)
}

/// The shape of the weight of `module`, of whose codes `qweight` has the shape (in, words); none if there are none.
pub(crate) fn packed_shape(
    checkpoint: &Checkpoint,
    module: &str,
) -> Result<Option<Vec<usize>>, CheckpointError> {
    let Some(qweight) = checkpoint.get(&format!("{module}.qweight")) else {
        return Ok(None);
    };
    match qweight.info.shape[..] {
        [inside, words] if let Some(out) = words.checked_mul(CODES) => Ok(Some(vec![out, inside])),
        _ => Err(qweight.error(
            CheckpointErrorKind::WrongShape,
            format!(
                "shape: expected (inputs, words of outputs), found {:?}",
                qweight.info.shape
            ),
        )),
    }
}
