//! Lines, JSON, CSV and TSV.

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
      hint: name the field that holds the text with --field
    ");
    insta::assert_snapshot!(text("t.jsonl", b"{}"), @r"
    t.jsonl: line 1: expected a field `text`, found none
      hint: name the field that holds the text with --field
    ");
    insta::assert_snapshot!(text("t.jsonl", b"\"a\"\n{\"text\": 3}"), @r"
    t.jsonl: line 2: field `text`: expected a string, found a number
      hint: name a field of texts, or remove the line
    ");
    insta::assert_snapshot!(text("t.jsonl", b"\"a\"\n[]"), @r"
    t.jsonl: line 2: expected a JSON string or object, found an array
      hint: every line is a row
    ");
    insta::assert_snapshot!(text("t.jsonl", b"\"a\"\n\nb"), @r"
    t.jsonl: line 3: expected one JSON string or object a line, found expected value at column 1
      hint: plain text, one text a line, is a file of another name, such as texts.txt
    ");
    insta::assert_snapshot!(text("t.jsonl", b"{\"text\": \"a"), @r"
    t.jsonl: line 1: expected one JSON string or object a line, found EOF while parsing a string at column 11
      hint: the line is no whole JSON value: write one object a line, or all in one array in a .json file
    ");
    insta::assert_snapshot!(text("t.csv", b"a,b\n1,2\n"), @r"
    t.csv: line 1: expected a column `text`, found `a`, `b`
      hint: name the column that holds the text with --field
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
fn a_json_file_is_an_array_or_lines() {
    for content in [
        "[{\"text\": \"a, ]\\\"b\", \"n\": [1, {\"x\": 2}]}, \"c\"]",
        "\u{feff} [\n  {\n    \"text\": \"a, ]\\\"b\"\n  },\n  \"c\"\n]\n",
        "{\"text\": \"a, ]\\\"b\"}\n\n\"c\"\n",
    ] {
        let file = written("t.json", content);
        assert_eq!(file.texts("text"), ["a, ]\"b", "c"], "{content}");
    }
    let names = written("t.json", "[{\"id\": 1, \"text\": \"a\"}, 7");
    assert_eq!(names.file.column_names().unwrap(), ["id", "text"]);
    assert_eq!(
        written("t.json", " [ ] ").texts("text"),
        Vec::<String>::new()
    );
    let refusal = |content: &str| written("t.json", content).refusal(&[Column::text("text")]);
    for (content, expected) in [
        (
            "[\"a\", 3]",
            "t.json: element 2: expected a JSON string or object, found a number\n",
        ),
        (
            "[\"a\",]",
            "t.json: element 2: expected a value, found none\n",
        ),
        (
            "[\"a\" \"b\"]",
            "t.json: element 1: expected one JSON string or object an element, found trailing characters",
        ),
        (
            "[\"a\", \"b\"",
            "t.json: element 2: expected `]` at the end of the array, found the end of the file\n",
        ),
        (
            "[\"a\"]\n[\"b\"]",
            "t.json: element 2: expected nothing after the array, found `[`\n",
        ),
        (
            "plain text",
            "t.json: line 1: expected one JSON string or object a line, found expected value at column 1\n",
        ),
    ] {
        let found = refusal(content);
        assert!(found.starts_with(expected), "{content}: {found}");
    }
}

/// Python writes NaN, and half of a surrogate pair; where nobody reads them they do not matter.
#[test]
fn fields_that_are_not_read_may_hold_what_json_does_not_know() {
    let line = "{\"n\": NaN, \"s\": \"\\ud83d\", \"i\": [-Infinity, Infinity], \"text\": \"NaN \\\" Infinity\"}\n";
    for (name, content) in [
        ("t.jsonl", line.to_owned()),
        ("t.json", format!("[{line}]")),
    ] {
        let file = written(name, content);
        assert_eq!(file.texts("text"), ["NaN \" Infinity"], "{name}");
        let number = file.refusal(&[Column::number("n")]);
        assert!(
            number.contains("field `n`: expected a number, found null, NaN or infinity\n"),
            "{number}"
        );
        let half = file.refusal(&[Column::text("s")]);
        assert!(half.contains("hint: half of a character"), "{half}");
    }
}

/// GLUE writes a text that begins with a quotation mark as it is.
#[test]
fn tab_separated_values_are_not_quoted() {
    let content =
        "text\tlabel\r\n\"Begins with a mark\t1\r\n\nand so \"does\" not\t0\n\"quoted\"\t1\n";
    let file = written("t.tsv", content);
    assert_eq!(
        file.texts("text"),
        ["\"Begins with a mark", "and so \"does\" not", "\"quoted\""]
    );
    assert_eq!(file.file.column_names().unwrap(), ["text", "label"]);
    let mut remarks = Vec::new();
    let columns = [Column::text("text"), Column::number("label")];
    let take = &mut |row: &fewbit_data::Row<'_>| {
        remarks.push((
            row.number(1),
            row.remark()
                .map(|remark| remark.lines().next().unwrap().contains("line 5")),
        ));
        Ok(())
    };
    file.file.for_each_row(&columns, take).unwrap();
    assert_eq!(remarks, [(1.0, None), (0.0, None), (1.0, Some(true))]);
    let wide = written("t.tsv", "a\ttext\n1\t\"b\tc\"\n").refusal(&[Column::text("text")]);
    assert!(
        wide.starts_with("t.tsv: line 2: expected 2 cells, as many as the header has, found 3\n"),
        "{wide}"
    );
    let empty = written("t.tsv", "").refusal(&[Column::text("text")]);
    assert!(
        empty.starts_with("t.tsv: expected a header that names the columns, found an empty file\n"),
        "{empty}"
    );
    let word = written("t.tsv", "n\nsome\n").refusal(&[Column::number("n")]);
    assert!(
        word.starts_with("t.tsv: line 2: column `n`: expected a number, found \"some\"\n"),
        "{word}"
    );
}

#[test]
fn a_quotation_mark_that_is_not_closed_does_not_swallow_the_rest() {
    let open = written("t.csv", "text\na\n\"b\nc\nd\n").refusal(&[Column::text("text")]);
    assert!(open.starts_with("t.csv: line 3: expected a quotation mark that closes the cell, found the end of the file\n"), "{open}");
    assert_eq!(written("t.csv", "text\n\"a\"\"\"").texts("text"), ["a\""]);
    assert_eq!(
        written("t.csv", "text\n5\" disk\n").texts("text"),
        ["5\" disk"]
    );
}

/// One line, record or element without end would fill the memory.
#[test]
fn a_row_without_end_is_refused_by_its_place() {
    const LIMIT: usize = 16 << 20;
    let long = "a".repeat(LIMIT + (1 << 17));
    for (name, content, place) in [
        ("t.txt", format!("a\n{long}"), "line 2"),
        ("t.jsonl", format!("\"a\"\n\"{long}\""), "line 2"),
        ("t.json", format!("[\"a\", \"{long}\"]"), "element 2"),
        ("t.csv", format!("text\na\n\"{long}\""), "line 3"),
        ("t.tsv", format!("text\na\n{long}"), "line 3"),
    ] {
        let found = written(name, content).refusal(&[Column::text("text")]);
        let expected = format!("{name}: {place}: expected at most 16 MiB, found a longer one\n");
        assert!(found.starts_with(&expected), "{found}");
    }
    let longest = "a".repeat(LIMIT - 1);
    assert_eq!(
        written("t.txt", format!("{longest}\nb")).texts("text")[1],
        "b"
    );
}

#[test]
fn the_first_line_that_looks_like_json_is_remarked_on() {
    let remarks = |content: &str| {
        let mut remarks = Vec::new();
        let file = written("t.txt", content);
        let take = &mut |row: &fewbit_data::Row<'_>| {
            remarks.push(row.remark().is_some());
            Ok(())
        };
        file.file.for_each_row(&[], take).unwrap();
        remarks
    };
    assert_eq!(
        remarks("a\n{\"text\": \"b\"}\n{\"text\": \"c\"}\n"),
        [false, true, false]
    );
    assert_eq!(remarks("[1, 2]\n"), [true]);
    assert_eq!(remarks("{curly}\n (a)\n"), [false, false]);
}
