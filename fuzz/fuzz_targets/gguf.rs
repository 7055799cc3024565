//! A GGUF file: what is read of it lies in it, is the same however it is read, and is read again when it is written again.
#![no_main]

use fewbit_checkpoint::Checkpoint;
use fewbit_checkpoint::gguf::{GgufFile, GgufPart, GgufWriter, PlannedTensor, RowOrder};
use fewbit_fuzz::Scratch;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static SCRATCH: LazyLock<Scratch> = LazyLock::new(Scratch::new);

fuzz_target!(|bytes: &[u8]| {
    let path = SCRATCH.write("model.gguf", bytes);
    let file = match GgufFile::open(&path) {
        Ok(file) => file,
        Err(error) => {
            assert_eq!(error.file(), Some(path.as_path()), "{error}");
            return;
        }
    };
    let total: usize = file.tensors().iter().map(|tensor| tensor.byte_len()).sum();
    assert!(total <= bytes.len());
    let readable = file.tensors().iter().filter(|tensor| tensor.kind.readable().is_some());
    let parts: Vec<GgufPart> = readable
        .clone()
        .map(|tensor| GgufPart {
            name: tensor.name.clone(),
            stored: tensor.name.clone(),
            rows: None,
            order: RowOrder::Same,
        })
        .collect();
    let config = serde_json::Value::Null;
    let checkpoint = Checkpoint::of_gguf(&file, config.clone(), &parts).expect("readable types");
    for tensor in readable.clone() {
        let view = checkpoint.require(&tensor.name).expect("a tensor that is listed");
        assert_eq!(view.info.shape, tensor.shape);
        let values = view.to_f32().expect("floats");
        assert_eq!(values.len(), tensor.element_count());
        let middle = values.len() / 3;
        let mut piece = vec![0.0; values.len() - middle];
        view.read_f32_range(middle, &mut piece).expect("a range within it");
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&piece), bits(&values[middle..]));
        // Rows in another order: the same values, or refused.
        let turned = GgufPart {
            order: RowOrder::InterleavedHeads { head_rows: 2 },
            ..parts.iter().find(|part| part.name == tensor.name).expect("one of the parts").clone()
        };
        if let Ok(turned) = Checkpoint::of_gguf(&file, config.clone(), &[turned]) {
            let turned = turned.require(&tensor.name).expect("a tensor").to_f32().expect("floats");
            let (mut turned, mut values) = (bits(&turned), bits(&values));
            turned.sort_unstable();
            values.sort_unstable();
            assert_eq!(turned, values);
        }
    }
    write_again(&file);
});

/// The metadata of a file with one tensor, written and read.
fn write_again(file: &GgufFile) {
    let mut metadata = file.metadata().entries().to_vec();
    // The writer has an alignment of its own.
    metadata.retain(|(key, _)| key != "general.alignment");
    let path = SCRATCH.path().join("again.gguf");
    let tensors = file.tensors().iter().filter_map(|tensor| {
        Some(PlannedTensor {
            name: tensor.name.clone(),
            shape: tensor.shape.clone(),
            kind: tensor.kind.readable()?,
        })
    });
    let empty = tensors.filter(|tensor| tensor.byte_len().is_ok_and(|bytes| bytes == 0));
    let Ok(writer) = GgufWriter::create(&path, true, &metadata, empty.collect()) else {
        // Names that are too long, tensors without dimensions.
        return;
    };
    writer.finish().expect("no data is missing");
    let again = GgufFile::open(&path).expect("what was written");
    // As text: a NaN is not itself.
    let shown = format!("{:?}", again.metadata().entries());
    assert_eq!(shown, format!("{metadata:?}"));
}
