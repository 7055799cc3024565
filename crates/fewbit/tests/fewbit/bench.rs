//! What a benchmark makes of its measurements, with a host that answers with times of its own; and the real one.

use crate::scripted_host::ScriptedHost;
use crate::tiny_model::workspace;
use fewbit::bench::{BenchModel, BenchOptions, BenchReport, BenchStep, MAXIMUM_CALL_TOKENS, bench};
use fewbit::evaluate::{BatchShape, TextOrder};
use fewbit::measure::InProcess;
use fewbit::model::WeightOnlyArithmetic;
use std::path::Path;

/// Models whose calls take as many seconds as the number that they are called by.
fn host() -> ScriptedHost {
    let mut host = ScriptedHost::new(|name, _, _| name.parse().unwrap());
    host.weight_only = Some(WeightOnlyArithmetic::Floats);
    host
}

fn models(names: &[&str]) -> Vec<BenchModel> {
    names
        .iter()
        .map(|name| BenchModel::from_directory(Path::new("models").join(name)))
        .collect()
}

fn options() -> BenchOptions {
    BenchOptions {
        batches: vec![2],
        tokens: vec![4, 8],
        seconds: 6.0,
        rounds: 2,
        weight_only: Some(WeightOnlyArithmetic::Floats),
        ..BenchOptions::default()
    }
}

fn scripted(names: &[&str], options: &BenchOptions) -> (BenchReport, Vec<String>) {
    let mut host = host();
    let report = bench(&models(names), options, &mut host, &mut |_| {}).unwrap();
    (report, host.asked())
}

#[test]
fn rounds_visit_the_models_in_turn_and_memory_comes_before_texts() {
    let options = BenchOptions {
        tokens: vec![4],
        texts: Some(vec!["a".to_owned(); 3]),
        profile: true,
        ..options()
    };
    let (_, log) = scripted(&["0.5", "1"], &options);
    assert_eq!(
        log,
        [
            "0.5 texts by 32 ByLength on 1",
            "0.5 memory",
            "1 texts by 32 ByLength on 1",
            "1 memory",
            "1 texts by 32 ByLength on 1",
            "1 memory",
            "0.5 texts by 32 ByLength on 1",
            "0.5 memory",
            // 3 seconds a turn: a call of 0.5 is short against it, one of 1 is not.
            "0.5 2x4 on 1 after a warm-up",
            "1 2x4 on 1 after a warm-up",
            "1 2x4 on 1",
            "0.5 2x4 on 1 after a warm-up",
            "0.5 memory",
            "1 memory",
            "0.5 profile",
            "1 profile",
            "0.5 texts by 2 AsGiven on 1",
            "1 texts by 2 AsGiven on 1",
            "1 texts by 2 AsGiven on 1",
            "0.5 texts by 2 AsGiven on 1",
            "0.5 texts by 2 ByLength on 1",
            "1 texts by 2 ByLength on 1",
            "1 texts by 2 ByLength on 1",
            "0.5 texts by 2 ByLength on 1",
        ]
    );
}

/// No figure here is the first, the last, the least, the greatest or the mean of what was measured, but for the peak, which is the greatest.
#[test]
fn the_middle_of_all_rounds_counts_and_the_largest_peak() {
    let mut host = ScriptedHost::new(|_, what, before| match what {
        // First it is opened to be measured, then for each start.
        "open" => [9.0, 0.4, 0.1, 0.2][before],
        "2x4 on 1 after a warm-up" => 4.0,
        "2x4 on 1" => [2.0, 1.0][before],
        "texts by 2 AsGiven on 1" => [4.0, 2.0, 1.0][before],
        _ => 0.5,
    });
    host.weight_only = Some(WeightOnlyArithmetic::Floats);
    host.peak = |before| Some([7, 9, 8, 5][before.min(3)]);
    let options = BenchOptions {
        tokens: vec![4],
        // Three seconds a turn.
        seconds: 9.0,
        rounds: 3,
        texts: Some(vec!["a".to_owned(); 3]),
        ..options()
    };
    let report = bench(&models(&["1"]), &options, &mut host, &mut |_| {}).unwrap();
    let startup = &report.models[0].startup;
    assert_eq!(
        (startup.startups, startup.peak_resident_bytes),
        (3, Some(9))
    );
    assert_eq!(startup.load_milliseconds, 200.0);
    // Half a second for the text, each time.
    assert_eq!(startup.first_embedding_milliseconds, 700.0);
    let shape = &report.shapes[0].models[0];
    assert_eq!(shape.latency.median_milliseconds, 2000.0);
    assert_eq!(shape.texts_per_second, 1.0);
    assert_eq!(
        report.texts.unwrap().rows[0].models[0].texts_per_second,
        1.5
    );
}

#[test]
fn rates_ratios_and_shares_by_hand() {
    let (report, _) = scripted(
        &["0.5", "0.25"],
        &BenchOptions {
            texts: Some(vec!["a".to_owned(); 3]),
            threads: vec![2],
            ..options()
        },
    );
    let row = &report.shapes[0];
    assert_eq!(
        (row.shape, row.threads),
        (
            BatchShape {
                batch: 2,
                tokens: 4
            },
            2
        )
    );
    // Two layers of four 32 x 32 and two 32 x 44 matrices; attention of 4 x 4 pairs; two sequences.
    let multiply_adds = 2 * (4 * 2 * (4 * 1024 + 2 * 1408) + 2 * 2 * 16 * 32);
    for (result, seconds, times_faster) in [(&row.models[0], 0.5, 1.0), (&row.models[1], 0.25, 2.0)]
    {
        assert_eq!(result.multiply_adds, multiply_adds);
        assert_eq!(result.times_faster, times_faster);
        // Two calls a round, two rounds.
        assert_eq!(result.latency.calls, 4);
        assert_eq!(result.latency.median_milliseconds, 1e3 * seconds);
        assert_eq!(result.texts_per_second, 2.0 / seconds);
        assert_eq!(result.tokens_per_second, 8.0 / seconds);
        let rate = multiply_adds as f64 / seconds;
        assert_eq!(result.gmacs_per_second, rate / 1e9);
        // The best peak of all shapes, on two threads.
        assert_eq!(result.share_of_peak, rate / (2.0 * 4e6));
    }
    let model = &report.models[1];
    assert_eq!(model.peak_gmacs_per_second, 4e6 / 1e9);
    assert_eq!((model.stored_as.as_str(), &model.method), ("F32", &None));
    assert_eq!((model.model_type.as_str(), model.max_tokens), ("bert", 36));
    assert_eq!(model.startup.load_milliseconds, 250.0);
    assert_eq!(model.startup.first_embedding_milliseconds, 500.0);
    let texts = report.texts.unwrap();
    let orders: Vec<TextOrder> = texts.rows.iter().map(|row| row.order).collect();
    assert_eq!(orders, TextOrder::ALL);
    let second = &texts.rows[1].models[1];
    assert_eq!((second.texts_per_second, second.times_faster), (12.0, 2.0));
    assert_eq!((second.tokens_per_second, second.passes), (120.0, 2));
}

#[test]
fn as_many_steps_are_told_as_were_promised() {
    for (profile, texts) in [(false, None), (true, Some(vec!["a".to_owned()]))] {
        let options = BenchOptions {
            batches: vec![1, 2, 3],
            threads: vec![1, 2],
            tokens: vec![4],
            profile,
            texts,
            ..options()
        };
        let mut steps = Vec::new();
        bench(&models(&["1", "2"]), &options, &mut host(), &mut |step| {
            steps.push(format!("{step:?}"));
        })
        .unwrap();
        assert_eq!(steps.len(), options.steps(2), "{steps:?}");
        assert_eq!(steps[0], format!("{:?}", BenchStep::Opening("1")));
    }
}

#[test]
fn what_cannot_be_measured_is_refused_before_anything_is() {
    let refusal = |names: &[&str], options: &BenchOptions| {
        let mut host = host();
        let error = bench(&models(names), options, &mut host, &mut |_| {}).unwrap_err();
        assert!(host.asked().is_empty());
        error.to_string()
    };
    let with = |change: fn(&mut BenchOptions)| {
        let mut options = options();
        change(&mut options);
        refusal(&["1"], &options)
    };
    assert_eq!(
        refusal(&[], &options()),
        "models: expected at least one, found none"
    );
    assert_eq!(
        with(|options| options.batches.clear()),
        "batch: expected at least one number, found none"
    );
    assert_eq!(
        with(|options| options.tokens = vec![4, 0]),
        "tokens: expected numbers from 1 on, found 0"
    );
    assert_eq!(
        with(|options| options.threads = vec![2, 1, 2]),
        "threads: expected each number once, found 2 twice"
    );
    assert!(
        with(|options| options.threads = vec![1025])
            .starts_with("threads: expected a number of threads from 1 to 1024, found `1025`")
    );
    assert_eq!(
        with(|options| options.rounds = 0),
        "rounds: expected at least 1, found 0"
    );
    assert_eq!(
        with(|options| options.seconds = f64::NAN),
        "seconds: expected a number above 0, found NaN"
    );
    assert_eq!(
        with(|options| options.seconds = 0.0),
        "seconds: expected a number above 0, found 0"
    );
    let too_many = with(|options| options.batches = vec![MAXIMUM_CALL_TOKENS / 8 + 1]);
    assert!(
        too_many.starts_with("a batch of 131073 with 8 tokens each: expected at most 1048576 tokens in all, found 1048584\n  hint: "),
        "{too_many}"
    );
    assert!(
        with(|options| options.batches = vec![usize::MAX]).contains("expected at most 1048576")
    );
    assert_eq!(
        with(|options| options.tokens = vec![16, 37]),
        "1: tokens: expected at most 36, found 37\n  hint: this model has 36 positions; give other numbers with --tokens"
    );
}

#[test]
fn a_real_model_in_this_process() {
    let (_directory, model) = workspace();
    let options = BenchOptions {
        seconds: 0.001,
        texts: Some(vec!["a b".to_owned(), "a".to_owned()]),
        profile: true,
        ..options()
    };
    let models = [BenchModel::from_directory(model)];
    let report = bench(&models, &options, &mut InProcess, &mut |_| {}).unwrap();
    let result = &report.shapes[1].models[0];
    assert!(result.share_of_peak > 0.0 && result.share_of_peak.is_finite());
    assert!(result.latency.calls >= options.rounds);
    assert_eq!(report.profiles.len(), 2);
    assert_eq!(report.texts.unwrap().rows[0].models[0].tokens, 4 + 3);
    assert!(report.models[0].memory.weight_memory_bytes > 0);
}
