//! Tensors that do not fit their storages, and files that are not laid out as they say.

use crate::checkpoint_builder::CheckpointDirectory;
use crate::torch_archive::{Program, archive, archive_64, one_tensor, refusal, stream};
use fewbit_checkpoint::{Checkpoint, CheckpointErrorKind};
use insta::assert_snapshot;
use serde_json::json;

/// One tensor of a storage of four floats, in an archive.
fn tensor_file(elements: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let program = one_tensor(("FloatStorage", "0", elements), offset, shape, strides);
    let data = [1.0f32, 2.0, 3.0, 4.0].map(f32::to_le_bytes).concat();
    archive(&[("data.pkl", &program), ("data/0", &data)])
}

#[test]
fn sizes_that_do_not_fit_their_storage() {
    let huge = i64::MAX;
    for (elements, offset, shape, strides, expected) in [
        (
            5,
            0,
            vec![5],
            vec![1],
            "tensor `w`: storage `0`: expected 5 elements of 4 bytes, found 16 bytes",
        ),
        (-4, 0, vec![4], vec![1], "storage `0`: expected -4 elements"),
        (
            huge,
            0,
            vec![4],
            vec![1],
            "expected 9223372036854775807 elements",
        ),
        (
            4,
            0,
            vec![5],
            vec![1],
            "tensor `w`: storage `0`: expected at least 20 bytes for sizes [5] with strides [1] from element 0 on, found 16",
        ),
        (
            4,
            2,
            vec![3],
            vec![1],
            "expected at least 20 bytes for sizes [3] with strides [1] from element 2 on, found 16",
        ),
        (4, 0, vec![2], vec![4], "expected at least 20 bytes"),
        (
            4,
            -1,
            vec![4],
            vec![1],
            "offset in its storage: expected a number of elements, found -1",
        ),
        (4, huge, vec![4], vec![1], "offset in its storage"),
        (4, 0, vec![-1], vec![1], "none negative"),
        (4, 3, vec![4], vec![-1], "none negative"),
        (4, 0, vec![huge, huge], vec![1, 1], "does not overflow"),
        (4, 0, vec![2, 2], vec![huge, huge], "does not overflow"),
        (
            4,
            0,
            vec![4],
            vec![1, 1],
            "expected as many strides as sizes, at most 64, found 1 sizes and 2 strides",
        ),
        (
            4,
            0,
            vec![1; 65],
            vec![1; 65],
            "at most 64, found 65 sizes and 65 strides",
        ),
        // The elements of one float, expanded to more than the file has.
        (
            4,
            0,
            vec![1 << 40],
            vec![0],
            "expected tensors that share no elements",
        ),
    ] {
        let file = tensor_file(elements, offset, &shape, &strides);
        let directory = CheckpointDirectory::new(&json!({}), &[]);
        directory.write("pytorch_model.bin", file);
        let error = Checkpoint::open(directory.path()).unwrap_err();
        assert_eq!(error.tensor(), Some("w"), "{error}");
        let text = error.to_string();
        assert!(text.contains(expected), "{text}\nexpected {expected}");
    }
}

/// Strides of dimensions of one element, and all of a tensor without any, say nothing: PyTorch takes every number.
#[test]
fn strides_that_lead_nowhere() {
    for (offset, shape, strides, expected) in [
        (0, vec![1, 4], vec![i64::MAX, 1], vec![1.0, 2.0, 3.0, 4.0]),
        (
            0,
            vec![2, 1, 2],
            vec![1, i64::MAX, 2],
            vec![1.0, 3.0, 2.0, 4.0],
        ),
        (9, vec![0, 3], vec![i64::MAX, 7], vec![]),
        (3, vec![], vec![], vec![4.0]),
        (0, vec![3], vec![0], vec![1.0, 1.0, 1.0]),
    ] {
        let directory = CheckpointDirectory::new(&json!({}), &[]);
        directory.write(
            "pytorch_model.bin",
            tensor_file(4, offset, &shape, &strides),
        );
        let checkpoint = Checkpoint::open(directory.path()).unwrap();
        let tensor = checkpoint.require("w").unwrap();
        assert_eq!(tensor.to_f32().unwrap(), expected, "{shape:?} {strides:?}");
    }
}

#[test]
fn names_that_stand_twice() {
    let tensor = |program: Program| {
        program
            .string("w")
            .tensor(("FloatStorage", "0", 1), 0, &[1], &[1])
            .op(b"s")
    };
    let program = tensor(tensor(Program::new().op(b"}"))).end();
    let file = archive(&[("data.pkl", &program), ("data/0", &[0; 4])]);
    assert_snapshot!(
        refusal(&file, CheckpointErrorKind::Malformed),
        @"tensor `w`: the state dict has this name twice"
    );
    let file = archive(&[("data.pkl", &program), ("data.pkl", &program)]);
    assert_snapshot!(
        refusal(&file, CheckpointErrorKind::Malformed),
        @"the zip archive lists the entry `archive/data.pkl` twice"
    );
}

#[test]
fn archives_that_are_not_as_torch_writes_them() {
    let program = one_tensor(("FloatStorage", "0", 1), 0, &[1], &[1]);
    let entries: [(&str, &[u8]); 2] = [("data.pkl", &program), ("data/0", &[0; 4])];
    let whole = archive(&entries);
    let kind = CheckpointErrorKind::Malformed;
    // Compressed, as a zip bomb would be: what is small here could be huge.
    let mut compressed = whole.clone();
    let second = compressed
        .windows(4)
        .rposition(|window| window == b"PK\x01\x02")
        .unwrap();
    compressed[second + 10] = 8;
    assert_snapshot!(
        refusal(&compressed, kind),
        @"zip entry `archive/data/0`: expected data that are stored as they are, as torch.save writes them, found compression method 8"
    );
    let mut larger = whole;
    larger[second + 24..second + 28].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_snapshot!(
        refusal(&larger, kind),
        @"zip entry `archive/data/0`: expected as many bytes as are stored, 4, found 4294967295"
    );
    // Small in the file and huge by both of its sizes.
    larger[second + 20..second + 24].copy_from_slice(&(u32::MAX - 1).to_le_bytes());
    larger[second + 24..second + 28].copy_from_slice(&(u32::MAX - 1).to_le_bytes());
    let text = refusal(&larger, kind);
    assert!(
        text.starts_with(
            "zip entry `archive/data/0`: expected 4294967294 bytes of data within the file of "
        ),
        "{text}"
    );
    assert_snapshot!(
        refusal(&archive(&entries[..1]), kind),
        @"tensor `w`: storage `0`: expected the entry archive/data/0, found none"
    );
    assert_snapshot!(
        refusal(&archive(&entries[1..]), kind),
        @"zip archive: expected the entry archive/data.pkl, found none"
    );
    let of_program = [("constants.pkl", &b"."[..]), entries[0], entries[1]];
    assert_snapshot!(
        refusal(&archive(&of_program), CheckpointErrorKind::UnsupportedPickle),
        @"expected a state dict, found a TorchScript program"
    );
    let big = [("byteorder", &b"big"[..]), entries[0], entries[1]];
    assert_snapshot!(
        refusal(&archive(&big), CheckpointErrorKind::UnsupportedPickle),
        @"byteorder: expected little, found big"
    );
    assert_snapshot!(
        refusal(b"\x80\x02}.", kind),
        @"not a PyTorch checkpoint: expected what torch.save writes, found other bytes at the start of the 4 that it has"
    );
    assert_snapshot!(
        refusal(b"version https://git-lfs.github.com/spec/v1", kind),
        @"a Git LFS pointer instead of a PyTorch checkpoint"
    );
}

/// Where the numbers of 32 bits do not suffice.
#[test]
fn archives_with_sizes_of_64_bits() {
    let program = one_tensor(("FloatStorage", "0", 1), 0, &[1], &[1]);
    let data = 2.5f32.to_le_bytes();
    let file = archive_64(&[("data.pkl", &program), ("data/0", &data)]);
    let directory = CheckpointDirectory::new(&json!({}), &[]);
    directory.write("pytorch_model.bin", &file);
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    assert_eq!(checkpoint.require("w").unwrap().to_f32().unwrap(), [2.5]);

    // The place of the directory, in the record of 64 bits that precedes the last two.
    let place = file.len() - 22 - 20 - 8;
    for wrong in [u64::MAX, file.len() as u64, 1] {
        let mut damaged = file.clone();
        damaged[place..place + 8].copy_from_slice(&wrong.to_le_bytes());
        let text = refusal(&damaged, CheckpointErrorKind::Malformed);
        assert!(text.starts_with("zip archive: expected "), "{text}");
    }
}

#[test]
fn streams_that_are_not_as_torch_writes_them() {
    let program = one_tensor(("FloatStorage", "7", 1), 0, &[1], &[1]);
    let kind = CheckpointErrorKind::Malformed;
    let data = 2.5f32.to_le_bytes();
    let directory = CheckpointDirectory::new(&json!({}), &[]);
    directory.write("pytorch_model.bin", stream(&program, &[("7", 1, &data)]));
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    assert_eq!(checkpoint.require("w").unwrap().to_f32().unwrap(), [2.5]);

    for (file, expected) in [
        (
            stream(&program, &[]),
            "tensor `w`: storage `7`: expected its data after the state dict, found none",
        ),
        (
            stream(&program, &[("8", 1, &data)]),
            "storage `8`: expected one that the state dict has",
        ),
        (
            stream(&program, &[("7", 2, &data)]),
            "storage `7`: truncated: expected 2 elements of 4 bytes, found 4 bytes",
        ),
        (
            stream(&program, &[("7", -1, &data)]),
            "storage `7`: truncated: expected -1 elements",
        ),
        (
            stream(&program, &[("7", i64::MAX, &data)]),
            "storage `7`: truncated: expected 9223372036854775807 elements",
        ),
        (
            stream(&program, &[("7", 0, &[])]),
            "tensor `w`: storage `7`: expected 1 elements of 4 bytes, found 0 bytes",
        ),
        (
            stream(&program, &[("7", 1, &data), ("7", 1, &data)]),
            "the file lists the storage `7` twice",
        ),
        (
            [stream(&program, &[("7", 1, &data)]), vec![0]].concat(),
            "bytes after the last storage",
        ),
    ] {
        let text = refusal(&file, kind);
        assert!(text.contains(expected), "{text}\nexpected {expected}");
    }
    let mut big_endian = stream(&program, &[("7", 1, &data)]);
    let flag = big_endian
        .windows(13)
        .position(|window| window == b"little_endian")
        .unwrap()
        + 13;
    big_endian[flag] = 0x89;
    let text = refusal(&big_endian, CheckpointErrorKind::UnsupportedPickle);
    assert!(text.contains("expected little-endian numbers"), "{text}");
}

/// Only the older form has parts of storages; an archive whose part is passed over would give the elements of another one.
#[test]
fn parts_of_storages_in_archives() {
    let program = Program::new()
        .op(b"}")
        .string("w")
        .global("torch._utils", "_rebuild_tensor_v2")
        .op(b"((")
        .string("storage")
        .global("torch", "FloatStorage")
        .string("0")
        .string("cpu")
        .op(b"K\x04(")
        .string("1")
        .op(b"K\x02K\x02ttQ")
        .op(b"K\0K\x02\x85K\x01\x85\x89NtRs")
        .end();
    let kind = CheckpointErrorKind::Malformed;
    assert_snapshot!(
        refusal(&archive(&[("data.pkl", &program), ("data/0", &[0; 16])]), kind),
        @"tensor `w`: storage `0`: expected a whole one, as zip archives have them, found a part"
    );
    // Where there are parts, they lie within their storage.
    let outside = stream(&program, &[("0", 4, &[0; 16])]);
    let directory = CheckpointDirectory::new(&json!({}), &[]);
    directory.write("pytorch_model.bin", &outside);
    Checkpoint::open(directory.path()).unwrap();
    let mut outside = program;
    let part = outside
        .windows(4)
        .position(|window| window == b"K\x02K\x02")
        .unwrap();
    outside[part + 1] = 3;
    assert_snapshot!(
        refusal(&stream(&outside, &[("0", 4, &[0; 16])]), kind),
        @"tensor `w`: storage `0`: expected a part within its 16 bytes, found 2 elements from 3 on"
    );
}
