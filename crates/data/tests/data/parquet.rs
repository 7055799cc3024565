//! Parquet files that pyarrow wrote, against the same rows as JSONL.

use std::path::{Path, PathBuf};

use fewbit_data::{Cell, Column, DataFile};

use crate::{rows, written};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn columns() -> Vec<Column> {
    vec![
        Column::text("text"),
        Column::integers("input_ids"),
        Column::integers("attention_mask"),
        Column::integers("token_type_ids").optional(),
        Column::integers("not there").optional(),
    ]
}

#[test]
fn every_writing_of_the_same_rows_is_read_as_the_same_rows() {
    let expected = rows(&DataFile::new(golden("rows.jsonl"), None), &columns()).unwrap();
    assert_eq!(expected.len(), 600);
    for name in ["snappy", "zstd", "gzip", "plain"] {
        let file = DataFile::new(golden(&format!("{name}.parquet")), None);
        assert!(rows(&file, &columns()).unwrap() == expected, "{name}");
        let names = ["text", "input_ids", "attention_mask", "token_type_ids"];
        assert_eq!(file.column_names().unwrap(), names);
    }
}

#[test]
fn unsigned_ids_are_not_negative() {
    let file = DataFile::new(golden("odd.parquet"), None);
    let cells = rows(&file, &[Column::integers("large")]).unwrap();
    assert_eq!(cells[1], [Cell::Integers(vec![4_294_967_295])]);
    let empty = rows(&file, &[Column::integers("empty")]).unwrap();
    assert_eq!(empty[1], [Cell::Integers(Vec::new())]);
    let absent = rows(&file, &[Column::integers("null_list").optional()]).unwrap();
    assert_eq!(absent[1], [Cell::Absent]);
}

#[test]
fn labels_are_texts_or_whole_numbers() {
    let file = DataFile::new(golden("odd.parquet"), None);
    let labels = rows(&file, &[Column::label("number")]).unwrap();
    let texts = labels.iter().map(|row| match &row[..] {
        [Cell::Text(text)] => text.as_str(),
        other => panic!("{other:?}"),
    });
    assert_eq!(texts.collect::<Vec<_>>(), ["1", "2", "3"]);
    let file = DataFile::new(golden("plain.parquet"), None);
    let texts = rows(&file, &[Column::text("text")]).unwrap();
    assert!(rows(&file, &[Column::label("text")]).unwrap() == texts);
    let error = rows(&file, &[Column::label("input_ids")]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("column `input_ids`: expected strings or whole numbers, found lists of"),
        "{error}"
    );
}

#[test]
fn what_holds_no_texts_or_ids_is_refused() {
    let refusal = |name: &str, column: Column| {
        let path = golden(name);
        let directory = format!("{}/", path.parent().unwrap().display());
        let error = rows(&DataFile::new(&path, None), &[column]).unwrap_err();
        error.to_string().replace(&directory, "")
    };
    let odd = |column: Column| refusal("odd.parquet", column);
    insta::assert_snapshot!(odd(Column::text("body")), @r"
    odd.parquet: expected a column `body`, found `text`, `bytes`, `number`, `null_list`, `null_element`, `empty`, `floats`, `nested`, `structures`, `large`
      hint: name the column that holds the text with --field
    ");
    insta::assert_snapshot!(odd(Column::text("text")), @r"
    odd.parquet: row 2: column `text`: expected a string, found null
      hint: remove the row, or name another column
    ");
    insta::assert_snapshot!(odd(Column::text("bytes")), @r"
    odd.parquet: row 2: column `bytes`: expected a string, found bytes that are no UTF-8 from byte 1
      hint: remove the row, or name another column
    ");
    insta::assert_snapshot!(odd(Column::text("number")), @r"
    odd.parquet: column `number`: expected strings, found integers
      hint: name a column of strings
    ");
    insta::assert_snapshot!(odd(Column::text("structures")), @r"
    odd.parquet: column `structures`: expected strings, found structures of several columns
      hint: name a column of strings
    ");
    let numbers = rows(
        &DataFile::new(golden("odd.parquet"), None),
        &[Column::number("number")],
    );
    assert_eq!(
        numbers.unwrap(),
        [1.0, 2.0, 3.0].map(|number| [Cell::Number(number)])
    );
    insta::assert_snapshot!(odd(Column::number("text")), @r"
    odd.parquet: column `text`: expected numbers, found strings
      hint: name a column of numbers
    ");
    insta::assert_snapshot!(odd(Column::integers("text")), @r"
    odd.parquet: column `text`: expected lists of integers, found strings
      hint: name a column of lists of integers
    ");
    insta::assert_snapshot!(odd(Column::integers("number")), @r"
    odd.parquet: column `number`: expected lists of integers, found integers
      hint: name a column of lists of integers
    ");
    insta::assert_snapshot!(odd(Column::integers("floats")), @r"
    odd.parquet: column `floats`: expected lists of integers, found lists of floating-point numbers
      hint: name a column of lists of integers
    ");
    insta::assert_snapshot!(odd(Column::integers("nested")), @r"
    odd.parquet: column `nested`: expected lists of integers, found lists of lists of integers
      hint: name a column of lists of integers
    ");
    insta::assert_snapshot!(odd(Column::integers("null_list")), @r"
    odd.parquet: row 2: column `null_list`: expected a list of integers, found null
      hint: remove the row, or name another column
    ");
    insta::assert_snapshot!(odd(Column::integers("null_element")), @r"
    odd.parquet: row 2: column `null_element`: expected a list of integers, found null at position 2
      hint: remove the row, or name another column
    ");
    insta::assert_snapshot!(refusal("brotli.parquet", Column::text("text")), @r#"
    brotli.parquet: row group 1: column `text`: compression: expected one that is supported (none, snappy, gzip and zstd), found brotli, which is not supported
      hint: write the file again with another, for instance compression="zstd" of pyarrow
    "#);
}

/// Bytes that are changed or cut off give an error or other rows, never a panic.
#[test]
fn damaged_files_do_not_panic() {
    for name in ["zstd.parquet", "gzip.parquet", "odd.parquet"] {
        let whole = std::fs::read(golden(name)).unwrap();
        let column = if name == "odd.parquet" {
            Column::integers("null_element")
        } else {
            Column::integers("input_ids")
        };
        for part in 0..16 {
            let cut = written("cut.parquet", &whole[..whole.len() * part / 16]);
            let text = cut.refusal(std::slice::from_ref(&column));
            assert!(
                text.starts_with("cut.parquet: expected Parquet, "),
                "{text}"
            );
        }
        let step = (whole.len() / 100).max(1);
        for position in (0..whole.len()).step_by(step) {
            for mask in [0x01, 0xff] {
                let mut bytes = whole.clone();
                bytes[position] ^= mask;
                let damaged = written("damaged.parquet", bytes);
                let _ = rows(&damaged.file, std::slice::from_ref(&column));
            }
        }
    }
}
