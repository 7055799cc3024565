//! Files as `torch.save` lays them out, of given parts, damaged or hostile ones included.

use crate::checkpoint_builder::CheckpointDirectory;
use fewbit_checkpoint::{Checkpoint, CheckpointErrorKind};
use serde_json::json;

/// A zip archive in the folder `archive` with these entries, stored as they are.
pub(crate) fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut directory = Vec::new();
    for (name, data) in entries {
        let name = format!("archive/{name}");
        let at = file.len() as u32;
        // Version, flags, method, time, date, checksum (which nobody checks), both sizes, lengths of name and extra field.
        let mut fields = vec![0u8; 26];
        for place in [14, 18] {
            fields[place..place + 4].copy_from_slice(&(data.len() as u32).to_le_bytes());
        }
        fields[22..24].copy_from_slice(&(name.len() as u16).to_le_bytes());
        file.extend(b"PK\x03\x04");
        file.extend(&fields);
        file.extend(name.as_bytes());
        file.extend_from_slice(data);
        directory.extend(b"PK\x01\x02\0\0");
        directory.extend(&fields);
        // Comment, disk, attributes, place.
        directory.extend([0u8; 10]);
        directory.extend(at.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let start = file.len() as u32;
    let count = (entries.len() as u16).to_le_bytes();
    file.extend(&directory);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend(count);
    file.extend(count);
    file.extend((directory.len() as u32).to_le_bytes());
    file.extend(start.to_le_bytes());
    file.extend([0u8; 2]);
    file
}

/// The same archive with its sizes and places in the fields of 64 bits, as files of 4 GiB and more have them.
pub(crate) fn archive_64(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let narrow = archive(entries);
    let end = narrow.len() - 22;
    let start = u32::from_le_bytes(narrow[end + 16..end + 20].try_into().unwrap()) as usize;
    let mut file = narrow[..start].to_vec();
    let mut rest = &narrow[start..end];
    while !rest.is_empty() {
        let name = usize::from(u16::from_le_bytes([rest[28], rest[29]]));
        let mut header = rest[..46 + name].to_vec();
        // Another field comes first; then sizes of the data, uncompressed and stored, and the place.
        let mut extra = b"\x55\x54\x02\0ab\x01\0\x18\0".to_vec();
        for place in [24, 20, 42] {
            extra.extend_from_slice(&header[place..place + 4]);
            extra.extend([0u8; 4]);
            header[place..place + 4].fill(0xff);
        }
        header[30..32].copy_from_slice(&(extra.len() as u16).to_le_bytes());
        file.extend(header);
        file.extend(extra);
        rest = &rest[46 + name..];
    }
    let end_64 = file.len() as u64;
    let count = (entries.len() as u64).to_le_bytes();
    file.extend(b"PK\x06\x06");
    file.extend(44u64.to_le_bytes());
    file.extend([0u8; 12]);
    file.extend(count);
    file.extend(count);
    file.extend((end_64 - start as u64).to_le_bytes());
    file.extend((start as u64).to_le_bytes());
    file.extend(b"PK\x06\x07\0\0\0\0");
    file.extend(end_64.to_le_bytes());
    file.extend([1u8, 0, 0, 0]);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend([0xffu8; 12]);
    file.extend([0u8; 2]);
    file
}

/// The opcodes of a pickle, put together.
#[derive(Clone, Default)]
pub(crate) struct Program(pub(crate) Vec<u8>);

impl Program {
    pub(crate) fn new() -> Self {
        Program(b"\x80\x02".to_vec())
    }

    pub(crate) fn op(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn string(self, text: &str) -> Self {
        self.op(b"X")
            .op(&(text.len() as u32).to_le_bytes())
            .op(text.as_bytes())
    }

    pub(crate) fn global(self, module: &str, name: &str) -> Self {
        self.op(format!("c{module}\n{name}\n").as_bytes())
    }

    /// LONG1.
    pub(crate) fn int(self, number: i64) -> Self {
        self.op(b"\x8a\x08").op(&number.to_le_bytes())
    }

    pub(crate) fn ints(self, numbers: &[i64]) -> Self {
        let begun = self.op(b"(");
        numbers
            .iter()
            .fold(begun, |program, &number| program.int(number))
            .op(b"t")
    }

    /// A tensor of the storage `key`, which has `elements` of the type `storage`.
    pub(crate) fn tensor(
        self,
        storage: (&str, &str, i64),
        offset: i64,
        shape: &[i64],
        strides: &[i64],
    ) -> Self {
        let (kind, key, elements) = storage;
        self.global("torch._utils", "_rebuild_tensor_v2")
            .op(b"((")
            .string("storage")
            .global("torch", kind)
            .string(key)
            .string("cpu")
            .int(elements)
            .op(b"tQ")
            .int(offset)
            .ints(shape)
            .ints(strides)
            .op(b"\x89ccollections\nOrderedDict\n)RtR")
    }

    pub(crate) fn end(self) -> Vec<u8> {
        self.op(b".").0
    }
}

/// A state dict of one tensor `w`.
pub(crate) fn one_tensor(
    storage: (&str, &str, i64),
    offset: i64,
    shape: &[i64],
    strides: &[i64],
) -> Vec<u8> {
    Program::new()
        .op(b"}")
        .string("w")
        .tensor(storage, offset, shape, strides)
        .op(b"s")
        .end()
}

/// The older form: `program` is the pickled state dict, and these are the storages, by key, with their numbers of elements.
pub(crate) fn stream(program: &[u8], storages: &[(&str, i64, &[u8])]) -> Vec<u8> {
    let mut file = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.".to_vec();
    file.extend(b"\x80\x02M\xe9\x03.");
    file.extend(
        Program::new()
            .op(b"}")
            .string("little_endian")
            .op(b"\x88s")
            .end(),
    );
    file.extend_from_slice(program);
    let keys = storages
        .iter()
        .fold(Program::new().op(b"]("), |program, (key, _, _)| {
            program.string(key)
        });
    file.extend(keys.op(b"e").end());
    for (_, elements, data) in storages {
        file.extend(elements.to_le_bytes());
        file.extend_from_slice(data);
    }
    file
}

/// The text of the refusal of a file, without its path and hint.
pub(crate) fn refusal(file: &[u8], kind: CheckpointErrorKind) -> String {
    let directory = CheckpointDirectory::new(&json!({}), &[]);
    directory.write("pytorch_model.bin", file);
    let error = Checkpoint::open(directory.path()).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    let text = directory.text(&error);
    let text = text.strip_prefix("DIR/pytorch_model.bin: ").unwrap();
    text.lines().next().unwrap().to_owned()
}
