//! Files that are damaged in every place, and numbers that nothing is behind.
use super::header;
use crate::gguf::{GgufFile, GgufWriter, MetadataValue, PlannedTensor, TensorType};
use fewbit_numerics::ggml_blocks::BlockType;

fn file() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.gguf");
    let metadata = [
        ("a".to_owned(), MetadataValue::U32(7)),
        (
            "s".to_owned(),
            MetadataValue::Strings(vec!["é".to_owned(), String::new()]),
        ),
        ("n".to_owned(), MetadataValue::i32s(&[1, -2, 3])),
        ("t".to_owned(), MetadataValue::String("text".to_owned())),
        ("d".to_owned(), MetadataValue::F64(0.25)),
        ("y".to_owned(), MetadataValue::I8(-1)),
    ];
    let planned = |name: &str, shape: &[usize], kind| PlannedTensor {
        name: name.to_owned(),
        shape: shape.to_vec(),
        kind,
    };
    let tensors = vec![
        planned("q", &[2, 32], TensorType::Blocks(BlockType::Q8_0)),
        planned("f", &[3], TensorType::F32),
    ];
    let mut writer = GgufWriter::create(&path, false, &metadata, tensors).unwrap();
    writer.append(&[1; 68]).unwrap();
    writer.append(&[2; 12]).unwrap();
    writer.finish().unwrap();
    std::fs::read(&path).unwrap()
}

fn message(file: &[u8]) -> String {
    header(file).unwrap_err().to_string()
}

/// `file` with the bytes of `number` at `at`.
fn with(at: usize, number: impl AsRef<[u8]>) -> Vec<u8> {
    let mut file = file();
    let number = number.as_ref();
    file[at..at + number.len()].copy_from_slice(number);
    file
}

fn place_of(text: &[u8]) -> usize {
    let file = file();
    file.windows(text.len())
        .position(|part| part == text)
        .unwrap()
}

/// Where the description of a tensor with a name of one letter says its number of dimensions.
fn dimensions_of(name: u8) -> usize {
    place_of(&[&1u64.to_le_bytes()[..], &[name], &[0; 0]].concat()) + 9
}

#[test]
fn what_the_writer_writes_is_read() {
    let file = file();
    let read = header(&file).unwrap();
    assert_eq!((read.version, read.alignment), (3, 32));
    assert_eq!(read.metadata.len(), 6);
    assert_eq!(read.metadata[4].1, MetadataValue::F64(0.25));
    let [first, second] = &read.tensors[..] else {
        panic!("two tensors")
    };
    assert_eq!(
        (first.kind.name(), &first.shape[..]),
        ("q8_0", &[2, 32][..])
    );
    assert_eq!(file[first.range.clone()], [1; 68]);
    assert_eq!((first.byte_len(), first.element_count()), (68, 64));
    assert_eq!(file[second.range.clone()], [2; 12]);
}

#[test]
fn a_file_that_ends_anywhere_is_refused() {
    let file = file();
    let end = header(&file).unwrap().tensors[1].range.end;
    for length in 0..end {
        assert!(header(&file[..length]).is_err(), "{length} bytes");
    }
    // The padding behind the last tensor is nothing that is missed.
    assert!(header(&file[..end]).is_ok());
}

#[test]
fn counts_are_checked_against_the_bytes_that_there_are() {
    for absurd in [u64::MAX, 1 << 62, 1 << 40] {
        let found = message(&with(8, absurd.to_le_bytes()));
        assert!(
            found.starts_with("number of tensors: expected at most"),
            "{found}"
        );
        let found = message(&with(16, absurd.to_le_bytes()));
        assert!(
            found.starts_with("number of entries of metadata"),
            "{found}"
        );
        // The length of the first key.
        let found = message(&with(24, absurd.to_le_bytes()));
        assert!(found.contains("key of entry 0"), "{found}");
        // Strings and numbers of arrays, after key, type and type of elements.
        for (key, at) in [("s", place_of(b"s\x09")), ("n", place_of(b"n\x09"))] {
            let found = message(&with(at + 9, absurd.to_le_bytes()));
            assert!(found.starts_with(&format!("metadata `{key}`")), "{found}");
        }
    }
}

#[test]
fn every_other_number_is_checked() {
    assert!(message(b"GGML").contains("expected `GGUF`"));
    let found = message(&with(4, 3u32.to_be_bytes()));
    assert!(found.contains("big-endian"), "{found}");
    assert!(message(&with(4, 1u32.to_le_bytes())).contains("expected 2 or 3, found 1"));
    let found = message(&with(place_of(b"t\x08") + 1, 13u32.to_le_bytes()));
    assert!(found.contains("metadata `t`: type"), "{found}");
    let found = message(&with(place_of(b"n\x09") + 5, 9u32.to_le_bytes()));
    assert!(
        found.contains("expected numbers or strings, found 9"),
        "{found}"
    );
    assert!(message(&with(place_of("é".as_bytes()), [0xff])).contains("UTF-8"));
    assert!(message(&with(place_of(b"d\x0c"), b"a")).contains("expected once, found twice"));
    let q = dimensions_of(b'q');
    assert!(message(&with(q, 5u32.to_le_bytes())).contains("at most 4 dimensions, found 5"));
    let found = message(&with(q + 4, 33u64.to_le_bytes()));
    assert!(
        found.contains("multiple of 32 elements, found 33"),
        "{found}"
    );
    let found = message(&with(q + 4, (1u64 << 62).to_le_bytes()));
    assert!(
        found.contains("overflows") || found.contains("offset"),
        "{found}"
    );
    let found = message(&with(q + 20, 5u32.to_le_bytes()));
    assert!(found.contains("found number 5"), "{found}");
    let found = message(&with(q + 24, 32u64.to_le_bytes()));
    assert!(found.contains("offset in the data: expected 0"), "{found}");
    let found = message(&with(dimensions_of(b'f') - 1, b"q"));
    assert!(found.contains("lists this name twice"), "{found}");
}

#[test]
fn an_alignment_is_a_power_of_two() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.gguf");
    for (value, is_read) in [(64, true), (1, true), (48, false), (0, false)] {
        let metadata = [("general.alignment".to_owned(), MetadataValue::U32(value))];
        let writer = GgufWriter::create(&path, true, &metadata, Vec::new()).unwrap();
        writer.finish().unwrap();
        assert_eq!(GgufFile::open(&path).is_ok(), is_read, "{value}");
    }
}
