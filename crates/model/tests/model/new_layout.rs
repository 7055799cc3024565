//! A layout that fewbit does not have, whole in this file: written through [`WeightLayout`], read through [`WeightSource`], and run.
//!
//! Weights are -1, 0 or 1 times a scale for the row, four codes of two bits a byte.

use std::borrow::Cow;

use fewbit_checkpoint::weight_layout::TensorPart;
use fewbit_checkpoint::{
    Checkpoint, CheckpointError, CheckpointErrorKind, CheckpointWriter, StoredWeight, TensorPlan,
    WeightLayout,
};
use fewbit_model::{EncoderSpec, Module, Network, RaggedBatch, Role, WeightSource};
use fewbit_numerics::dtype::DType;

use crate::golden_files::{golden, largest_difference};

#[derive(Debug)]
struct Ternary;

/// The nearest of -1, 0 and 1 times the mean magnitude of each row.
fn quantize(weight: &[f32], columns: usize) -> StoredWeight<'static> {
    let mut codes = Vec::with_capacity(weight.len());
    let mut scales = Vec::new();
    for row in weight.chunks(columns) {
        let scale = row.iter().map(|value| value.abs()).sum::<f32>() / columns as f32;
        scales.push(scale);
        codes.extend(
            row.iter()
                .map(|value| (value / scale).round().clamp(-1.0, 1.0) as i8),
        );
    }
    StoredWeight::weight_only_int8(Cow::Owned(codes), scales, columns)
}

impl WeightLayout for Ternary {
    fn plan(&self, module: &str, [rows, columns]: [usize; 2]) -> Vec<TensorPlan> {
        let packed = [rows, columns.div_ceil(4)];
        vec![
            TensorPlan::new(format!("{module}.ternary"), DType::U8, packed),
            TensorPlan::new(format!("{module}.ternary_scale"), DType::F32, [rows]),
        ]
    }

    fn encode<'a>(
        &self,
        module: &str,
        [_, columns]: [usize; 2],
        first_row: usize,
        rows: &'a StoredWeight<'_>,
    ) -> Result<Vec<TensorPart<'a>>, CheckpointError> {
        let StoredWeight::Groups { codes, scales, .. } = rows else {
            return Err(CheckpointError::new(
                CheckpointErrorKind::UnsupportedQuantization,
                "expected ternary codes",
            ));
        };
        let pack = |codes: &[i8]| {
            let bits = codes.iter().enumerate();
            bits.fold(0, |byte, (index, code)| {
                byte | ((code + 1) as u8) << (2 * index)
            })
        };
        let part = |name: &str, bytes_per_row: usize, bytes: Vec<u8>| TensorPart {
            name: format!("{module}.{name}"),
            offset: first_row * bytes_per_row,
            bytes: bytes.into(),
        };
        let packed = codes
            .chunks(columns)
            .flat_map(|row| row.chunks(4).map(pack));
        let scales = scales.iter().flat_map(|scale| scale.to_le_bytes());
        Ok(vec![
            part("ternary", columns.div_ceil(4), packed.collect()),
            part("ternary_scale", 4, scales.collect()),
        ])
    }
}

/// Feed-forward outputs in this layout, from a checkpoint that has nothing else.
struct TernaryFile(Checkpoint);

impl WeightSource for TernaryFile {
    fn weight(&self, module: &Module) -> Result<Option<StoredWeight<'_>>, CheckpointError> {
        if module.role != Role::Output {
            return Ok(None);
        }
        let columns = module.shape[1];
        let packed = self.0.require(&format!("{}.ternary", module.name))?;
        let scales = self.0.require(&format!("{}.ternary_scale", module.name))?;
        let codes = packed.bytes()?;
        let unpack = |row: &[u8]| -> Vec<i8> {
            let code = |index: usize| (row[index / 4] >> (2 * (index % 4)) & 3) as i8 - 1;
            (0..columns).map(code).collect()
        };
        let rows = codes.chunks(columns.div_ceil(4));
        Ok(Some(StoredWeight::weight_only_int8(
            Cow::Owned(rows.flat_map(unpack).collect()),
            scales.to_f32()?,
            columns,
        )))
    }
}

/// The same weights as the float values that they stand for.
struct Values<'a>(&'a TernaryFile);

impl WeightSource for Values<'_> {
    fn weight(&self, module: &Module) -> Result<Option<StoredWeight<'_>>, CheckpointError> {
        let stored = self.0.weight(module)?;
        let values = stored.map(|stored| stored.dequantize(module.shape));
        Ok(values
            .transpose()?
            .map(|values| StoredWeight::of_values(&values)))
    }
}

#[test]
fn a_new_layout_is_written_read_and_run() {
    let source = Checkpoint::open(golden("architectures").join("bert")).unwrap();
    let catalogue = EncoderSpec::from_checkpoint(&source).unwrap().catalogue();
    let outputs = || {
        let modules = catalogue.linear_modules();
        modules.filter(|module| module.role == Role::Output)
    };
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("ternary");
    let mut writer = CheckpointWriter::create(&out, false).unwrap();
    let plans = outputs().flat_map(|module| Ternary.plan(&module.name, module.shape));
    writer.plan_tensors(plans.collect()).unwrap();
    for module in outputs() {
        let weight = source.require(&format!("{}.weight", module.name)).unwrap();
        let (weight, [rows, columns]) = (weight.to_f32().unwrap(), module.shape);
        // In two parts, as a streaming conversion writes.
        for (first, part) in [(0, &weight[..columns]), (1, &weight[columns..])] {
            assert!(rows > 1);
            let part = quantize(part, columns);
            writer
                .write_weight(&Ternary, &module.name, module.shape, first, &part)
                .unwrap();
        }
    }
    writer.write_json("config.json", source.config()).unwrap();
    writer.finish().unwrap();

    let file = TernaryFile(Checkpoint::open(&out).unwrap());
    let (network, ledger) = Network::load_with_weights(&source, &file).unwrap();
    let is_replaced = |tensor: &str| tensor.contains("output.dense.weight");
    assert!(ledger.unused.iter().all(|(tensor, _)| !is_replaced(tensor)));
    let (float, _) = Network::load_with_weights(&source, &Values(&file)).unwrap();
    let (original, _) = Network::load(&source).unwrap();
    let batch = RaggedBatch::from_sequences(&[&[5, 9, 40, 7, 3]]);
    let [ternary, float, original] =
        [&network, &float, &original].map(|network| network.hidden_states(&batch, 1).unwrap());
    // Inputs of twelve bits keep three digits; the layers after it keep the order.
    let difference = largest_difference(&ternary, &float);
    assert!(difference < 0.02, "{difference}");
    assert!(largest_difference(&original, &float) > 0.1);
}
