//! Token ids with masks and types.

use fewbit_data::tokens::for_each_token_row;
use fewbit_data::{DataError, TokenColumns, TokenLimits, TokenRow};

use crate::{Written, written};

const LIMITS: TokenLimits = TokenLimits {
    vocabulary_size: 100,
    max_tokens: 4,
    token_types: 2,
};

fn read(file: &Written, columns: &TokenColumns) -> Result<Vec<TokenRow>, DataError> {
    let mut rows = Vec::new();
    for_each_token_row(&file.file, columns, LIMITS, &mut |row| {
        rows.push(row);
        Ok(())
    })?;
    Ok(rows)
}

fn row(token_ids: &[u32], token_type_ids: &[u32]) -> TokenRow {
    TokenRow {
        token_ids: token_ids.to_vec(),
        token_type_ids: token_type_ids.to_vec(),
    }
}

#[test]
fn padding_is_dropped_on_both_sides() {
    let file = written(
        "t.jsonl",
        r#"{"input_ids": [1, 2, 3]}
{"input_ids": [1, 2, 0, 0, 0, 0], "attention_mask": [1, 1, 0, 0, 0, 0], "token_type_ids": [0, 1, 7, 0, 0, 0]}
{"input_ids": [-5, 900, 0, 99], "attention_mask": [0, 0, 1, 1], "other": null}
"#,
    );
    assert_eq!(
        read(&file, &TokenColumns::new("input_ids", None)).unwrap(),
        [
            row(&[1, 2, 3], &[]),
            row(&[1, 2], &[0, 1]),
            row(&[0, 99], &[])
        ]
    );
}

#[test]
fn names_of_mask_and_types_follow_from_that_of_the_ids() {
    let file = written(
        "t.jsonl",
        r#"{"student_input_ids": [1, 2], "student_attention_mask": [1, 0], "kept": [0, 1], "attention_mask": [1]}"#,
    );
    let derived = TokenColumns::new("student_input_ids", None);
    assert_eq!(read(&file, &derived).unwrap(), [row(&[1], &[])]);
    let named = TokenColumns::new("student_input_ids", Some("kept".to_owned()));
    assert_eq!(read(&file, &named).unwrap(), [row(&[2], &[])]);
    let ids = written("t.jsonl", r#"{"ids": [1, 2]}"#);
    let columns = TokenColumns::new("ids", None);
    assert_eq!(read(&ids, &columns).unwrap(), [row(&[1, 2], &[])]);
}

/// A model without token types takes the zeros that tokenizers write.
#[test]
fn types_of_a_model_without_them_are_zeros() {
    let limits = TokenLimits {
        token_types: 1,
        ..LIMITS
    };
    let columns = TokenColumns::new("input_ids", None);
    let file = written(
        "t.jsonl",
        r#"{"input_ids": [1, 2], "token_type_ids": [0, 0]}
{"input_ids": [1, 2], "token_type_ids": [0, 1]}"#,
    );
    let mut rows = Vec::new();
    let result = for_each_token_row(&file.file, &columns, limits, &mut |row| {
        rows.push(row);
        Ok(())
    });
    assert_eq!(rows, [row(&[1, 2], &[])]);
    insta::assert_snapshot!(file.error(result), @r"
    t.jsonl: line 2: field `token_type_ids`: expected numbers from 0 to 0, found 1 at position 2
      hint: leave the column out where the model has no such types
    ");
}

#[test]
fn every_refusal_names_row_and_column() {
    let named = |line: &str, mask: Option<&str>| {
        let file = written("t.jsonl", format!("{{\"input_ids\": [1]}}\n{line}\n"));
        let columns = TokenColumns::new("input_ids", mask.map(str::to_owned));
        file.error(read(&file, &columns))
    };
    let refusal = |line: &str| named(line, None);
    insta::assert_snapshot!(refusal(r#"{"input_ids": [1, 100]}"#), @r"
    t.jsonl: line 2: field `input_ids`: expected numbers from 0 to 99, found 100 at position 2
      hint: the ids are those of another model's tokenizer, or damaged
    ");
    insta::assert_snapshot!(refusal(r#"{"input_ids": [1, -1]}"#), @r"
    t.jsonl: line 2: field `input_ids`: expected numbers from 0 to 99, found -1 at position 2
      hint: the ids are those of another model's tokenizer, or damaged
    ");
    insta::assert_snapshot!(refusal(r#"{"input_ids": [1, 9223372036854775807]}"#), @r"
    t.jsonl: line 2: field `input_ids`: expected numbers from 0 to 99, found 9223372036854775807 at position 2
      hint: the ids are those of another model's tokenizer, or damaged
    ");
    insta::assert_snapshot!(refusal(r#"{"input_ids": [1, 2.5]}"#), @r#"
    t.jsonl: line 2: field `input_ids`: expected a list of integers, found 2.5 at position 2
      hint: a row looks like {"input_ids": [101, 7592, 102]}
    "#);
    insta::assert_snapshot!(refusal(r#"{"input_ids": [1, null]}"#), @r#"
    t.jsonl: line 2: field `input_ids`: expected a list of integers, found null at position 2
      hint: a row looks like {"input_ids": [101, 7592, 102]}
    "#);
    insta::assert_snapshot!(refusal(r#"{"input_ids": "1 2"}"#), @r#"
    t.jsonl: line 2: field `input_ids`: expected a list of integers, found a string
      hint: a row looks like {"input_ids": [101, 7592, 102]}
    "#);
    insta::assert_snapshot!(refusal(r#"{"input_ids": []}"#), @r"
    t.jsonl: line 2: field `input_ids`: expected at least one token, found an empty list
      hint: remove the row
    ");
    insta::assert_snapshot!(refusal(r#"{"input_ids": [1, 2, 3, 4, 5]}"#), @r"
    t.jsonl: line 2: field `input_ids`: expected at most 4 tokens, found 5
      hint: the model has no positions beyond that: tokenize with truncation
    ");
    insta::assert_snapshot!(refusal(r#"{"ids": [1], "label": 2}"#), @r"
    t.jsonl: line 2: expected a field `input_ids`, found `ids`, `label`
      hint: name the field with --input-ids-column, that of the mask with --attention-mask-column
    ");
    insta::assert_snapshot!(refusal(r#""text""#), @r"
    t.jsonl: line 2: expected a JSON object, found a string
      hint: every line is a row
    ");
    insta::assert_snapshot!(refusal(r#"{"input_ids": [1, 2], "attention_mask": [1, 1, 1]}"#), @r"
    t.jsonl: line 2: field `attention_mask`: expected 2 numbers, one for each token id, found 3
      hint: ids, mask and types of a row have one length
    ");
    insta::assert_snapshot!(refusal(r#"{"input_ids": [1, 2], "attention_mask": [1]}"#), @r"
    t.jsonl: line 2: field `attention_mask`: expected 2 numbers, one for each token id, found 1
      hint: ids, mask and types of a row have one length
    ");
    insta::assert_snapshot!(refusal(r#"{"input_ids": [1, 2], "attention_mask": [0, 0]}"#), @r"
    t.jsonl: line 2: field `attention_mask`: expected at least one token, found a mask of zeros only
      hint: remove the row
    ");
    insta::assert_snapshot!(refusal(r#"{"input_ids": [1, 2], "attention_mask": [2, 1]}"#), @r"
    t.jsonl: line 2: field `attention_mask`: expected 0 for padding and 1 for a token, found 2 at position 1
      hint: name the mask with --attention-mask-column
    ");
    insta::assert_snapshot!(refusal(r#"{"input_ids": [1, 2, 3, 4], "attention_mask": [0, 1, 0, 1]}"#), @r"
    t.jsonl: line 2: field `attention_mask`: expected zeros at the start and the end only, found 0 at position 3, between tokens
      hint: fewbit runs the tokens of a text without gaps: remove the row, or fill the gap
    ");
    insta::assert_snapshot!(refusal(r#"{"input_ids": [1, 2], "token_type_ids": [0]}"#), @r"
    t.jsonl: line 2: field `token_type_ids`: expected 2 numbers, one for each token id, found 1
      hint: ids, mask and types of a row have one length
    ");
    insta::assert_snapshot!(refusal(r#"{"input_ids": [1, 2], "token_type_ids": [0, 2]}"#), @r"
    t.jsonl: line 2: field `token_type_ids`: expected numbers from 0 to 1, found 2 at position 2
      hint: leave the column out where the model has no such types
    ");
    let mask = written("t.jsonl", r#"{"input_ids": [1], "attention_mask": [1]}"#);
    let columns = TokenColumns::new("input_ids", Some("mask".to_owned()));
    insta::assert_snapshot!(mask.error(read(&mask, &columns)), @r"
    t.jsonl: line 1: expected a field `mask`, found `input_ids`, `attention_mask`
      hint: name the field with --input-ids-column, that of the mask with --attention-mask-column
    ");
    assert!(
        named(r#"{"input_ids": [1]}"#, Some("mask")).contains("line 1: expected a field `mask`")
    );
}

#[test]
fn formats_without_lists_are_refused() {
    let columns = TokenColumns::new("input_ids", None);
    let lines = written("t.txt", "1 2 3\n");
    insta::assert_snapshot!(lines.error(read(&lines, &columns)), @r"
    t.txt: expected JSONL or Parquet, where tokenized rows are, found a file of lines
      hint: name the file *.jsonl, *.json or *.parquet
    ");
    let csv = written("t.csv", "input_ids\n\"[1, 2]\"\n");
    insta::assert_snapshot!(csv.error(read(&csv, &columns)), @r"
    t.csv: line 1: column `input_ids`: expected a list of integers, found a CSV file, whose cells hold one value each
      hint: write tokenized rows as JSONL or Parquet
    ");
}
