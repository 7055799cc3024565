//! Reading texts from a file or standard input.

use crate::arguments::TextFormat;
use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use std::io::{IsTerminal, Read};
use std::path::Path;

/// Name of the field of a JSONL object that holds the text, unless the user names another.
pub(crate) const DEFAULT_FIELD: &str = "text";

/// What `-i` names, read to its end and split into texts.
///
/// # Errors
/// The file cannot be read; a line is not UTF-8; a JSONL line is not a string or an object with the field. Each
/// error names the file and the line.
pub(crate) fn read(
    path: &Path,
    format: Option<TextFormat>,
    field: Option<&str>,
) -> Result<Vec<String>> {
    let (bytes, place) = if path == Path::new("-") {
        let mut bytes = Vec::new();
        if std::io::stdin().is_terminal() {
            crate::streams::note(
                "reading texts from standard input, one a line; end with Ctrl-D\n",
            );
        }
        std::io::stdin()
            .lock()
            .read_to_end(&mut bytes)
            .context("cannot read standard input")?;
        (bytes, "standard input".to_owned())
    } else {
        let bytes = std::fs::read(path)
            .with_context(|| format!("{}: cannot read the texts\n  hint: -i names a file of texts, or is - for standard input", path.display()))?;
        (bytes, path.display().to_string())
    };
    let format = format.unwrap_or_else(|| default_format(path, field));
    split(&bytes, format, field, &place)
}

fn default_format(path: &Path, field: Option<&str>) -> TextFormat {
    let extension = path
        .extension()
        .and_then(|extension| extension.to_str())
        .map(str::to_ascii_lowercase);
    if field.is_some() || matches!(extension.as_deref(), Some("jsonl" | "ndjson")) {
        TextFormat::Jsonl
    } else {
        TextFormat::Lines
    }
}

/// Splits at LF, drops one CR before it; a line end at the very end starts no further line. A byte order mark at the
/// start is dropped. An empty line is a text among lines, and nothing in JSONL. `field` is the one that the user named.
fn split(
    bytes: &[u8],
    format: TextFormat,
    field: Option<&str>,
    place: &str,
) -> Result<Vec<String>> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    body.split(|&byte| byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .enumerate()
        .filter(|(_, line)| format == TextFormat::Lines || !line.trim_ascii().is_empty())
        .map(|(index, line)| {
            let text = std::str::from_utf8(line).map_err(|error| {
                anyhow!(
                    "{place}: line {}: expected UTF-8, found the byte 0x{:02x} at byte {} of the line\n  hint: convert the file to UTF-8, for instance with iconv",
                    index + 1,
                    line[error.valid_up_to()],
                    error.valid_up_to() + 1
                )
            })?;
            match format {
                TextFormat::Lines => Ok(text.to_owned()),
                TextFormat::Jsonl => json_text(text, field)
                    .map_err(|error| anyhow!("{place}: line {}: {error}", index + 1)),
            }
        })
        .collect()
}

fn json_text(line: &str, named_field: Option<&str>) -> Result<String> {
    let value: Value =
        serde_json::from_str(line).map_err(|error| not_json(&error, line, named_field))?;
    let field = named_field.unwrap_or(DEFAULT_FIELD);
    match value {
        Value::String(text) => Ok(text),
        Value::Object(mut object) => match object.remove(field) {
            Some(Value::String(text)) => Ok(text),
            Some(other) => bail!("field `{field}`: expected a string, found {}", kind(&other)),
            None => {
                let names: Vec<&str> = object.keys().map(String::as_str).collect();
                bail!(
                    "expected a field `{field}`, found {}\n  hint: name the field that holds the text with --field",
                    list(&names)
                )
            }
        },
        other => bail!("expected a JSON string or object, found {}", kind(&other)),
    }
}

/// The parser's message with the column only: the line of the file is told by the caller.
fn not_json(error: &serde_json::Error, line: &str, named_field: Option<&str>) -> anyhow::Error {
    let whole = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    let what = whole.strip_suffix(&position).unwrap_or(&whole);
    let plain_text = named_field.is_none() && !line.trim_start().starts_with(['{', '[', '"']);
    let hint = if plain_text {
        "\n  hint: use --input-format lines for plain text"
    } else {
        ""
    };
    anyhow!(
        "expected one JSON string or object a line, found: {what} at column {}{hint}",
        error.column()
    )
}

fn list(names: &[&str]) -> String {
    if names.is_empty() {
        "an empty object".to_owned()
    } else {
        format!("`{}`", names.join("`, `"))
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<String> {
        split(bytes, TextFormat::Lines, None, "t.txt").unwrap()
    }

    fn failure(bytes: &[u8], format: TextFormat, field: Option<&str>) -> String {
        format!("{:#}", split(bytes, format, field, "t").unwrap_err())
    }

    #[test]
    fn empty_lines_are_texts_and_the_last_line_end_is_not() {
        assert_eq!(lines(b""), Vec::<String>::new());
        assert_eq!(lines(b"\n"), [""]);
        assert_eq!(lines(b"a\n\nb"), ["a", "", "b"]);
        assert_eq!(lines(b"a\r\n\r\nb\r\n"), ["a", "", "b"]);
        assert_eq!(lines(b"\xef\xbb\xbfa\n"), ["a"]);
        assert_eq!(lines("ভাষা \r \n".as_bytes()), ["ভাষা \r "]);
    }

    #[test]
    fn jsonl_takes_strings_and_objects() {
        let texts = split(
            b"{\"text\": \"a\\nb\", \"id\": 1}\r\n\"c\"\n",
            TextFormat::Jsonl,
            None,
            "t",
        )
        .unwrap();
        assert_eq!(texts, ["a\nb", "c"]);
    }

    #[test]
    fn every_refusal_names_its_line() {
        assert_eq!(
            failure(b"ok\nab\xffc\n", TextFormat::Lines, None),
            "t: line 2: expected UTF-8, found the byte 0xff at byte 3 of the line\n  hint: convert the file to UTF-8, for instance with iconv"
        );
        assert_eq!(
            failure(b"{\"sentence\": \"a\", \"id\": 3}", TextFormat::Jsonl, None),
            "t: line 1: expected a field `text`, found `sentence`, `id`\n  hint: name the field that holds the text with --field"
        );
        assert_eq!(
            failure(b"\"a\"\n{\"text\": 3}", TextFormat::Jsonl, None),
            "t: line 2: field `text`: expected a string, found a number"
        );
        assert_eq!(
            failure(b"\"a\"\n[]", TextFormat::Jsonl, None),
            "t: line 2: expected a JSON string or object, found an array"
        );
        let plain_text = "t: line 3: expected one JSON string or object a line, found: expected value at column 1";
        assert_eq!(
            failure(b"\"a\"\n\nb", TextFormat::Jsonl, None),
            format!("{plain_text}\n  hint: use --input-format lines for plain text")
        );
        assert_eq!(
            failure(b"\"a\"\n\nb", TextFormat::Jsonl, Some("body")),
            plain_text
        );
        assert_eq!(
            failure(b"{\"text\": \"a", TextFormat::Jsonl, None),
            "t: line 1: expected one JSON string or object a line, found: EOF while parsing a string at column 11"
        );
    }
}
