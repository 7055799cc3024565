//! Reading rows: every format, and what is refused.

mod parquet;
mod text_formats;
mod tokenized_rows;

use fewbit_data::{Cell, Column, DataError, DataFile};

/// All rows of a file.
fn rows(file: &DataFile, columns: &[Column]) -> Result<Vec<Vec<Cell>>, DataError> {
    let mut rows = Vec::new();
    file.for_each_row(columns, &mut |row| {
        rows.push(row.cells().to_vec());
        Ok(())
    })?;
    Ok(rows)
}

/// A file in a directory of its own.
struct Written {
    directory: tempfile::TempDir,
    file: DataFile,
}

fn written(name: &str, content: impl AsRef<[u8]>) -> Written {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, content).unwrap();
    let file = DataFile::new(path, None);
    Written { directory, file }
}

impl Written {
    /// Texts of one column.
    fn texts(&self, column: &str) -> Vec<String> {
        let mut texts = Vec::new();
        let take = &mut |row: &fewbit_data::Row<'_>| {
            texts.push(row.text(0).to_owned());
            Ok(())
        };
        self.file
            .for_each_row(&[Column::text(column)], take)
            .unwrap();
        texts
    }

    /// The error's text, with the file's name for its path.
    fn error<T: std::fmt::Debug>(&self, result: Result<T, DataError>) -> String {
        let directory = format!("{}/", self.directory.path().display());
        result.unwrap_err().to_string().replace(&directory, "")
    }

    fn refusal(&self, columns: &[Column]) -> String {
        self.error(rows(&self.file, columns))
    }
}
