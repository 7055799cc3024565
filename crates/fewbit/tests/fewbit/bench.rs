//! What a benchmark makes of its measurements, with a host that answers with times of its own; and the real one.

use fewbit::bench::{BenchModel, BenchOptions, BenchReport, BenchStep, MAXIMUM_CALL_TOKENS, bench};
use fewbit::evaluate::{BatchShape, ShapeRequest, StageProfile, TextOrder, TextPass, TextRequest};
use fewbit::measure::{InProcess, Memory, ModelHost, OpenFacts, OpenModel};
use fewbit::model::WeightOnlyArithmetic;
use fewbit::{Embeddings, Error};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

fn tiny_bert() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden/architectures/bert")
}

/// What was asked of which model, in order.
type Log = Rc<RefCell<Vec<String>>>;

/// Models whose calls take as many seconds as the number that they are called by.
struct Scripted {
    log: Log,
}

struct ScriptedModel {
    name: String,
    log: Log,
    peaks: usize,
    facts: OpenFacts,
}

impl ScriptedModel {
    fn say(&self, what: &str) {
        self.log.borrow_mut().push(format!("{} {what}", self.name));
    }

    fn seconds(&self) -> f64 {
        self.facts.load_seconds
    }
}

impl ModelHost for Scripted {
    fn open(
        &mut self,
        directory: &Path,
        weight_only: Option<WeightOnlyArithmetic>,
    ) -> Result<Box<dyn OpenModel>, Error> {
        assert_eq!(weight_only, Some(WeightOnlyArithmetic::Floats));
        let name = directory.file_name().unwrap().to_string_lossy();
        Ok(Box::new(ScriptedModel {
            name: name.clone().into_owned(),
            log: self.log.clone(),
            peaks: 0,
            facts: OpenFacts {
                checkpoint_directory: tiny_bert(),
                arithmetic: "f32".to_owned(),
                load_seconds: name.parse().unwrap(),
            },
        }))
    }
}

impl OpenModel for ScriptedModel {
    fn facts(&self) -> &OpenFacts {
        &self.facts
    }

    fn encode(&mut self, _: &TextRequest) -> Result<Embeddings, Error> {
        panic!("a benchmark needs no embeddings")
    }

    fn time_shape(&mut self, request: &ShapeRequest) -> Result<Vec<f64>, Error> {
        let ShapeRequest {
            shape,
            threads,
            minimum_seconds,
            warm_up,
        } = *request;
        assert_eq!(minimum_seconds, 3.0);
        let warm_up = if warm_up { " after a warm-up" } else { "" };
        self.say(&format!(
            "{}x{} on {threads}{warm_up}",
            shape.batch, shape.tokens
        ));
        Ok(vec![self.seconds(); 2])
    }

    fn multiply_adds_per_second(&mut self) -> Result<f64, Error> {
        // The best one is seen at the second shape.
        self.peaks += 1;
        Ok(if self.peaks == 2 { 4e6 } else { 1e6 })
    }

    fn profile(&mut self, _: BatchShape, minimum_seconds: f64) -> Result<StageProfile, Error> {
        self.say("profile");
        Ok(StageProfile {
            stages: Vec::new(),
            other_milliseconds: 0.0,
            whole_milliseconds: minimum_seconds,
            calls: 1,
        })
    }

    fn time_texts(&mut self, request: &TextRequest) -> Result<TextPass, Error> {
        if request.texts[0] == "a" {
            self.say(&format!(
                "texts by {} {:?}",
                request.batch_size, request.order
            ));
        } else {
            self.say(&format!("first text on {}", request.threads));
        }
        Ok(TextPass {
            call_seconds: vec![self.seconds() / 2.0; 2],
            tokens: 30,
            truncated: 0,
        })
    }

    fn memory(&mut self) -> Result<Memory, Error> {
        self.say("memory");
        Ok(Memory {
            weight_memory_bytes: 1,
            scratch_bytes: 2,
            peak_resident_bytes: None,
        })
    }
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
    let log = Log::default();
    let mut host = Scripted { log: log.clone() };
    let report = bench(&models(names), options, &mut host, &mut |_| {}).unwrap();
    (report, log.take())
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
            "0.5 first text on 1",
            "0.5 memory",
            "1 first text on 1",
            "1 memory",
            "1 first text on 1",
            "1 memory",
            "0.5 first text on 1",
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
            "0.5 texts by 2 AsGiven",
            "1 texts by 2 AsGiven",
            "1 texts by 2 AsGiven",
            "0.5 texts by 2 AsGiven",
            "0.5 texts by 2 ByLength",
            "1 texts by 2 ByLength",
            "1 texts by 2 ByLength",
            "0.5 texts by 2 ByLength",
        ]
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
        let mut host = Scripted {
            log: Log::default(),
        };
        let mut steps = Vec::new();
        bench(&models(&["1", "2"]), &options, &mut host, &mut |step| {
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
        let log = Log::default();
        let mut host = Scripted { log: log.clone() };
        let error = bench(&models(names), options, &mut host, &mut |_| {}).unwrap_err();
        assert_eq!(log.take(), Vec::<String>::new());
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
    // The golden model with a tokenizer of three words.
    let directory = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(tiny_bert().join(file), directory.path().join(file)).unwrap();
    }
    let words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"];
    std::fs::write(directory.path().join("vocab.txt"), words.join("\n")).unwrap();
    let options = BenchOptions {
        seconds: 0.001,
        texts: Some(vec!["a b".to_owned(), "a".to_owned()]),
        profile: true,
        ..options()
    };
    let models = [BenchModel::from_directory(directory.path())];
    let report = bench(&models, &options, &mut InProcess, &mut |_| {}).unwrap();
    let result = &report.shapes[1].models[0];
    assert!(result.share_of_peak > 0.0 && result.share_of_peak.is_finite());
    assert!(result.latency.calls >= options.rounds);
    assert_eq!(report.profiles.len(), 2);
    assert_eq!(report.texts.unwrap().rows[0].models[0].tokens, 4 + 3);
    assert!(report.models[0].memory.weight_memory_bytes > 0);
}
