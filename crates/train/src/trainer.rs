//! Training from the first step to the written model.

use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::backprop::GradStore;
use fewbit_kernels::Kernels;
use fewbit_model::{
    Encoder, HeadSpec, Labels, ModelError, RaggedBatch, in_shared_pool, open_checkpoint,
};
use fewbit_quantize::calibration::CalibrationSamples;
use fewbit_quantize::{GptqCalibration, OutputOptions, PlannedConversion, QuantizeReport, Recipe};
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use serde::Serialize;
use serde_json::json;

use crate::encoder::read_head;
use crate::held_out::{Agreement, HeldOut};
use crate::loss::{PoolingWeights, distillation_loss, logit_loss};
use crate::sample_order::SampleOrder;
use crate::saved_training::{Course, SavedTraining};
use crate::student::{Gradients, Leaves, Student};
use crate::teacher::TeacherStates;
use crate::weight_gradients::ProductRecord;
use crate::weights::Weights;
use crate::{
    DifferentiableEncoder, LogitAgreement, LogitMeasure, Parameters, TrainError, TrainingOptions,
    start,
};

/// Texts of a batch that have a tape of their own: what threads take, the same whatever their number.
const TEXTS_OF_A_PART: usize = 4;

/// Parts whose gradients of weights are computed together, when the last of them is done: the more rows, the faster is a product. Until then what the products of these parts read and
/// the gradients of what they gave stay in memory.
const PARTS_OF_A_GROUP: usize = 4;

/// Gradients longer than this, all tensors together, are shortened to it.
const LONGEST_GRADIENT: f64 = 1.0;

/// By how much of the way the average of the weights follows them in a step. Single weights swing between two codes while the learning rate is high; their average does not (Nagel et al. 2022,
/// "Overcoming Oscillations in Quantization-Aware Training", arXiv:2203.11086, shows the swings), and it is what is measured and written.
const AVERAGING_SHARE: f32 = 0.02;

/// What is known after a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainingProgress {
    /// Steps that are done.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
    /// The loss of the last step; none before the first.
    pub loss: Option<f64>,
    /// The mean cosine of embeddings to those of the float model on held-out texts when it was last measured; none while the model to begin with is quantized.
    pub cosine: Option<f64>,
    /// How near logits were to those of the float model there; none of a model without a head.
    pub logits: Option<LogitAgreement>,
}

impl TrainingProgress {
    /// The loss, and what held-out texts are judged by, in words; none while the model to begin with is quantized.
    pub fn in_words(&self) -> Option<String> {
        let held_out = self.held_out()?;
        Some(match self.loss {
            Some(loss) => format!("loss {loss:.5}, {held_out}"),
            None => held_out,
        })
    }

    fn held_out(&self) -> Option<String> {
        let cosine = self.cosine?;
        let Some(logits) = &self.logits else {
            return Some(format!("held-out cosine {cosine:.5}"));
        };
        let measure = match logits.measure {
            LogitMeasure::KullbackLeibler => "KL",
            LogitMeasure::RelativeSquaredDistance => "squared distance",
        };
        let same = logits.same_answers.map_or_else(String::new, |share| {
            format!(", same answers {:.1}%", 100.0 * share)
        });
        Some(format!("held-out {measure} {:.5}{same}", logits.distance))
    }
}

/// Why training ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainingEnd {
    /// All steps are done.
    AllSteps,
    /// Held-out texts showed no gain any more.
    NoGain,
    /// Loss or gradients were infinite or NaN; what was best before is kept.
    NotFinite,
}

/// What a training did.
#[derive(Debug, Clone, Serialize)]
pub struct TrainingReport {
    /// The written model.
    #[serde(flatten)]
    pub quantization: QuantizeReport,
    /// Steps that were done.
    pub steps: usize,
    /// The step whose weights were written, the one that was best on held-out texts; 0: those before training.
    pub best_step: usize,
    /// Texts that were trained on.
    pub trained_texts: usize,
    /// Texts that were held out.
    pub held_out_texts: usize,
    /// Mean cosine of the embeddings to those of the float model on held-out texts, before training.
    pub cosine_before: f64,
    /// The same of the weights that were written.
    pub cosine_after: f64,
    /// How near the logits of a model with a head are to those of the float model on held-out texts, before training. The best weights are those that are nearest by it; of
    /// a model without a head, by the cosine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logits_before: Option<LogitAgreement>,
    /// The same of the weights that were written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logits_after: Option<LogitAgreement>,
    /// Why it ended.
    pub end: TrainingEnd,
    /// Seconds of training, without those of a run that was interrupted.
    pub training_seconds: f64,
}

/// Trains the model in `source` to be like itself when it is quantized as `recipe` says, on unlabelled samples, and writes it to `out`: the directory that
/// [`quantize_model`](fewbit_quantize::quantize_model) would write, with the codes and scales of the last forward pass of the student that was best on held-out samples.
///
/// The student begins with what GPTQ makes of the weights, the teacher is the float model. Everything but tables is trained, with a head for texts or
/// tokens (classification, question answering) the head and its pooler, too. While it runs, what is needed to go on lies in
/// `OUT.training`; [`resume`](OutputOptions::resume) goes on from there, to the same bits.
///
/// # Errors
/// Options out of range; fewer samples than a batch and one to hold out; a head whose tensors are missing or have other shapes than config.json says; a recipe with layers in a form that is not trained; a model that the executor does not run; those of a conversion.
pub fn train_model(
    source: impl AsRef<Path>,
    recipe: &Recipe,
    samples: &CalibrationSamples,
    options: &TrainingOptions,
    out: impl AsRef<Path>,
    output: &OutputOptions,
    progress: &mut (dyn FnMut(TrainingProgress) + Send),
) -> Result<TrainingReport, TrainError> {
    let (source, out) = (source.as_ref(), out.as_ref());
    options.check(samples.len())?;
    let written = start::written_recipe(recipe)?;
    PlannedConversion::new(source, &written)?.check_output(out, output.force)?;
    let head = start::trained_head(source)?;
    let run = json!({
        "model": start::fingerprint(source, head.as_ref())?,
        "recipe": written.to_toml(),
        "data": samples.digest(),
        "options": options.what_counts(),
    });
    let saved = SavedTraining::beside(out, &run, output.resume)?;
    let model = (source, head.as_ref());
    let trainer = Trainer::new(model, recipe, samples, options, &saved, progress);
    let mut kept = None;
    let trained = trainer.and_then(|trainer| {
        kept = Some(saved.kept());
        let trained = in_shared_pool(options.threads, || trainer.run(&saved, progress))??;
        Ok((trainer.order, trained))
    });
    let (order, trained) = match trained {
        Ok(trained) => trained,
        Err(error) => {
            saved.remove_unless_a_step_is_saved()?;
            return Err(error);
        }
    };
    // In threads of this process: those that rayon makes for all are not there in a child that was forked.
    let conversion = in_shared_pool(options.threads, || {
        trained.student.conversion(source, &written)
    })??;
    let quantization = conversion.write(None, out, output, &mut |_, _, _| {})?;
    saved.remove()?;
    drop(kept);
    Ok(TrainingReport {
        quantization,
        steps: trained.course.steps,
        best_step: trained.course.best_step,
        trained_texts: order.trained(),
        held_out_texts: order.held_out().len(),
        cosine_before: trained.course.first.cosine,
        cosine_after: trained.course.best.cosine,
        logits_before: trained.course.first.logits,
        logits_after: trained.course.best.logits,
        end: trained.end,
        training_seconds: trained.seconds,
    })
}

/// A model, its student and what they read.
struct Trainer<'a> {
    teacher: Encoder,
    /// The parameters of the teacher's head; empty where there is none.
    teacher_head: Parameters,
    model: DifferentiableEncoder,
    samples: &'a CalibrationSamples,
    order: SampleOrder,
    options: &'a TrainingOptions,
    kernels: &'static Kernels,
    source: PathBuf,
    held_out: HeldOut,
}

/// What came out.
struct Trained {
    /// The best one.
    student: Student,
    course: Course,
    end: TrainingEnd,
    seconds: f64,
}

impl<'a> Trainer<'a> {
    fn new(
        (source, head): (&Path, Option<&(HeadSpec, Labels)>),
        recipe: &Recipe,
        samples: &'a CalibrationSamples,
        options: &'a TrainingOptions,
        saved: &SavedTraining,
        progress: &mut (dyn FnMut(TrainingProgress) + Send),
    ) -> Result<Self, TrainError> {
        let start = saved.start();
        let mut teacher_head = Parameters::default();
        if let Some((head, _)) = head {
            for (name, values) in read_head(head, &open_checkpoint(source)?)? {
                teacher_head.insert(name, values);
            }
            teacher_head.pack()?;
        }
        let order = SampleOrder::new(samples.len(), options.batch_size, options.seed);
        if !start.exists() {
            let calibration =
                GptqCalibration::new(start::calibration_samples(samples, &order), options.threads);
            let output = OutputOptions::with_force(true);
            let beginning = TrainingProgress {
                step: 0,
                steps: options.steps,
                loss: None,
                cosine: None,
                logits: None,
            };
            PlannedConversion::new(source, &start::recipe_to_begin_with(recipe)?)?.write(
                Some(&calibration),
                &start,
                &output,
                &mut |_, _, _| progress(beginning),
            )?;
        }
        let teacher = Encoder::open(source)?;
        let checkpoint = open_checkpoint(&start)?;
        let kernels =
            Kernels::from_environment().map_err(|error| ModelError::Input(error.to_string()))?;
        let mut model = DifferentiableEncoder::new(&checkpoint)?;
        if let Some((head, _)) = head {
            model = model.with_head(head.clone(), &checkpoint)?;
        }
        let mut trainer = Self {
            model,
            order,
            source: teacher.checkpoint_directory().to_owned(),
            teacher,
            teacher_head,
            samples,
            options,
            kernels,
            held_out: HeldOut::default(),
        };
        trainer.held_out = in_shared_pool(options.threads, || {
            HeldOut::new(
                trainer.parts(trainer.order.held_out())?,
                trainer.teacher.pooling(),
                head.map(|(head, labels)| (head, labels)),
                |batch| trainer.teacher_states(batch),
            )
        })??;
        Ok(trainer)
    }

    /// What the teacher makes of a batch.
    fn teacher_states(&self, batch: &RaggedBatch) -> Result<TeacherStates, TrainError> {
        let states = TeacherStates::of(self.teacher.network(), batch)?;
        states.with_logits(&self.model, &self.teacher_head, batch)
    }

    /// The samples of these numbers, cut into parts of about as many tokens each.
    fn parts(&self, numbers: &[usize]) -> Result<Vec<RaggedBatch>, TrainError> {
        let texts = numbers.iter().map(|&number| {
            let batch = self.samples.batch(&self.teacher, number..number + 1)?;
            Ok((batch.token_ids, batch.token_type_ids))
        });
        let mut texts: Vec<(Vec<u32>, Vec<u32>)> = texts.collect::<Result<_, TrainError>>()?;
        texts.sort_by_key(|(ids, _)| ids.len());
        let parts = texts.len().div_ceil(TEXTS_OF_A_PART);
        let mut batches = vec![RaggedBatch::new(); parts];
        for (index, (ids, types)) in texts.iter().enumerate() {
            batches[index % parts].push(ids, types);
        }
        Ok(batches)
    }

    fn run(
        &self,
        saved: &SavedTraining,
        progress: &mut (dyn FnMut(TrainingProgress) + Send),
    ) -> Result<Trained, TrainError> {
        let began = Instant::now();
        if self.options.threads * TEXTS_OF_A_PART <= self.options.batch_size {
            // Every thread has parts of its own: to split the products of a part once more would only let threads wait for each other. It changes no bit.
            gemm::set_threading_threshold(usize::MAX);
        }
        let source = open_checkpoint(&self.source)?;
        let start = open_checkpoint(saved.start())?;
        let mut student = Student::new(&self.model, &source, &start)?;
        let (mut average, mut best, mut course) = match saved.load(&mut student)? {
            Some(found) => found,
            None => {
                let first = self.agreement(&student)?;
                let course = Course {
                    steps: 0,
                    best_step: 0,
                    best: first,
                    first,
                };
                let weights = Weights::of(&student);
                (weights.clone(), weights, course)
            }
        };
        let mut shown = TrainingProgress {
            step: course.steps,
            steps: self.options.steps,
            loss: None,
            cosine: Some(course.best.cosine),
            logits: course.best.logits,
        };
        progress(shown);
        let mut batches = self.order.batches();
        let interval = self.options.evaluation_interval;
        let patience = interval.saturating_mul(self.options.patience);
        let mut end = TrainingEnd::AllSteps;
        while course.steps < self.options.steps {
            if course.steps >= course.best_step.saturating_add(patience) {
                end = TrainingEnd::NoGain;
                break;
            }
            let batch = batches.of_step(course.steps);
            let Some(loss) = self.step(&mut student, batch, course.steps)? else {
                end = TrainingEnd::NotFinite;
                break;
            };
            average.follow(&student, AVERAGING_SHARE);
            course.steps += 1;
            shown.step = course.steps;
            shown.loss = Some(loss);
            if course.steps.is_multiple_of(interval) || course.steps == self.options.steps {
                average.exchange(&mut student);
                let found = self.agreement(&student);
                average.exchange(&mut student);
                let found = found?;
                (shown.cosine, shown.logits) = (Some(found.cosine), found.logits);
                if found.is_better_than(&course.best) {
                    course.best = found;
                    course.best_step = course.steps;
                    best.clone_from(&average);
                }
                tracing::info!(
                    step = course.steps,
                    loss,
                    cosine = found.cosine,
                    logits = found.logits.map(|logits| logits.distance),
                    "held-out texts"
                );
                saved.save(&student, &average, &best, &course)?;
            }
            progress(shown);
        }
        best.exchange(&mut student);
        Ok(Trained {
            student,
            course,
            end,
            seconds: began.elapsed().as_secs_f64(),
        })
    }

    /// One step of the optimizer. Returns the loss; none, and nothing changed, if it or a gradient is not finite.
    fn step(
        &self,
        student: &mut Student,
        batch: &[usize],
        step: usize,
    ) -> Result<Option<f64>, TrainError> {
        let parts = self.parts(batch)?;
        let leaves = match student.parameters(self.kernels) {
            Err(TrainError::NotFinite { .. }) => return Ok(None),
            leaves => leaves?,
        };
        let mut gradients = leaves.no_gradients();
        let mut loss = 0.0;
        for group in parts.chunks(PARTS_OF_A_GROUP) {
            let (mut tapes, mut records) = (Vec::new(), Vec::new());
            // As many tapes at a time as there are threads.
            for wave in group.chunks(self.options.threads) {
                let done = wave.par_iter();
                let done = done.map(|part| self.part(student, &leaves, part));
                let done: Vec<_> = done.collect::<Result<_, TrainError>>()?;
                for (of_part, tape, record) in done {
                    loss += of_part;
                    tapes.push(tape);
                    records.push(record);
                }
            }
            leaves.add_gradients(&tapes, &records, &mut gradients)?;
        }
        drop(leaves);
        student.pass_gradients(&mut gradients);
        let length = length(&gradients);
        if !loss.is_finite() || !length.is_finite() {
            return Ok(None);
        }
        let factor = (LONGEST_GRADIENT / length.max(f64::MIN_POSITIVE)).min(1.0);
        let has_head = self.held_out.logits().is_some();
        let rate = self.options.learning_rate(has_head) * self.options.rate_factor(step);
        student.update(&gradients, factor as f32, rate, step);
        Ok(Some(loss))
    }

    /// The loss of a part, its gradients, and what those of weights are made of.
    fn part(
        &self,
        student: &Student,
        leaves: &Leaves,
        part: &RaggedBatch,
    ) -> Result<(f64, GradStore, ProductRecord), TrainError> {
        let record = ProductRecord::default();
        let parameters = leaves.parameters.recorded_in(&record);
        let teacher = self.teacher_states(part)?;
        let inputs = student.inputs.with(&parameters);
        let states = self.model.hidden_states(&parameters, part, &inputs)?;
        let pooling = PoolingWeights::new(self.teacher.pooling(), part)?;
        let texts = self.options.batch_size;
        let mut loss = distillation_loss(&states, &teacher, &pooling, part, texts)?;
        if let (Some(last), Some(teacher), Some(comparison)) =
            (states.last(), &teacher.logits, self.held_out.logits())
            && let Some(logits) = self.model.logits(&parameters, part, last, &inputs)?
        {
            loss = (loss + logit_loss(comparison, &logits, teacher, part, texts)?)?;
        }
        let store = loss.backward()?;
        Ok((f64::from(loss.to_scalar::<f32>()?), store, record))
    }

    /// How near `student` is to its teacher on held-out texts.
    fn agreement(&self, student: &Student) -> Result<Agreement, TrainError> {
        self.held_out.agreement(&self.model, student, self.kernels)
    }
}

/// The Euclidean length of all gradients together.
fn length(gradients: &[Gradients]) -> f64 {
    let squares = gradients.par_iter().map(|gradients| {
        let values = gradients.values.iter().chain(&gradients.scales);
        values
            .map(|&value| f64::from(value) * f64::from(value))
            .sum::<f64>()
    });
    // In the order of the tensors, whatever the threads.
    let squares: Vec<f64> = squares.collect();
    squares.iter().sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests;
