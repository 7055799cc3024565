//! How the rows of a file are written.

use std::path::Path;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// One text a line.
    Lines,
    /// One JSON string or object a line.
    Jsonl,
    /// One JSON array of strings or objects; or one string or object a line.
    Json,
    /// Comma-separated values with a header.
    Csv,
    /// Values separated by tabs, with a header and without quoting.
    Tsv,
    /// Apache Parquet.
    Parquet,
}

impl FileFormat {
    /// The format that the name of a file tells; none for a name that tells none.
    pub fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            "json" => Some(Self::Json),
            "csv" => Some(Self::Csv),
            "tsv" => Some(Self::Tsv),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }

    /// The format that the name of a file tells; for a name that tells none JSONL where columns are named, and else lines.
    pub fn of_rows(path: &Path, names_columns: bool) -> Self {
        Self::of(path).unwrap_or(match names_columns {
            true => Self::Jsonl,
            false => Self::Lines,
        })
    }

    /// Whether rows have columns that can be named.
    pub fn has_columns(self) -> bool {
        self != Self::Lines
    }

    /// Its name in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lines => "text",
            Self::Jsonl => "JSONL",
            Self::Json => "JSON",
            Self::Csv => "CSV",
            Self::Tsv => "TSV",
            Self::Parquet => "Parquet",
        }
    }
}
