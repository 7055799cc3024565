//! How long work runs: without the interpreter, with exceptions at its end, and stopped by Ctrl-C.

use crate::error::{exception, exception_of_panic};
use pyo3::prelude::*;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

/// Runs `work` while other Python threads go on. An error, a panic and what [`Progress`] raised become exceptions.
pub(crate) fn run<T: Send, E: Display + Send>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, E> + Send,
) -> PyResult<T> {
    // Nothing that `work` had its hands on is looked at again after a panic: it is dropped, or owned by objects that no call changes.
    match py.detach(|| catch_unwind(AssertUnwindSafe(work))) {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(error)) => {
            // Ctrl-C ends the processes that work was waiting for, too.
            py.check_signals()?;
            Err(exception(error))
        }
        Err(panic) => Err(match panic.downcast::<Stopped>() {
            Ok(stopped) => stopped.0,
            Err(panic) => exception_of_panic(&*panic),
        }),
    }
}

/// What unwinds the work that an exception stops.
struct Stopped(PyErr);

/// What unwinds work on another thread that nobody waits for any more.
struct Abandoned;

/// How often it is looked for signals while work on another thread tells nothing.
const PATIENCE: Duration = Duration::from_millis(100);

/// Runs `work`, which tells its states from whatever thread it is on, and calls `tell` with them on this one: Python takes signals on its main thread alone, and a bar of progress belongs to
/// the thread that made it. What stops `tell`, or Ctrl-C in between, unwinds `work` when it tells something again.
pub(crate) fn run_beside<State: Send, T: Send, E: Send>(
    tell: impl Fn(State),
    work: impl FnOnce(&mut (dyn FnMut(State) + Send)) -> Result<T, E> + Send,
) -> Result<T, E> {
    thread::scope(|scope| {
        // Dropped before the scope waits for the thread, which finds out by that: it goes on only when it is answered.
        let (sender, states) = sync_channel(0);
        let (answer, answers) = sync_channel(1);
        let worker = scope.spawn(move || {
            work(&mut move |state| {
                if sender.send(state).is_err() || answers.recv().is_err() {
                    resume_unwind(Box::new(Abandoned));
                }
            })
        });
        loop {
            match states.recv_timeout(PATIENCE) {
                Ok(state) => {
                    tell(state);
                    // Whoever has told something waits for the answer.
                    answer.send(()).expect("a thread that waits");
                }
                Err(RecvTimeoutError::Timeout) => unless_stopped(|py| py.check_signals()),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        worker.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// What long work tells of its progress: a Python callable with (done, total, what), or nobody.
///
/// Telling it something is also where work can be stopped: by Ctrl-C, and by an exception of the callable. The work is unwound then, which
/// removes what it has written so far, as a panic would.
pub(crate) struct Progress(Option<Py<PyAny>>);

impl Progress {
    pub(crate) fn new(callable: Option<Py<PyAny>>) -> Self {
        Self(callable)
    }

    /// Says that `done` of `total` steps are done, the last of them `what`.
    pub(crate) fn tell(&self, done: usize, total: usize, what: &str) {
        unless_stopped(|py| {
            py.check_signals()?;
            match &self.0 {
                Some(callable) => callable.call1(py, (done, total, what)).map(drop),
                None => Ok(()),
            }
        });
    }
}

/// Unwinds the work if `ask` raises.
fn unless_stopped(ask: impl FnOnce(Python<'_>) -> PyResult<()>) {
    if let Err(error) = Python::attach(ask) {
        // Not a panic: the hook that prints panics is not called.
        resume_unwind(Box::new(Stopped(error)));
    }
}
