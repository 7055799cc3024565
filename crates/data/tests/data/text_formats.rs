//! Lines, JSONL and CSV.

use fewbit_data::{Cell, Column, DataFile, FileFormat};

use crate::{rows, written};

#[test]
fn empty_lines_are_texts_and_the_last_line_end_is_not() {
    let lines = |content: &str| written("t.txt", content).texts("text");
    assert_eq!(lines(""), Vec::<String>::new());
    assert_eq!(lines("\u{feff}"), Vec::<String>::new());
    assert_eq!(lines("\n"), [""]);
    assert_eq!(lines("a\n\nb"), ["a", "", "b"]);
    assert_eq!(lines("a\r\n\r\nb\r\n"), ["a", "", "b"]);
    assert_eq!(lines("\u{feff}a\n"), ["a"]);
    assert_eq!(lines("ভাষা \r \n"), ["ভাষা \r "]);
}

#[test]
fn jsonl_takes_strings_and_objects_and_passes_over_blank_lines() {
    let file = written(
        "t.jsonl",
        "\u{feff}{\"text\": \"a\\nb\", \"id\": 1}\r\n \n\"c\"\n",
    );
    assert_eq!(file.texts("text"), ["a\nb", "c"]);
    assert_eq!(file.file.column_names().unwrap(), ["text", "id"]);
}

#[test]
fn csv_cells_may_hold_delimiters_quotes_and_line_ends() {
    let csv = "\u{feff}id,\"the text\",other\r\n1,\"a, \"\"b\"\"\nc\",x\r\n\n2,,y\n3,ভাষা,z";
    let file = written("t.csv", csv);
    assert_eq!(file.texts("the text"), ["a, \"b\"\nc", "", "ভাষা"]);
    assert_eq!(
        file.file.column_names().unwrap(),
        ["id", "the text", "other"]
    );
    let both = [Column::text("other"), Column::text("id")];
    let text = |text: &str| Cell::Text(text.to_owned());
    assert_eq!(rows(&file.file, &both).unwrap()[0], [text("x"), text("1")]);
    assert_eq!(
        written("t.tsv", "a\ttext\n1\tb, c\n").texts("text"),
        ["b, c"]
    );
    assert_eq!(
        written("t.csv", "text\n").texts("text"),
        Vec::<String>::new()
    );
}

#[test]
fn the_name_tells_the_format_unless_one_is_given() {
    let path = std::path::Path::new;
    assert_eq!(FileFormat::of(path("a/b.NDJSON")), Some(FileFormat::Jsonl));
    assert_eq!(FileFormat::of(path("b.parquet")), Some(FileFormat::Parquet));
    assert_eq!(FileFormat::of(path("b.csv.txt")), None);
    let file = written("t.txt", "\"a\"\n");
    assert_eq!(file.texts("text"), ["\"a\""]);
    let json = DataFile::new(file.file.path().unwrap(), Some(FileFormat::Jsonl));
    let cells = rows(&json, &[Column::text("text")]).unwrap();
    assert_eq!(cells, [[Cell::Text("a".to_owned())]]);
}

#[test]
fn every_refusal_names_its_line() {
    let text = |name: &str, content: &[u8]| written(name, content).refusal(&[Column::text("text")]);
    insta::assert_snapshot!(text("t.txt", b"ok\nab\xffc\n"), @r"
    t.txt: line 2: expected UTF-8, found the byte 0xff at byte 3 of the line
      hint: convert the file to UTF-8, for instance with iconv
    ");
    insta::assert_snapshot!(text("t.jsonl", b"{\"sentence\": \"a\", \"id\": 3}"), @r"
    t.jsonl: line 1: expected a field `text`, found `sentence`, `id`
      hint: call the field that holds the text `text`, or name it where the command takes --field
    ");
    insta::assert_snapshot!(text("t.jsonl", b"{}"), @r"
    t.jsonl: line 1: expected a field `text`, found none
      hint: call the field that holds the text `text`, or name it where the command takes --field
    ");
    insta::assert_snapshot!(text("t.jsonl", b"\"a\"\n{\"text\": 3}"), @r"
    t.jsonl: line 2: field `text`: expected a string, found a number
      hint: name a field of texts, or remove the line
    ");
    insta::assert_snapshot!(text("t.jsonl", b"\"a\"\n[]"), @r"
    t.jsonl: line 2: expected a JSON string or object, found an array
      hint: every line of a JSONL file is a row
    ");
    insta::assert_snapshot!(text("t.jsonl", b"\"a\"\n\nb"), @r"
    t.jsonl: line 3: expected one JSON string or object a line, found expected value at column 1
      hint: plain text, one text a line, is a file of another name, such as texts.txt
    ");
    insta::assert_snapshot!(text("t.jsonl", b"{\"text\": \"a"), @r"
    t.jsonl: line 1: expected one JSON string or object a line, found EOF while parsing a string at column 11
      hint: the line is no whole JSON value: write one object a line
    ");
    insta::assert_snapshot!(text("t.csv", b"a,b\n1,2\n"), @r"
    t.csv: line 1: expected a column `text`, found `a`, `b`
      hint: call the column that holds the text `text`, or name it where the command takes --field
    ");
    insta::assert_snapshot!(text("t.csv", b""), @r"
    t.csv: expected a header that names the columns, found an empty file
      hint: the first line of a CSV file holds the names
    ");
    insta::assert_snapshot!(text("t.csv", b"text,text\n1,2\n"), @r"
    t.csv: line 1: column `text`: expected one of that name, found several
      hint: give the columns different names
    ");
    insta::assert_snapshot!(text("t.csv", b"text,b\n1,2\none, two, three\n"), @r"
    t.csv: line 3: expected 2 cells, as many as the header has, found 3
      hint: put a cell that holds the delimiter between double quotes
    ");
    insta::assert_snapshot!(text("t.csv", b"text,b\n1,2\n1,\xff\n"), @r"
    t.csv: line 3: expected UTF-8, found another byte in cell 2
      hint: convert the file to UTF-8, for instance with iconv
    ");
    let missing = written("t.txt", "");
    let file = DataFile::new(missing.file.path().unwrap().with_file_name("u.txt"), None);
    insta::assert_snapshot!(missing.error(rows(&file, &[])), @r"
    u.txt: No such file or directory (os error 2)
      hint: check the path, and that you may read it
    ");
}

#[test]
fn blank_lines_can_be_refused() {
    for (name, content) in [("t.txt", "a\n \nb\n"), ("t.jsonl", "\"a\"\n\n\"b\"\n")] {
        let file = written(name, content);
        let strict = file.file.clone().refuse_blank_lines();
        let text = file.error(rows(&strict, &[Column::text("text")]));
        let expected = format!("{name}: line 2: expected a text, found a line without one\n");
        assert!(text.starts_with(&expected), "{text}");
    }
}
