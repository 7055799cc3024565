//! Rows of texts and token ids from files, one row at a time.
//!
//! | format | names | a row | columns |
//! |---|---|---|---|
//! | lines | any other | a line | none: the line is the text |
//! | JSONL | `.jsonl`, `.ndjson` | a line | the fields of its object; a string is a text |
//! | JSON | `.json` | an element of the array, or a line where there is no array | as JSONL |
//! | CSV | `.csv` | a record | those of the header |
//! | TSV | `.tsv` | a line | those of the header; quotation marks are part of the text |
//! | Parquet | `.parquet` | a row | those of the schema: strings, numbers, lists of integers |
//!
//! Only what a reader looks at is in memory: a line, a record, or the pages of a Parquet column that hold the rows at hand.
//!
//! ```
//! use fewbit_data::{Column, DataFile, FileFormat};
//!
//! let directory = tempfile::tempdir()?;
//! let path = directory.path().join("pairs.csv");
//! std::fs::write(&path, "first,second\na cat,\"cats, many\"\n")?;
//! let mut texts = Vec::new();
//! DataFile::new(&path, None).for_each_row(&[Column::text("second")], &mut |row| {
//!     texts.push(row.text(0).to_owned());
//!     Ok(())
//! })?;
//! assert_eq!(texts, ["cats, many"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod column;
mod csv_rows;
mod data_file;
mod error;
mod file_format;
mod header;
mod json_array;
mod json_rows;
mod lines;
mod parquet_rows;
mod read_rows;
mod row;
pub mod tokens;
mod tsv_rows;

pub use column::{Column, ColumnKind};
pub use data_file::DataFile;
pub use error::DataError;
pub use file_format::FileFormat;
pub use row::{Cell, Row};
pub use tokens::{TokenColumns, TokenLimits, TokenRow};

/// Column of a text, unless another is named.
pub const DEFAULT_TEXT_COLUMN: &str = "text";
