//! Models that answer with what a script says, and note what they are asked for.

use crate::tiny_model::tiny_bert;
use fewbit::evaluate::{BatchShape, ShapeRequest, StageProfile, TextPass, TextRequest};
use fewbit::measure::{Memory, ModelHost, ModelOutput, OpenFacts, OpenModel};
use fewbit::model::WeightOnlyArithmetic;
use fewbit::{Embeddings, Error};
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;

/// Opens models that have the files of the tiny BERT and are called by the last part of their directory.
#[derive(Clone)]
pub(crate) struct ScriptedHost {
    /// What was asked of which model, in order.
    log: Rc<RefCell<Vec<String>>>,
    /// What models are to be opened with.
    pub(crate) weight_only: Option<WeightOnlyArithmetic>,
    /// Seconds of a call, by the model's name, what it is asked for, and how often it was asked for that before.
    pub(crate) seconds: fn(&str, &str, usize) -> f64,
    /// What every text is embedded as, by the model's name.
    pub(crate) embedding: fn(&str) -> [f32; 2],
    /// Peak memory of a model's process, by how often it was asked for before.
    pub(crate) peak: fn(usize) -> Option<u64>,
    /// How often each model was opened.
    opened: Rc<RefCell<HashMap<String, usize>>>,
    /// Names of models, and what they cannot do.
    pub(crate) refused: Vec<(&'static str, &'static str)>,
}

impl ScriptedHost {
    pub(crate) fn new(seconds: fn(&str, &str, usize) -> f64) -> Self {
        ScriptedHost {
            log: Rc::default(),
            weight_only: None,
            seconds,
            embedding: |_| [1.0, 0.0],
            peak: |_| None,
            opened: Rc::default(),
            refused: Vec::new(),
        }
    }

    /// `NAME WHAT` of everything that models were asked for.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.log.borrow().clone()
    }
}

impl ModelHost for ScriptedHost {
    fn open(
        &mut self,
        directory: &Path,
        weight_only: Option<WeightOnlyArithmetic>,
        _: ModelOutput,
    ) -> Result<Box<dyn OpenModel>, Error> {
        assert_eq!(weight_only, self.weight_only);
        let name = directory.file_name().unwrap().to_string_lossy();
        let mut opened = self.opened.borrow_mut();
        let before = opened.entry(name.clone().into_owned()).or_default();
        let load_seconds = (self.seconds)(&name, "open", *before);
        *before += 1;
        Ok(Box::new(ScriptedModel {
            facts: OpenFacts {
                checkpoint_directory: tiny_bert(),
                arithmetic: "f32".to_owned(),
                load_seconds,
            },
            name: name.into_owned(),
            host: self.clone(),
            peaks: 0,
        }))
    }
}

struct ScriptedModel {
    name: String,
    host: ScriptedHost,
    facts: OpenFacts,
    peaks: usize,
}

impl ScriptedModel {
    /// Notes what it is asked for and gives the seconds that it takes.
    fn ask(&self, what: &str) -> Result<f64, Error> {
        let mut log = self.host.log.borrow_mut();
        let line = format!("{} {what}", self.name);
        let before = log.iter().filter(|known| **known == line).count();
        log.push(line);
        if self.host.refused.contains(&(&self.name, what)) {
            return Err(Error::Measure(format!("cannot do: {what}")));
        }
        Ok((self.host.seconds)(&self.name, what, before))
    }
}

impl OpenModel for ScriptedModel {
    fn facts(&self) -> &OpenFacts {
        &self.facts
    }

    fn encode(&mut self, request: &TextRequest) -> Result<Embeddings, Error> {
        self.ask("encode")?;
        Ok(Embeddings {
            rows: request.texts.len(),
            columns: 2,
            values: (self.host.embedding)(&self.name).repeat(request.texts.len()),
            truncated: Vec::new(),
            tokens: 30,
        })
    }

    fn time_texts(&mut self, request: &TextRequest) -> Result<TextPass, Error> {
        let TextRequest {
            order,
            batch_size,
            threads,
            ..
        } = request;
        let seconds = self.ask(&format!("texts by {batch_size} {order:?} on {threads}"))?;
        Ok(TextPass {
            call_seconds: vec![seconds / 2.0; 2],
            tokens: 30,
            truncated: 0,
        })
    }

    fn time_shape(&mut self, request: &ShapeRequest) -> Result<Vec<f64>, Error> {
        let ShapeRequest {
            shape: BatchShape { batch, tokens },
            threads,
            minimum_seconds,
            warm_up,
        } = request;
        assert_eq!(*minimum_seconds, 3.0);
        let warm_up = if *warm_up { " after a warm-up" } else { "" };
        let seconds = self.ask(&format!("{batch}x{tokens} on {threads}{warm_up}"))?;
        Ok(vec![seconds; 2])
    }

    fn multiply_adds_per_second(&mut self) -> Result<f64, Error> {
        // The best one is seen at the second shape.
        self.peaks += 1;
        Ok(if self.peaks == 2 { 4e6 } else { 1e6 })
    }

    fn profile(&mut self, _: BatchShape, minimum_seconds: f64) -> Result<StageProfile, Error> {
        self.ask("profile")?;
        Ok(StageProfile {
            stages: Vec::new(),
            other_milliseconds: 0.0,
            whole_milliseconds: minimum_seconds,
            calls: 1,
        })
    }

    fn memory(&mut self) -> Result<Memory, Error> {
        let line = format!("{} memory", self.name);
        let asked = self.host.asked();
        let before = asked.iter().filter(|known| **known == line).count();
        self.ask("memory")?;
        Ok(Memory {
            weight_memory_bytes: 1,
            scratch_bytes: 2,
            peak_resident_bytes: (self.host.peak)(before),
        })
    }
}
