//! A file of rows: Parquet where it starts like one, otherwise lines, JSONL, JSON, CSV and TSV in turn.
#![no_main]

use fewbit_data::tokens::for_each_token_row;
use fewbit_data::{Cell, Column, DataError, DataFile, FileFormat, TokenColumns, TokenLimits};
use fewbit_fuzz::Scratch;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static SCRATCH: LazyLock<Scratch> = LazyLock::new(Scratch::new);

/// Columns that are read by themselves.
const MOST_COLUMNS: usize = 4;
/// Rows after which reading is stopped: a small Parquet file can have very many.
const MOST_ROWS: usize = 10_000;
const STOP: &str = "the fuzzer";

const LIMITS: TokenLimits = TokenLimits {
    vocabulary_size: 1000,
    max_tokens: 16,
    token_types: 2,
};

// The fuzzer's panic hook ends the process. The parquet crate panics over damaged files, which fewbit-data contains: that hook does
// not see them.
fuzz_target!(|bytes: &[u8]| {
    if bytes.starts_with(b"PAR1") {
        read_all(&file("rows.parquet", bytes));
        return;
    }
    for name in [
        "rows.txt",
        "rows.jsonl",
        "rows.json",
        "rows.csv",
        "rows.tsv",
    ] {
        read_all(&file(name, bytes));
    }
});

fn file(name: &str, bytes: &[u8]) -> DataFile {
    DataFile::new(SCRATCH.write(name, bytes), None)
}

/// The cells of all rows, and the error that ended them, if one did.
fn rows(file: &DataFile, columns: &[Column]) -> (Vec<Vec<Cell>>, Option<String>) {
    let mut rows = Vec::new();
    let result = file.for_each_row(columns, &mut |row| {
        assert_eq!(row.cells().len(), columns.len().max(1));
        rows.push(row.cells().to_vec());
        go_on(rows.len())
    });
    (rows, ended(file, result))
}

fn go_on(rows: usize) -> Result<(), DataError> {
    if rows < MOST_ROWS {
        return Ok(());
    }
    Err(DataError::content(STOP, "", "", ""))
}

/// The error, unless it is ours; it starts with the name of the file.
fn ended(file: &DataFile, result: Result<(), DataError>) -> Option<String> {
    let text = result.err()?.to_string();
    assert!(
        text.starts_with(file.name()) || text.starts_with(STOP),
        "{text}"
    );
    Some(text)
}

fn read_all(file: &DataFile) {
    let names = file.column_names();
    if let Err(error) = &names {
        assert!(error.to_string().starts_with(file.name()), "{error}");
    }
    let names = names.unwrap_or_default();
    if file.format() == FileFormat::Lines {
        assert!(names.is_empty());
    }
    let mut columns: Vec<Column> = Vec::new();
    for name in names.iter().take(MOST_COLUMNS) {
        columns.push(Column::text(name));
        columns.push(Column::number(name));
        columns.push(Column::integers(name).optional());
    }
    columns.push(Column::text("text"));
    for column in columns {
        let column = [column];
        let (found, end) = rows(file, &column);
        assert_eq!(rows(file, &column), (found.clone(), end.clone()));
        if end.is_none() {
            write_and_read(file, &column[0], &found);
        }
    }
    if !file.format().has_columns() {
        return;
    }
    let result = for_each_token_row(
        file,
        &TokenColumns::new("input_ids", None),
        LIMITS,
        &mut |row| {
            assert!((1..=LIMITS.max_tokens).contains(&row.token_ids.len()));
            assert!(
                row.token_ids
                    .iter()
                    .all(|&id| (id as usize) < LIMITS.vocabulary_size)
            );
            let types = &row.token_type_ids;
            assert!(types.is_empty() || types.len() == row.token_ids.len());
            assert!(
                types
                    .iter()
                    .all(|&kind| (kind as usize) < LIMITS.token_types)
            );
            Ok(())
        },
    );
    ended(file, result);
}

/// Rows that were read, written by another library, are read again as they were.
fn write_and_read(file: &DataFile, column: &Column, found: &[Vec<Cell>]) {
    let (name, bytes) = match file.format() {
        FileFormat::Lines => return,
        FileFormat::Csv => {
            // At the start of a file it is a byte order mark.
            if column.name.starts_with('\u{feff}') {
                return;
            }
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record([&column.name]).expect("memory");
            for row in found {
                match &row[0] {
                    Cell::Text(text) => writer.write_record([text]).expect("memory"),
                    _ => return,
                }
            }
            ("again.csv", writer.into_inner().expect("memory"))
        }
        FileFormat::Json | FileFormat::Jsonl | FileFormat::Tsv | FileFormat::Parquet => {
            let mut bytes = Vec::new();
            for row in found {
                let value = match &row[0] {
                    Cell::Text(text) => serde_json::json!({ &column.name: text }),
                    Cell::Number(number) => serde_json::json!({ &column.name: number }),
                    Cell::Integers(values) => serde_json::json!({ &column.name: values }),
                    Cell::Absent => serde_json::json!({}),
                };
                bytes.extend_from_slice(value.to_string().as_bytes());
                bytes.push(b'\n');
            }
            ("again.jsonl", bytes)
        }
    };
    let again = DataFile::new(SCRATCH.write(name, &bytes), None);
    assert_eq!(
        rows(&again, std::slice::from_ref(column)),
        (found.to_vec(), None)
    );
}
