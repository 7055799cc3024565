//! What is drawn from files, and calibrations that are interrupted.

use std::path::PathBuf;

use fewbit_quantize::calibration::texts::{CalibrationFile, SampleSize};
use fewbit_quantize::calibration::tokens::TokenizedFile;
use fewbit_quantize::calibration::{
    CalibrationInput, CalibrationRun, CalibrationSamples, CalibrationStatistics, Calibrator,
    PartialCalibration,
};
use fewbit_quantize::observers::{AveragingConstant, KeptPercentage};
use fewbit_quantize::{Backend, ObserverKind, ObserverSettings, QuantizeError};

use crate::calibration::source;
use crate::tiny_bert::{Source, TinyBert};

/// What a draw of exactly as many gives.
fn sample(file: &CalibrationFile, samples: usize, seed: u64) -> Result<Vec<String>, QuantizeError> {
    let drawn = file.draw(SampleSize::Exactly(samples), seed)?;
    Ok(drawn.samples)
}

fn file(content: &[u8], name: &str, fields: &[&str]) -> (tempfile::TempDir, CalibrationFile) {
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join(name);
    std::fs::write(&path, content).unwrap();
    let fields: Vec<String> = fields.iter().map(|&field| field.to_owned()).collect();
    (directory, CalibrationFile::new(path, &fields))
}

#[test]
fn samples_are_drawn_from_lines_and_from_fields() {
    let lines: String = (0..1000).map(|index| format!("text {index}\r\n")).collect();
    let (_directory, lines) = file(format!("\u{feff}{lines}").as_bytes(), "texts.txt", &[]);
    let all = sample(&lines, 1000, 3).unwrap();
    assert_eq!((all[0].as_str(), all[999].as_str()), ("text 0", "text 999"));
    let some = sample(&lines, 100, 3).unwrap();
    assert_eq!(some, sample(&lines, 100, 3).unwrap());
    assert_ne!(some, sample(&lines, 100, 4).unwrap());
    let positions: Vec<usize> = some
        .iter()
        .map(|text| all.iter().position(|known| known == text).unwrap())
        .collect();
    assert!(positions.is_sorted());
    // The mean of 100 of 0..1000 is 499.5 with a deviation of 27: a draw of the first or of the last texts is far away.
    let mean = positions.iter().sum::<usize>() / 100;
    assert!((365..635).contains(&mean), "{mean}");

    let json = br#"{"a": "one", "b": "two"}
{"b": "four", "a": "three", "score": 1}"#;
    let (_directory, pairs) = file(json, "pairs.jsonl", &["a", "b"]);
    assert_eq!(
        sample(&pairs, 4, 0).unwrap(),
        ["one", "two", "three", "four"]
    );
}

#[test]
fn files_that_hold_less_than_they_should_are_refused() {
    let refused = |content: &[u8], name: &str, fields: &[&str]| {
        let (directory, file) = file(content, name, fields);
        let text = sample(&file, 2, 0).unwrap_err().to_string();
        text.replace(&directory.path().display().to_string(), "DIR")
    };
    insta::assert_snapshot!(refused(b"one\n", "t.txt", &[]), @r"
    DIR/t.txt: expected at least 2 texts, found 1
      hint: give a file of more texts, or ask for fewer samples
    ");
    insta::assert_snapshot!(refused(b"{\"a\": \"x\"}\n", "t.jsonl", &[]), @r"
    DIR/t.jsonl: line 1: expected a field `text`, found `a`
      hint: name the field that holds the text with --field
    ");
    for (content, expected) in [
        (&b"\xff\xfe\n"[..], "line 1: expected UTF-8"),
        (
            b"{\"text\": 3}\n",
            "field `text`: expected a string, found a number",
        ),
        (b"[1]\n", "found an array"),
        (
            b"{\"text\": \n",
            "line 1: expected one JSON string or object a line",
        ),
        (b"", "expected at least 2 texts, found 0"),
    ] {
        let text = refused(content, "t.jsonl", &[]);
        assert!(text.contains(expected), "{text}");
    }
    let (_directory, lines) = file(b"one\n", "t.txt", &[]);
    assert!(
        sample(&lines, 0, 0)
            .unwrap_err()
            .to_string()
            .contains("found 0 samples")
    );
    let absent = CalibrationFile::new("absent/texts.txt", &[]);
    assert!(
        sample(&absent, 1, 0)
            .unwrap_err()
            .to_string()
            .starts_with("absent/texts.txt: ")
    );
}

#[test]
fn texts_come_from_the_named_columns_of_csv() {
    let csv = b"score,first,second\n1,\"a, b\",c\n2,d,e\n";
    let (_directory, pairs) = file(csv, "pairs.csv", &["second", "first"]);
    assert_eq!(sample(&pairs, 4, 0).unwrap(), ["c", "a, b", "e", "d"]);
}

#[test]
fn blank_texts_are_passed_over_and_counted() {
    for (content, name) in [
        (&b"one\n\n  \t\ntwo\n"[..], "t.txt"),
        (
            b"{\"text\": \"one\"}\n\n{\"text\": \"\"}\n{\"text\": \" \"}\n\"two\"\n",
            "t.jsonl",
        ),
        (b"[\"one\", \"\", {\"text\": \"\\n\"}, \"two\"]", "t.json"),
        (b"text,b\none,1\n,2\n ,3\ntwo,4\n", "t.csv"),
        (b"text\tb\none\t1\n\t2\n \t3\ntwo\t4\n", "t.tsv"),
    ] {
        let (_directory, file) = file(content, name, &[]);
        let drawn = file.draw(SampleSize::UpTo(256), 0).unwrap();
        assert_eq!(drawn.samples, ["one", "two"], "{name}");
        assert_eq!((drawn.blank, drawn.seen), (2, 2), "{name}");
        // Blank ones do not make up the number that was asked for.
        let few = file
            .draw(SampleSize::Exactly(3), 0)
            .unwrap_err()
            .to_string();
        assert!(few.contains("expected at least 3 texts, found 2"), "{few}");
    }
    let (_directory, blank) = file(b"\n\n", "t.txt", &[]);
    let none = blank
        .draw(SampleSize::UpTo(256), 0)
        .unwrap_err()
        .to_string();
    assert!(
        none.contains("expected at least 1 texts, found 0"),
        "{none}"
    );
}

/// Rows of token ids beside a model.
fn tokens(source: &Source, name: &str, content: &str) -> PathBuf {
    let path = source.out(name);
    std::fs::write(&path, content).unwrap();
    path
}

fn observe(
    calibrator: &mut Calibrator,
    samples: &CalibrationSamples,
    range: std::ops::Range<usize>,
) {
    let batch = samples.batch(calibrator.encoder(), range).unwrap();
    calibrator.observe_batch(&batch).unwrap();
}

/// The ids that the tokenizer gives, padded, are the texts.
#[test]
fn tokenized_rows_give_the_statistics_of_their_texts() {
    let source = source(TinyBert::f32());
    let activation = Backend::Native.qconfig().activation();
    // [CLS] is 2, [SEP] 3, `a` 5.
    let rows = tokens(
        &source,
        "rows.jsonl",
        r#"{"input_ids": [2, 5, 6, 7, 3, 0, 0], "attention_mask": [1, 1, 1, 1, 1, 0, 0], "token_type_ids": [0, 0, 0, 0, 0, 0, 0]}
{"input_ids": [0, 2, 8, 9, 3], "attention_mask": [0, 1, 1, 1, 1]}
"#,
    );
    let input = CalibrationInput::detect(&rows).unwrap();
    let mut calibrator = Calibrator::prepare(&source.directory, activation).unwrap();
    let spec = calibrator.encoder().network().spec().clone();
    let samples = input.sample(2, 0, &spec).unwrap();
    observe(&mut calibrator, &samples, 0..2);
    let mut of_texts = Calibrator::prepare(&source.directory, activation).unwrap();
    of_texts.observe(&["a b c", "d e"]).unwrap();
    let statistics = calibrator.finish().unwrap();
    assert_eq!(statistics.tokens(), 9);
    assert_eq!(statistics, of_texts.finish().unwrap());

    let refused = |content: &str| {
        let path = tokens(&source, "bad.jsonl", content);
        let input = CalibrationInput::detect(&path).unwrap();
        let text = input.sample(1, 0, &spec).unwrap_err().to_string();
        text.replace(&path.display().to_string(), "bad.jsonl")
    };
    let ids = |ids: &str| refused(&format!("{{\"input_ids\": [{ids}]}}\n"));
    assert!(ids("2, 40, 3").contains(
        "line 1: field `input_ids`: expected numbers from 0 to 39, found 40 at position 2"
    ));
    assert!(ids(&["2"; 17].join(", ")).contains("expected at most 16 tokens, found 17"));
    assert!(
        refused("{\"input_ids\": [2], \"token_type_ids\": [2]}")
            .contains("`token_type_ids`: expected numbers from 0 to 1, found 2")
    );
    let few = input.sample(3, 0, &spec).unwrap_err().to_string();
    assert!(
        few.contains("rows.jsonl: expected at least 3 rows, found 2"),
        "{few}"
    );
}

#[test]
fn a_file_with_texts_and_ids_is_one_of_texts() {
    let source = source(TinyBert::f32());
    let detected =
        |content: &str| CalibrationInput::detect(&tokens(&source, "rows.jsonl", content)).unwrap();
    let both = detected("{\"text\": \"a\", \"input_ids\": [2, 3]}");
    assert_eq!(both.columns(), ["text"]);
    let ids = detected("\n{\"label\": 1, \"input_ids\": [2, 3]}");
    assert_eq!(
        ids.columns(),
        ["input_ids", "attention_mask", "token_type_ids"]
    );
    assert!(
        matches!(ids, CalibrationInput::Tokens(file) if file == TokenizedFile::new(source.out("rows.jsonl"), file.columns().clone()))
    );
    let neither = detected("{\"label\": 1}");
    assert_eq!(neither.columns(), ["text"]);
}

/// Every observer, as all of them are saved in full.
fn every_observer() -> Vec<ObserverSettings> {
    let kinds = [
        ObserverKind::MinMax,
        ObserverKind::MovingAverageMinMax {
            averaging_constant: AveragingConstant::default(),
        },
        ObserverKind::Histogram,
        ObserverKind::Percentile {
            percentile: KeptPercentage::default(),
        },
        ObserverKind::Mse,
        ObserverKind::Entropy,
    ];
    let rule = Backend::Native.qconfig().activation().rule();
    kinds
        .map(|kind| ObserverSettings::new(kind, rule).unwrap())
        .to_vec()
}

#[test]
fn a_resumed_calibration_gives_the_bits_of_one_that_was_not_interrupted() {
    let source = source(TinyBert::f32());
    let texts: String = ('a'..='t')
        .map(|letter| format!("{letter} b {letter} c\n"))
        .collect();
    let path = tokens(&source, "texts.txt", &texts);
    let input = CalibrationInput::detect(&path).unwrap();
    let partial = PartialCalibration::path_beside(&source.out("stats.json"));
    const BATCH: usize = 3;
    for settings in every_observer() {
        let prepare = || Calibrator::prepare(&source.directory, settings).unwrap();
        let spec = prepare().encoder().network().spec().clone();
        let samples = input.sample(14, 5, &spec).unwrap();
        let run = CalibrationRun::new(&input, &samples, 5, BATCH).unwrap();
        let mut whole = prepare();
        for start in (0..14).step_by(BATCH) {
            observe(&mut whole, &samples, start..14.min(start + BATCH));
            if start == 6 {
                PartialCalibration::write(&partial, &run, whole.statistics()).unwrap();
            }
        }
        let mut resumed = prepare();
        let read = PartialCalibration::read(&partial).unwrap();
        resumed
            .resume(read.statistics_of(&partial, &run).unwrap())
            .unwrap();
        assert_eq!(resumed.statistics().samples(), 9);
        for start in (9..14).step_by(BATCH) {
            observe(&mut resumed, &samples, start..14.min(start + BATCH));
        }
        let bytes = |statistics: CalibrationStatistics, name: &str| {
            statistics.write(source.out(name)).unwrap();
            std::fs::read(source.out(name)).unwrap()
        };
        let whole = bytes(whole.finish().unwrap(), "whole.json");
        assert!(
            whole == bytes(resumed.finish().unwrap(), "resumed.json"),
            "{settings:?}"
        );
    }
}

#[test]
fn a_run_is_resumed_with_its_own_file_and_flags_only() {
    let source = source(TinyBert::f32());
    let activation = Backend::Native.qconfig().activation();
    let partial = source.out("stats.json.partial");
    let run = |content: &str, name: &str, samples: usize, seed: u64, batch: usize| {
        let input = CalibrationInput::detect(&tokens(&source, name, content)).unwrap();
        let spec = fewbit_model::EncoderSpec::from_checkpoint(&source.open()).unwrap();
        let drawn = input.sample(samples, seed, &spec).unwrap();
        CalibrationRun::new(&input, &drawn, seed, batch).unwrap()
    };
    let first = run("a\nb\nc\nd\n", "t.txt", 4, 0, 2);
    let mut calibrator = Calibrator::prepare(&source.directory, activation).unwrap();
    calibrator.observe(&["a", "b"]).unwrap();
    PartialCalibration::write(&partial, &first, calibrator.statistics()).unwrap();
    let refusal = |run: &CalibrationRun| {
        let read = PartialCalibration::read(&partial).unwrap();
        let text = read.statistics_of(&partial, run).unwrap_err().to_string();
        text.replace(&partial.display().to_string(), "PARTIAL")
    };
    insta::assert_snapshot!(refusal(&run("a\nb\nc\nd\n", "u.txt", 4, 0, 2)), @r"
    PARTIAL: name of the calibration file: expected u.txt, found t.txt
      hint: give the flags and the file of the run that was interrupted, or remove the partial statistics to start again
    ");
    for (other, expected) in [
        (
            run("a\nb\nc\nde\n", "t.txt", 4, 0, 2),
            "size of the calibration file: expected 9 bytes, found 8 bytes",
        ),
        (
            run("a\nb\nc\nd\n", "t.txt", 3, 0, 2),
            "number of samples: expected 3, found 4",
        ),
        (
            run("a\nb\nc\nd\n", "t.txt", 4, 1, 2),
            "seed: expected 1, found 0",
        ),
        (
            run("a\nb\nc\nd\n", "t.txt", 4, 0, 3),
            "batch size: expected 3, found 2",
        ),
        (
            run("a\nb\nc\ne\n", "t.txt", 4, 0, 2),
            "SHA-256 of the samples: expected ",
        ),
    ] {
        let text = refusal(&other);
        assert!(text.contains(expected), "{text}");
    }
    let read = || PartialCalibration::read(&partial);
    let mut other = TinyBert::f32();
    other.poke("bert.encoder.layer.1.output.dense.weight", 0, 0.75);
    let other = self::source(other);
    let mut of_another = Calibrator::prepare(&other.directory, activation).unwrap();
    let statistics = read().unwrap().statistics_of(&partial, &first).unwrap();
    let text = of_another.resume(statistics).unwrap_err().to_string();
    assert!(text.starts_with("statistics: model: expected "), "{text}");

    calibrator.observe(&["c"]).unwrap();
    PartialCalibration::write(&partial, &first, calibrator.statistics()).unwrap();
    let text = refusal(&first);
    assert!(
        text.contains("PARTIAL: samples seen: expected whole batches of 4, found 3"),
        "{text}"
    );
    let json = std::fs::read_to_string(&partial).unwrap();
    std::fs::write(&partial, &json[..json.len() / 2]).unwrap();
    let text = read().unwrap_err().to_string();
    assert!(
        text.contains("stats.json.partial: expected partial statistics"),
        "{text}"
    );
    assert!(matches!(
        PartialCalibration::read(&source.out("none")),
        Err(QuantizeError::Io { .. })
    ));
}
