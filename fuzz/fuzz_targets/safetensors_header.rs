//! A safetensors file: accepted exactly where the `safetensors` crate accepts it, and then with the same tensors.
#![no_main]

use fewbit_checkpoint::{Checkpoint, CheckpointErrorKind};
use fewbit_fuzz::Scratch;
use fewbit_numerics::dtype::DType;
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use safetensors::SafeTensors;
use serde_json::Value;
use std::sync::LazyLock;

static SCRATCH: LazyLock<Scratch> = LazyLock::new(|| {
    let scratch = Scratch::new();
    scratch.write("config.json", b"{}");
    scratch
});

const LENGTH_BYTES: usize = 8;

fuzz_target!(|file: &[u8]| {
    let path = SCRATCH.write("model.safetensors", file);
    let ours = Checkpoint::open(SCRATCH.path());
    let theirs = SafeTensors::deserialize(file);
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => {
            assert_eq!(ours.tensors().count(), theirs.len());
            for tensor in ours.tensors() {
                let view = ours.get(&tensor.name).expect("a tensor that is listed");
                let other = theirs.tensor(&tensor.name).expect("the same names");
                assert_eq!(tensor.shape, other.shape());
                assert_eq!(tensor.dtype.name(), other.dtype().to_string());
                let bytes = view.bytes().expect("no adapter changes it");
                assert_eq!(bytes, other.data());
                assert_eq!(tensor.byte_len, bytes.len());
                // Reading either works or says why not.
                let floats = view.to_f32();
                assert_eq!(
                    floats.is_ok(),
                    matches!(
                        tensor.dtype,
                        DType::F64 | DType::F32 | DType::F16 | DType::BF16
                    )
                );
                if let Ok(floats) = floats {
                    assert_eq!(floats.len(), view.element_count());
                }
            }
        }
        (Err(error), theirs) => {
            assert_eq!(error.file(), Some(path.as_path()), "{error}");
            // Refused on purpose: names that stand twice, elements of less than a byte or more than eight, and what serde
            // takes beside the format: a tensor as a list of values, a type as an object.
            let message = error.to_string();
            let on_purpose = error.kind() == CheckpointErrorKind::WrongDType
                || message.contains("lists this name twice")
                || message.contains("invalid type: sequence, expected a JSON object")
                || message.contains("header field `dtype`: expected a string, found none");
            assert!(theirs.is_err() || on_purpose, "refused: {message}");
        }
        (Ok(_), Err(error)) => panic!("accepted, but the safetensors crate says: {error:?}"),
    }
});

// Changes the header as often as the file as a whole, and makes length and data fit it again: otherwise nearly all inputs
// would end at the first check.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let header_end = data[..size]
        .first_chunk::<LENGTH_BYTES>()
        .and_then(|length| usize::try_from(u64::from_le_bytes(*length)).ok())
        .and_then(|length| length.checked_add(LENGTH_BYTES))
        .filter(|&end| end <= size);
    let Some(header_end) = header_end.filter(|_| seed.is_multiple_of(2)) else {
        return fuzzer_mutate(data, size, max_size);
    };
    let mut header = data[LENGTH_BYTES..header_end].to_vec();
    let length = header.len();
    header.resize(max_size.saturating_sub(LENGTH_BYTES).max(length), 0);
    let room = header.len();
    let length = fuzzer_mutate(&mut header, length, room);
    header.truncate(length);
    let wanted = data_bytes(&header).min(max_size.saturating_sub(LENGTH_BYTES + length));
    let mut tensors = data[header_end..size].to_vec();
    tensors.resize(wanted, 7);
    let file = [&(length as u64).to_le_bytes()[..], &header, &tensors].concat();
    let size = file.len().min(max_size);
    data[..size].copy_from_slice(&file[..size]);
    size
});

/// Where the data of a header ends, as far as it can be told.
fn data_bytes(header: &[u8]) -> usize {
    let Ok(Value::Object(fields)) = serde_json::from_slice(header) else {
        return 0;
    };
    let ends = fields
        .values()
        .filter_map(|entry| entry.get("data_offsets")?.get(1)?.as_u64());
    ends.max()
        .and_then(|end| usize::try_from(end).ok())
        .unwrap_or(0)
}
