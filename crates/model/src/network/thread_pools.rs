//! Threads that stay between calls.

use crate::ModelError;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::{Arc, Mutex, PoisonError};

/// The pool of the last number of threads asked for; calls that ask for another one make it anew.
#[derive(Default)]
pub(crate) struct ThreadPools(Mutex<Option<Arc<ThreadPool>>>);

impl ThreadPools {
    /// Runs `work` in a pool of `threads` threads.
    pub(crate) fn with<T: Send>(
        &self,
        threads: usize,
        work: impl FnOnce() -> T + Send,
    ) -> Result<T, ModelError> {
        Ok(self.get(threads)?.install(work))
    }

    fn get(&self, threads: usize) -> Result<Arc<ThreadPool>, ModelError> {
        // A pool is there or not, whatever panicked.
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = current.as_ref()
            && pool.current_num_threads() == threads
        {
            return Ok(Arc::clone(pool));
        }
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("fewbit-{index}"))
            .build()
            .map_err(|error| {
                ModelError::Input(format!(
                    "threads: {threads} cannot be started: {error}\n  hint: ask for fewer"
                ))
            })?;
        Ok(Arc::clone(current.insert(Arc::new(pool))))
    }
}
