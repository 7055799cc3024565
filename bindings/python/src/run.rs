//! How long work runs: without the interpreter, with exceptions at its end, and stopped by Ctrl-C.

use crate::error::{exception, exception_of_panic};
use pyo3::prelude::*;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

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
        let told = Python::attach(|py| {
            py.check_signals()?;
            match &self.0 {
                Some(callable) => callable.call1(py, (done, total, what)).map(drop),
                None => Ok(()),
            }
        });
        if let Err(error) = told {
            // Not a panic: the hook that prints panics is not called.
            resume_unwind(Box::new(Stopped(error)));
        }
    }
}
