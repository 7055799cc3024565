//! Headers that are refused, each with its message, and arbitrary bytes, which never panic.
use super::*;
use proptest::prelude::*;
use safetensors::SafeTensors;

fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(data);
    file
}

/// The refusal of a file, which the `safetensors` crate must refuse too.
fn refusal(header: &str, data: &[u8]) -> String {
    let file = file(header, data);
    assert!(SafeTensors::deserialize(&file).is_err(), "{header}");
    parse_header(&file).unwrap_err().to_string()
}

#[test]
fn every_refusal() {
    let entry = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
    };
    let one = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"a":{}}}"#, entry(dtype, shape, offsets))
    };
    let two = |first: &str, second: &str| {
        format!(
            r#"{{"a":{},"b":{}}}"#,
            entry("U8", "[4]", first),
            entry("U8", "[4]", second)
        )
    };
    for (header, data, expected) in [
        (
            two("[0,4]", "[3,7]"),
            7,
            "tensor `b`: overlapping data offsets 3..7: expected a start at 4, where tensor `a` (0..4) ends, found 3",
        ),
        (
            two("[0,4]", "[6,10]"),
            10,
            "tensor `b`: gapped data offsets 6..10: expected a start at 4, where tensor `a` (0..4) ends, found 6",
        ),
        (
            two("[4,8]", "[8,12]"),
            12,
            "tensor `a`: gapped data offsets 4..8: expected a start at 0, where the data starts, found 4",
        ),
        (
            two("[0,4]", "[0,4]"),
            4,
            "tensor `b`: overlapping data offsets 0..4: expected a start at 4, where tensor `a` (0..4) ends, found 0",
        ),
        (
            one("F32", "[2,3]", "[0,20]"),
            20,
            "tensor `a`: data of shape [2, 3] and dtype F32: expected 24 bytes, found 20 (offsets 0..20)",
        ),
        (
            one("F32", "[1]", "[4,0]"),
            4,
            "tensor `a`: header field `data_offsets`: expected start <= end, found [4, 0]",
        ),
        (
            one("F32", "[1]", "[0]"),
            4,
            "tensor `a`: header field `data_offsets`: expected 2 numbers, found 1",
        ),
        (
            one("F32", "[-1]", "[0,4]"),
            4,
            "tensor `a`: header field `shape`: expected a list of unsigned integers, found something else",
        ),
        (
            one("F32", "[4294967296,4294967296]", "[0,4]"),
            4,
            "tensor `a`: shape [4294967296, 4294967296] of F32: the number of bytes overflows",
        ),
        (
            one("F33", "[1]", "[0,4]"),
            4,
            "tensor `a`: dtype: expected one of the types up to 64 bits that fewbit reads, found `F33`",
        ),
        (
            r#"{"a":{"shape":[1],"data_offsets":[0,4]}}"#.to_owned(),
            4,
            "tensor `a`: header field `dtype`: expected a string, found none",
        ),
        (
            r#"{"a":7}"#.to_owned(),
            4,
            "safetensors header is not valid: invalid type: integer `7`, expected a JSON object at line 1 column 6",
        ),
        (
            r#"{"a":null}"#.to_owned(),
            4,
            "tensor `a`: header field `dtype`: expected a string, found none",
        ),
        (
            r#"{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}"#.to_owned(),
            1,
            "tensor `a`: header field `dtype`: expected it once, found it twice",
        ),
        (
            r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"shape":[1]}}"#.to_owned(),
            1,
            "tensor `a`: header field `shape`: expected it once, found it twice",
        ),
        (
            r#"{"__metadata__":{"format":1}}"#.to_owned(),
            0,
            "header field `__metadata__`: expected an object of strings or null, found something else",
        ),
        (
            "[]".to_owned(),
            0,
            "safetensors header is not valid: invalid type: sequence, expected a JSON object at line 1 column 0",
        ),
        (
            "{}x".to_owned(),
            0,
            "safetensors header is not valid: trailing characters at line 1 column 3",
        ),
        (
            "{".to_owned(),
            0,
            "safetensors header is not valid: EOF while parsing an object at line 1 column 1",
        ),
        (
            one("U8", "[3]", "[0,3]"),
            5,
            "bytes after the last tensor: expected 64 bytes, found 66",
        ),
        (
            "{}".to_owned(),
            1,
            "bytes after the last tensor: expected 10 bytes, found 11",
        ),
        (
            one("U8", "[3]", "[0,3]"),
            2,
            "truncated safetensors file: expected 64 bytes, found 63\n  hint: the file is incomplete or damaged: download or write it again",
        ),
        (
            one("U8", "[18446744073709551615]", "[0,18446744073709551615]"),
            2,
            "truncated safetensors file: expected 18446744073709551615 bytes, found 101\n  \
             hint: the file is incomplete or damaged: download or write it again",
        ),
    ] {
        assert_eq!(refusal(&header, &vec![0; data]), expected, "{header}");
    }
}

#[test]
fn duplicate_name() {
    let header = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
    let error = parse_header(&file(header, &[0])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "tensor `a`: the header lists this name twice"
    );
}

#[test]
fn header_lengths() {
    let text = |file: &[u8]| parse_header(file).unwrap_err().to_string();
    assert_eq!(
        text(&[1, 2, 3]),
        "truncated safetensors file: expected at least 8 bytes, found 3\n  \
         hint: the file is incomplete or damaged: download or write it again"
    );
    assert_eq!(
        text(&[9, 0, 0, 0, 0, 0, 0, 0, b'{']),
        "truncated safetensors file: expected 17 bytes of length and header, found 9\n  \
         hint: the file is incomplete or damaged: download or write it again"
    );
    assert_eq!(
        text(&[b'G', b'G', b'U', b'F', 3, 0, 0, 0, 0]),
        "not a safetensors file: expected a header of at most 100000000 bytes, found a header length of 14064895815\n  \
         hint: PyTorch, GGUF and HTML files are sometimes saved under this name"
    );
    let longest = [&100_000_000u64.to_le_bytes()[..], b"{}"].concat();
    assert!(text(&longest).starts_with("truncated safetensors file: expected 100000008 bytes"));
    let longer = [&100_000_001u64.to_le_bytes()[..], b"{}"].concat();
    assert!(text(&longer).starts_with("not a safetensors file"));
    assert_eq!(
        text(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n"),
        "a Git LFS pointer instead of a safetensors file\n  hint: fetch the data with `git lfs pull`"
    );
}

#[test]
fn legal_oddities() {
    // Scalars, tensors of no elements between others, padding, no tensors at all.
    let header = r#"  {"s":{"dtype":"F16","shape":[],"data_offsets":[0,2]},"e":{"dtype":"F32","shape":[0,7],"data_offsets":[2,2]},
        "t":{"dtype":"U8","shape":[1],"data_offsets":[2,3]},"__metadata__":{"format":"pt"}}   "#;
    let entries = parse_header(&file(header, &[1, 2, 3])).unwrap();
    let start = 8 + header.len();
    let places: Vec<(&str, Range<usize>)> = entries
        .iter()
        .map(|entry| (entry.name.as_str(), entry.range.clone()))
        .collect();
    assert_eq!(
        places,
        [
            ("s", start..start + 2),
            ("e", start + 2..start + 2),
            ("t", start + 2..start + 3)
        ]
    );
    for header in ["{}", r#"{"__metadata__":null}"#] {
        let file = file(header, &[]);
        assert_eq!(parse_header(&file).unwrap(), []);
        assert!(SafeTensors::deserialize(&file).is_ok(), "{header}");
    }
}

/// Whether both readers agree on a file; they differ on purpose on duplicate names and on dtypes of less than a byte.
fn check_agreement(file: &[u8]) {
    let ours = parse_header(file);
    match (&ours, SafeTensors::read_metadata(file)) {
        (Ok(entries), Ok((_, metadata))) => {
            let names: Vec<&String> = entries.iter().map(|entry| &entry.name).collect();
            assert_eq!(names, metadata.offset_keys().iter().collect::<Vec<_>>());
        }
        (Ok(_), Err(error)) => panic!("accepted, but refused by safetensors: {error}"),
        (Err(error), Ok(_)) => {
            let text = error.to_string();
            assert!(
                text.contains("twice") || text.contains("dtype: expected"),
                "refused, but accepted by safetensors: {text}"
            );
        }
        (Err(_), Err(_)) => {}
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        check_agreement(&bytes);
    }

    #[test]
    fn arbitrary_headers_never_panic(header in r#"[{}\[\]":,a-c0-9 F8_\-]{0,60}"#, data in proptest::collection::vec(any::<u8>(), 0..8)) {
        check_agreement(&file(&header, &data));
    }

    /// A valid file with some bytes replaced, and cut or extended.
    #[test]
    fn damaged_files_never_panic(
        damage in proptest::collection::vec((0usize..220, proptest::sample::select(&b"0123456789\"{}[]:,FUIB-ab \xff\x00"[..])), 0..4),
        length in 200usize..260,
    ) {
        let header = r#"{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"I8","shape":[3],"data_offsets":[16,19]},"__metadata__":{"k":"v"}}"#;
        let mut file = file(header, &[7; 19]);
        let whole = file.len();
        for (at, byte) in damage {
            if let Some(place) = file.get_mut(at) {
                *place = byte;
            }
        }
        if length != 259 {
            file.resize(length.min(whole + 20), b' ');
        }
        check_agreement(&file);
    }

    /// Whatever the safetensors crate writes, we read.
    #[test]
    fn written_files_are_read(shapes in proptest::collection::vec((0usize..3, 0usize..5, 0usize..5), 0..6)) {
        use safetensors::tensor::{Dtype, TensorView, serialize};
        let zeros = [0u8; 256];
        let tensors: Vec<(String, TensorView<'_>)> = shapes
            .iter()
            .enumerate()
            .map(|(index, &(dtype, rows, columns))| {
                let (dtype, width) = [(Dtype::F32, 4), (Dtype::BF16, 2), (Dtype::I8, 1)][dtype];
                let view = TensorView::new(dtype, vec![rows, columns], &zeros[..rows * columns * width]).unwrap();
                (format!("t{index}"), view)
            })
            .collect();
        let count = tensors.len();
        let bytes = serialize(tensors, None).unwrap();
        prop_assert_eq!(parse_header(&bytes).unwrap().len(), count);
    }
}

/// The library reads null as no metadata.
#[test]
fn null_metadata_is_none() {
    let header = br#"{"__metadata__":null,"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header);
    file.push(7);
    assert_eq!(parse_header(&file).expect("valid").len(), 1);
    SafeTensors::deserialize(&file).expect("valid to the library");
}
