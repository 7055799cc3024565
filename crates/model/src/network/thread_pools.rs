//! Threads that stay between calls.

use crate::ModelError;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// The [rayon] pool of the last number of threads asked for; calls that ask for another one make it anew.
///
/// A process that forks goes on without the threads of its parent: the child makes a pool of its own.
#[derive(Default)]
pub(crate) struct ThreadPools(Mutex<Option<Owned>>);

/// The pool of work that has no model around it: layers by themselves, and weights that are quantized.
static SHARED: LazyLock<ThreadPools> = LazyLock::new(ThreadPools::default);

/// Runs `work` in the [rayon] pool of `threads` threads that all work without a model around it shares, and that outlives forks.
///
/// ```
/// assert_eq!(fewbit_model::in_shared_pool(2, rayon::current_num_threads)?, 2);
/// # Ok::<(), fewbit_model::ModelError>(())
/// ```
///
/// # Errors
/// [`ModelError::Input`]: so many threads cannot be started.
pub fn in_shared_pool<T: Send>(
    threads: usize,
    work: impl FnOnce() -> T + Send,
) -> Result<T, ModelError> {
    SHARED.with(threads, work)
}

/// A pool and the process whose threads it has.
struct Owned {
    pool: Arc<ThreadPool>,
    process: u32,
}

impl ThreadPools {
    /// Runs `work` in a pool of `threads` threads.
    ///
    /// # Errors
    /// [`ModelError::Input`]: so many threads cannot be started.
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
        let process = std::process::id();
        if let Some(inherited) = current.take_if(|owned| owned.process != process) {
            // Never dropped: that would wait for threads that this process does not have.
            std::mem::forget(inherited);
        }
        if let Some(owned) = current.as_ref()
            && owned.pool.current_num_threads() == threads
        {
            return Ok(Arc::clone(&owned.pool));
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
        let pool = Arc::new(pool);
        *current = Some(Owned {
            pool: Arc::clone(&pool),
            process,
        });
        Ok(pool)
    }
}

impl Drop for ThreadPools {
    fn drop(&mut self) {
        let current = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(inherited) = current.take_if(|owned| owned.process != std::process::id()) {
            std::mem::forget(inherited);
        }
    }
}
