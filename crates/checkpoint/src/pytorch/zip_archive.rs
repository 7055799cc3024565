//! The entries of a zip archive whose data are stored as they are, which is how `torch.save` writes them.
//!
//! Only the directory at the end of the file is believed, as zip readers do; sizes beyond 4 GiB come from its zip64 fields. Compressed
//! entries are refused, so that nothing can be larger than the file.
use super::malformed;
use crate::CheckpointError;
use std::collections::HashMap;
use std::ops::Range;

/// What a zip file begins with.
pub(super) const LOCAL_HEADER: &[u8] = b"PK\x03\x04";

const DIRECTORY_ENTRY: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const END_64: &[u8] = b"PK\x06\x06";
const END_64_LOCATOR: &[u8] = b"PK\x06\x07";

const END_BYTES: usize = 22;
const END_64_BYTES: usize = 56;
const END_64_LOCATOR_BYTES: usize = 20;
const DIRECTORY_ENTRY_BYTES: usize = 46;
const LOCAL_HEADER_BYTES: usize = 30;
/// Longest comment after the end record.
const MAX_COMMENT_BYTES: usize = 65535;
/// In the place of a number that the zip64 field holds.
const IN_ZIP64: u64 = 0xffff_ffff;
/// Number of the extra field with the numbers of 64 bits.
const ZIP64_FIELD: u16 = 1;

/// Where the data of each entry lie in the file, by name.
#[derive(Debug)]
pub(super) struct ZipArchive<'a> {
    entries: HashMap<&'a str, Range<usize>>,
    first: &'a str,
}

impl<'a> ZipArchive<'a> {
    /// Reads the directory of the archive `file`.
    pub(super) fn read(file: &'a [u8]) -> Result<Self, CheckpointError> {
        let mut directory = Directory::find(file)?;
        let mut archive = ZipArchive {
            entries: HashMap::new(),
            first: "",
        };
        for at in 0..directory.entries {
            let (name, range) = directory.next_entry(file)?;
            if at == 0 {
                archive.first = name;
            }
            if archive.entries.insert(name, range).is_some() {
                return Err(malformed(format!(
                    "the zip archive lists the entry `{name}` twice"
                )));
            }
        }
        Ok(archive)
    }

    /// The folder in which `torch.save` puts everything: that of the first entry.
    pub(super) fn folder(&self) -> Option<&'a str> {
        self.first.split_once('/').map(|(folder, _)| folder)
    }

    /// The bytes of the file that are the data of the entry `name`.
    pub(super) fn entry(&self, name: &str) -> Option<Range<usize>> {
        self.entries.get(name).cloned()
    }
}

/// What of the directory has not been read.
struct Directory<'a> {
    rest: &'a [u8],
    entries: u64,
}

impl<'a> Directory<'a> {
    fn find(file: &'a [u8]) -> Result<Self, CheckpointError> {
        let search = file.len().saturating_sub(END_BYTES + MAX_COMMENT_BYTES);
        let end = file[search..]
            .windows(END.len())
            .rposition(|window| window == END)
            .map(|at| search + at)
            .filter(|at| file.len() - at >= END_BYTES)
            .ok_or_else(|| {
                malformed(format!(
                    "truncated zip archive: expected a directory at its end, found none in {} bytes",
                    file.len()
                ))
                .hint(super::DOWNLOAD_AGAIN)
            })?;
        let record = &file[end..];
        let mut entries = u64::from(u16_at(record, 10));
        let mut start = u64::from(u32_at(record, 16));
        let locator = end
            .checked_sub(END_64_LOCATOR_BYTES)
            .map(|at| &file[at..end])
            .filter(|locator| locator.starts_with(END_64_LOCATOR));
        if let Some(locator) = locator {
            let record = usize::try_from(u64_at(locator, 8))
                .ok()
                .and_then(|at| file.get(at..)?.get(..END_64_BYTES))
                .filter(|record| record.starts_with(END_64))
                .ok_or_else(|| malformed("zip archive: expected a zip64 end record, found none"))?;
            entries = u64_at(record, 32);
            start = u64_at(record, 48);
        }
        let rest = usize::try_from(start)
            .ok()
            .and_then(|start| file.get(start..end))
            .ok_or_else(|| {
                malformed(format!(
                    "zip archive: expected a directory within {} bytes, found its start at {start}",
                    file.len()
                ))
                .hint(super::DOWNLOAD_AGAIN)
            })?;
        Ok(Directory { rest, entries })
    }

    /// Name and data of the next entry.
    fn next_entry(&mut self, file: &[u8]) -> Result<(&'a str, Range<usize>), CheckpointError> {
        let damaged = || {
            malformed("zip archive: expected an entry of the directory, found other bytes")
                .hint(super::DOWNLOAD_AGAIN)
        };
        let header = self
            .rest
            .get(..DIRECTORY_ENTRY_BYTES)
            .filter(|header| header.starts_with(DIRECTORY_ENTRY))
            .ok_or_else(damaged)?;
        let [name, extra, comment] = [28, 30, 32].map(|at| usize::from(u16_at(header, at)));
        let fields = &self.rest[DIRECTORY_ENTRY_BYTES..];
        let name_bytes = fields.get(..name).ok_or_else(damaged)?;
        let extra_bytes = fields.get(name..name + extra).ok_or_else(damaged)?;
        self.rest = fields.get(name + extra + comment..).ok_or_else(damaged)?;
        let name = std::str::from_utf8(name_bytes).map_err(|_| {
            malformed("zip archive: expected entry names in UTF-8, found another one")
        })?;
        let [flags, method] = [8, 10].map(|at| u16_at(header, at));
        if flags & 1 != 0 || method != 0 {
            return Err(malformed(format!(
                "zip entry `{name}`: expected data that are stored as they are, as torch.save writes them, found compression method {method}{}",
                if flags & 1 == 0 { "" } else { ", encrypted" }
            ))
            .hint("load the file with torch.load(weights_only=True) and save it again"));
        }
        // In the order in which the zip64 field lists those that it holds.
        let mut numbers = [24, 20, 42].map(|at| u64::from(u32_at(header, at)));
        let mut wide = zip64_field(extra_bytes).unwrap_or_default();
        for number in numbers.iter_mut().filter(|number| **number == IN_ZIP64) {
            if let Some((first, rest)) = wide.split_first_chunk::<8>() {
                *number = u64::from_le_bytes(*first);
                wide = rest;
            }
        }
        let [bytes, stored, local] = numbers;
        if bytes != stored {
            return Err(malformed(format!(
                "zip entry `{name}`: expected as many bytes as are stored, {stored}, found {bytes}"
            )));
        }
        let range = data_range(file, local, bytes).ok_or_else(|| {
            malformed(format!(
                "zip entry `{name}`: expected {bytes} bytes of data within the file of {} bytes, found its header at {local}",
                file.len()
            ))
            .hint(super::DOWNLOAD_AGAIN)
        })?;
        Ok((name, range))
    }
}

/// Where the data are whose local header is at `local`: that header's name and extra field may have other lengths than in the directory.
fn data_range(file: &[u8], local: u64, bytes: u64) -> Option<Range<usize>> {
    let local = usize::try_from(local).ok()?;
    let header = file
        .get(local..)?
        .get(..LOCAL_HEADER_BYTES)
        .filter(|header| header.starts_with(LOCAL_HEADER))?;
    let [name, extra] = [26, 28].map(|at| usize::from(u16_at(header, at)));
    let start = local + LOCAL_HEADER_BYTES + name + extra;
    let end = start.checked_add(usize::try_from(bytes).ok()?)?;
    (end <= file.len()).then_some(start..end)
}

/// The content of the zip64 field among the extra fields of an entry.
fn zip64_field(mut extra: &[u8]) -> Option<&[u8]> {
    while extra.len() >= 4 {
        let bytes = usize::from(u16_at(extra, 2));
        let content = extra[4..].get(..bytes)?;
        if u16_at(extra, 0) == ZIP64_FIELD {
            return Some(content);
        }
        extra = &extra[4 + bytes..];
    }
    None
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
