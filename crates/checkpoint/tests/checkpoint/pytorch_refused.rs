//! Pickles that do more than a state dict does, or less than they say.

use crate::checkpoint_builder::CheckpointDirectory;
use crate::torch_archive::{Program, archive, refusal, stream};
use fewbit_checkpoint::{Checkpoint, CheckpointErrorKind};
use insta::assert_snapshot;
use serde_json::json;

/// The refusal of a pickle in both forms of files, which is the same.
fn refused_pickle(program: &[u8]) -> String {
    let kind = CheckpointErrorKind::UnsupportedPickle;
    let in_archive = refusal(&archive(&[("data.pkl", program)]), kind);
    let in_stream = refusal(&stream(program, &[]), kind);
    let text = in_archive.strip_prefix("data.pkl: ").unwrap();
    assert_eq!(text, in_stream.strip_prefix("state dict: ").unwrap());
    text.to_owned()
}

fn broken_pickle(program: &[u8]) -> String {
    refusal(
        &archive(&[("data.pkl", program)]),
        CheckpointErrorKind::Malformed,
    )
}

#[test]
fn functions_that_are_not_of_state_dicts_are_refused_by_name() {
    let system = Program::new()
        .global("os", "system")
        .op(b"(")
        .string("touch /tmp/owned")
        .op(b"tR");
    assert_snapshot!(
        refused_pickle(&system.clone().end()),
        @"byte 2 of the pickle: the pickle refers to `os.system`: expected only what a state dict of tensors needs"
    );
    let directory = CheckpointDirectory::new(&json!({}), &[]);
    directory.write("pytorch_model.bin", archive(&[("data.pkl", &system.end())]));
    let error = Checkpoint::open(directory.path()).unwrap_err().to_string();
    assert!(
        error.ends_with(
            "and save its tensors with safetensors.torch.save_file as model.safetensors"
        ),
        "{error}"
    );

    let names = [
        ("builtins", "eval"),
        ("__builtin__", "eval"),
        ("builtins", "getattr"),
        ("posix", "system"),
        ("torch", "load"),
        ("torch", "ComplexFloatStorage"),
        ("torch.storage", "_load_from_bytes"),
        ("torch._utils", "_rebuild_sparse_tensor"),
        ("collections", "OrderedDict.__init__"),
        ("numpy.core.multiarray", "_reconstruct"),
    ];
    for (module, name) in names {
        let expected = format!("the pickle refers to `{module}.{name}`");
        // Named only, never called; by strings; by strings of the memo; by the opcode that names and calls at once.
        for program in [
            Program::new().global(module, name),
            Program::new().string(module).string(name).op(b"\x93"),
            Program::new()
                .string(name)
                .op(b"q\x07")
                .string(module)
                .op(b"\x94h\x07\x93"),
            Program::new().op(format!("(i{module}\n{name}\n").as_bytes()),
        ] {
            let text = refused_pickle(&program.end());
            assert!(text.contains(&expected), "{text}");
        }
    }
}

/// What is allowed goes on being allowed however it is named, and calls nothing but what it is for.
#[test]
fn allowed_functions_take_only_their_arguments() {
    for (program, expected) in [
        (
            Program::new()
                .global("collections", "OrderedDict")
                .op(b"K\x01\x85R"),
            "found one of OrderedDict with 1 arguments",
        ),
        (
            Program::new().global("torch", "FloatStorage").op(b")R"),
            "found one of Storage(F32) with 0 arguments",
        ),
        (
            Program::new().global("torch", "Size").op(b"K\x01\x85R"),
            "found one of Size with 1 arguments",
        ),
        // BUILD would set attributes of the function.
        (
            Program::new().global("torch", "Size").op(b"}b"),
            "expected attributes of a dict",
        ),
        // The metadata of a conjugated tensor.
        (
            Program::new()
                .op(b"}")
                .string("w")
                .global("torch._utils", "_rebuild_tensor_v2")
                .op(b"(NK\0))\x89N}")
                .string("conj")
                .op(b"\x88stRs"),
            "found one that is to be negated or conjugated",
        ),
        (
            Program::new().op(b"(").string("module").op(b"K\x01tQ"),
            "found a reference to something else",
        ),
        (
            Program::new().op(b"K\x01Q"),
            "found a reference to something else",
        ),
        (
            Program::new().global("torch", "Size").op(b")\x81"),
            "found 0x81",
        ),
        (Program::new().op(b"P1\n"), "found 0x50 (`P`)"),
        (
            Program::new().op(b"K\x01"),
            "expected a state dict, from names to tensors, found an integer",
        ),
        (
            Program::new().op(b"](K\x01K\x02e"),
            "expected a state dict, from names to tensors, found a list",
        ),
    ] {
        let file = archive(&[("data.pkl", &program.end())]);
        let text = refusal(&file, CheckpointErrorKind::UnsupportedPickle);
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn broken_programs() {
    for (program, expected) in [
        (
            b"\x80\x02".to_vec(),
            "byte 2 of the pickle: truncated: expected 1 more bytes, found 0",
        ),
        (
            Program::new().op(b"X\xff\xff\xff\xff").end(),
            "truncated: expected 4294967295 more bytes, found 1",
        ),
        (
            Program::new().op(b"\x8a\xff").end(),
            "truncated: expected 255 more bytes, found 1",
        ),
        (
            Program::new().op(b"\x8a\x09123456789").end(),
            "expected an integer of at most 8 bytes, found 9",
        ),
        (
            Program::new().op(b"\x95\0\0").end(),
            "truncated: expected 8 more bytes, found 3",
        ),
        (
            b"\x80\x02ctorch\nSize".to_vec(),
            "truncated: expected 5 more bytes, found 4",
        ),
        (
            b"\x80\x02U\x01\xff.".to_vec(),
            "expected text in UTF-8, found other bytes",
        ),
        (
            Program::new().end(),
            "expected a value on the stack, found none",
        ),
        (Program::new().op(b"K\x01(0").end(), "0x30"),
        (
            Program::new().op(b"K\x01(").end(),
            "expected a value on the stack, found none",
        ),
        (
            Program::new().op(b"t").end(),
            "expected a mark on the stack, found none",
        ),
        (
            Program::new().op(b"h\x05").end(),
            "expected a value under the number 5 of the memo, found none",
        ),
        (
            Program::new().op(b"j\xff\xff\xff\xff").end(),
            "under the number 4294967295 of the memo",
        ),
        (
            Program::new().op(b"}(K\x01u").end(),
            "expected keys and values in pairs",
        ),
        (
            Program::new().op(b"]K\x01K\x02s").end(),
            "expected a dict to set items of",
        ),
        (
            Program::new().op(b"}K\x01a").end(),
            "expected a list to append to",
        ),
        (
            Program::new().op(b"K\x01K\x02R").end(),
            "expected a function and a tuple of its arguments",
        ),
        (
            Program::new().op(b"}K\x01K\x02s").end(),
            "expected the names of tensors as keys of the state dict, found an integer",
        ),
        (
            vec![b'N'; 3_000_000],
            "expected a pickle of at most 2000000 values, found more",
        ),
    ] {
        let expected_kind = if expected == "0x30" {
            CheckpointErrorKind::UnsupportedPickle
        } else {
            CheckpointErrorKind::Malformed
        };
        let text = refusal(&archive(&[("data.pkl", &program)]), expected_kind);
        assert!(text.contains(expected), "{text}\nexpected {expected}");
    }
}

/// Values within values, and a value within itself: nothing follows them by calling itself.
#[test]
fn deep_and_circular_values() {
    let deep = Program::new().op(b")").op(&b"\x85".repeat(1_000_000));
    let text = refusal(
        &archive(&[("data.pkl", &deep.end())]),
        CheckpointErrorKind::UnsupportedPickle,
    );
    assert!(text.contains("found a tuple"), "{text}");
    let marks = Program::new().op(&b"(".repeat(1_000_000));
    let text = broken_pickle(&marks.end());
    assert!(text.contains("expected a value on the stack"), "{text}");
    let circular = Program::new().op(b"}q\x01").string("w").op(b"h\x01s");
    let text = refusal(
        &archive(&[("data.pkl", &circular.end())]),
        CheckpointErrorKind::UnsupportedPickle,
    );
    assert!(text.contains("`w` is a dict"), "{text}");
    // Each tuple has the one before twice: 2 to the power of 200000 values, if they were copied.
    let doubled = Program::new()
        .op(b")")
        .op(&b"q\x01h\x01\x86".repeat(200_000));
    let text = refusal(
        &archive(&[("data.pkl", &doubled.end())]),
        CheckpointErrorKind::UnsupportedPickle,
    );
    assert!(text.contains("found a tuple"), "{text}");
    // The sizes of a tensor, which are copied: the same tuple for many tensors.
    let tensor = b"h\x02(h\x03K\0h\x01h\x01\x89NtR";
    let sizes = Program::new()
        .ints(&[1; 1000])
        .op(b"q\x01")
        .global("torch._utils", "_rebuild_tensor_v2")
        .op(b"q\x02(")
        .string("storage")
        .global("torch", "FloatStorage")
        .string("0")
        .string("cpu")
        .op(b"K\x04tQq\x03(")
        .op(&tensor.repeat(1100));
    let text = broken_pickle(&sizes.end());
    assert!(
        text.contains("expected a pickle of at most 2000000 values, found more"),
        "{text}"
    );
    // A huge number of the memo is no huge memo.
    let memo = Program::new().op(b"}r\xff\xff\xff\xff0");
    refusal(
        &archive(&[("data.pkl", &memo.end())]),
        CheckpointErrorKind::UnsupportedPickle,
    );
}

/// What `torch.save(..., pickle_protocol=4)` writes: frames, short strings, names by strings, a memo without numbers.
#[test]
fn newer_pickles() {
    let program = Program(b"\x80\x04\x95\0\0\0\0\0\0\0\0".to_vec())
        .op(b"}\x94\x8c\x01w\x94")
        .op(b"\x8c\x0ctorch._utils\x8c\x12_rebuild_tensor_v2\x93\x94")
        .op(b"((\x8c\x07storage\x94\x8c\x05torch\x8c\x0cFloatStorage\x93\x8c\x010\x8c\x03cpuK\x04tQ")
        .op(b"K\x01K\x03\x85K\x01\x85\x89NtRs")
        .end();
    let data = [1.0f32, 2.0, 3.0, 4.0].map(f32::to_le_bytes).concat();
    let directory = CheckpointDirectory::new(&json!({}), &[]);
    directory.write(
        "pytorch_model.bin",
        archive(&[("data.pkl", &program), ("data/0", &data)]),
    );
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    assert_eq!(
        checkpoint.require("w").unwrap().to_f32().unwrap(),
        [2.0, 3.0, 4.0]
    );
}
