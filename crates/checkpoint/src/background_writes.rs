//! Writing by a thread of its own, so that whoever makes the bytes goes on meanwhile.
//!
//! The bytes that wait are bounded: who is faster than the disk waits for it. A second thread waits for the disk to have a whole file, as that may
//! take long after the last byte was handed over.
use crate::{CheckpointError, CheckpointErrorKind};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

/// Bytes that wait to be written, at most, unless a single write has more.
const MOST_WAITING: usize = 32 << 20;

/// What turns an error of the system, for a write of so many bytes, into one that names the output.
pub(crate) type Explain = Box<dyn FnOnce(io::Error, usize) -> CheckpointError + Send>;

/// What is done when everything before it is written, by the second thread.
pub(crate) type Afterwards = Box<dyn FnOnce() -> Result<(), CheckpointError> + Send>;

enum Job {
    Write {
        file: Arc<File>,
        position: u64,
        bytes: Vec<u8>,
        explain: Explain,
    },
    Then(Afterwards),
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Bytes of the jobs, and of the one that is being done.
    waiting: usize,
    /// No more jobs come.
    closed: bool,
    /// Whether something failed; nothing is done after it.
    failed: bool,
    /// What failed, until it is said.
    error: Option<CheckpointError>,
}

impl Queue {
    /// An error if something failed, as often as it is asked.
    fn result(&mut self) -> Result<(), CheckpointError> {
        if !self.failed {
            return Ok(());
        }
        Err(self.error.take().unwrap_or_else(|| {
            CheckpointError::new(
                CheckpointErrorKind::Io,
                "not written, as an earlier write failed",
            )
        }))
    }
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// There is a job, or none will come.
    filled: Condvar,
    /// Bytes were written, or something failed.
    emptied: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A queue is never half changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, error: CheckpointError) {
        let mut queue = self.lock();
        queue.jobs.clear();
        if !queue.failed {
            queue.failed = true;
            queue.error = Some(error);
        }
        self.emptied.notify_all();
    }
}

/// Writes that go on in the background, in order. Dropped before [`finish`](Self::finish), it leaves out those that wait.
#[derive(Default)]
pub(crate) struct BackgroundWrites {
    shared: Arc<Shared>,
    /// None until there is something to write.
    thread: Option<JoinHandle<()>>,
}

impl BackgroundWrites {
    /// Writes `bytes` to `file` from `position` on, some time; waits while too many bytes wait.
    ///
    /// # Errors
    /// What an earlier write met with.
    pub(crate) fn write(
        &mut self,
        file: &Arc<File>,
        position: u64,
        bytes: Vec<u8>,
        explain: Explain,
    ) -> Result<(), CheckpointError> {
        let length = bytes.len();
        let file = Arc::clone(file);
        self.push(
            length,
            Job::Write {
                file,
                position,
                bytes,
                explain,
            },
        )
    }

    /// Does `afterwards` when all that was handed over before is written, while later writes go on. One is done at a time, in order.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub(crate) fn then(&mut self, afterwards: Afterwards) -> Result<(), CheckpointError> {
        self.push(0, Job::Then(afterwards))
    }

    /// Waits until everything is done.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub(crate) fn finish(&mut self) -> Result<(), CheckpointError> {
        self.close();
        self.shared.lock().result()
    }

    fn push(&mut self, length: usize, job: Job) -> Result<(), CheckpointError> {
        if self.thread.is_none() {
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new()
                .name("writes".to_owned())
                .spawn(move || work(&shared));
            let failed = |error| {
                CheckpointError::new(
                    CheckpointErrorKind::Io,
                    format!("cannot start a thread that writes: {error}"),
                )
            };
            self.thread = Some(thread.map_err(failed)?);
        }
        let mut queue = self.shared.lock();
        while queue.waiting > 0 && queue.waiting + length > MOST_WAITING && !queue.failed {
            let waited = self.shared.emptied.wait(queue);
            queue = waited.unwrap_or_else(PoisonError::into_inner);
        }
        queue.result()?;
        queue.waiting += length;
        queue.jobs.push_back(job);
        self.shared.filled.notify_all();
        Ok(())
    }

    /// No more jobs come; waits for the threads.
    fn close(&mut self) {
        self.shared.lock().closed = true;
        self.shared.filled.notify_all();
        if let Some(thread) = self.thread.take()
            && let Err(panic) = thread.join()
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Drop for BackgroundWrites {
    fn drop(&mut self) {
        self.shared.lock().jobs.clear();
        self.close();
    }
}

/// What the first thread does.
fn work(shared: &Shared) {
    std::thread::scope(|threads| {
        let (afterwards, received) = mpsc::channel::<Afterwards>();
        threads.spawn(move || {
            for afterwards in received {
                if let Err(error) = afterwards() {
                    return shared.fail(error);
                }
            }
        });
        while let Some(job) = next_job(shared) {
            match job {
                Job::Write {
                    file,
                    position,
                    bytes,
                    explain,
                } => {
                    if let Err(error) = write_at(&file, position, &bytes) {
                        return shared.fail(explain(error, bytes.len()));
                    }
                    shared.lock().waiting -= bytes.len();
                    shared.emptied.notify_all();
                }
                // The other thread is gone where it failed; that is known then.
                Job::Then(job) => drop(afterwards.send(job)),
            }
        }
    });
}

fn next_job(shared: &Shared) -> Option<Job> {
    let mut queue = shared.lock();
    loop {
        if let Some(job) = queue.jobs.pop_front() {
            return Some(job);
        }
        if queue.closed {
            return None;
        }
        let waited = shared.filled.wait(queue);
        queue = waited.unwrap_or_else(PoisonError::into_inner);
    }
}

fn write_at(file: &File, position: u64, bytes: &[u8]) -> io::Result<()> {
    #[cfg(unix)]
    {
        std::os::unix::fs::FileExt::write_all_at(file, bytes, position)
    }
    #[cfg(not(unix))]
    {
        use std::io::{Seek, SeekFrom, Write};
        // One thread writes: nobody else moves the position.
        let mut file = file;
        file.seek(SeekFrom::Start(position))?;
        file.write_all(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn explain() -> Explain {
        Box::new(|error, _| CheckpointError::io("cannot write", "out".as_ref(), error))
    }

    /// More bytes than may wait, and what follows them in order.
    #[test]
    fn everything_is_written_before_what_comes_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let file = Arc::new(File::create(&path).unwrap());
        let mut writes = BackgroundWrites::default();
        let part = MOST_WAITING / 2 + 1;
        let lengths = Arc::new(Mutex::new(Vec::new()));
        for number in 0..4u8 {
            let position = u64::from(number) * part as u64;
            writes
                .write(&file, position, vec![number; part], explain())
                .unwrap();
            let (path, lengths) = (path.clone(), Arc::clone(&lengths));
            let look = move || {
                let length = std::fs::metadata(path).unwrap().len();
                lengths.lock().unwrap().push(length);
                Ok(())
            };
            writes.then(Box::new(look)).unwrap();
        }
        writes.finish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 4 * part);
        for (number, part) in bytes.chunks(part).enumerate() {
            assert!(part.iter().all(|&byte| usize::from(byte) == number));
        }
        let lengths = lengths.lock().unwrap();
        assert_eq!(lengths.len(), 4);
        for (number, &length) in (1..).zip(lengths.iter()) {
            assert!(length >= number * part as u64, "{lengths:?}");
        }
    }

    #[test]
    fn after_an_error_nothing_is_written_and_nothing_succeeds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "").unwrap();
        let read_only = Arc::new(File::open(&path).unwrap());
        let mut writes = BackgroundWrites::default();
        let done = Arc::new(AtomicUsize::new(0));
        let result = (0..1000).find_map(|_| {
            let done = Arc::clone(&done);
            let count = move || {
                done.fetch_add(1, Ordering::Relaxed);
                Ok(())
            };
            let written = writes.write(&read_only, 0, vec![1; MOST_WAITING / 4], explain());
            let counted = written.and_then(|()| writes.then(Box::new(count)));
            counted.err()
        });
        assert_eq!(result.unwrap().kind(), CheckpointErrorKind::Io);
        let again = writes.finish().unwrap_err().to_string();
        assert_eq!(again, "not written, as an earlier write failed");
        assert_eq!(done.load(Ordering::Relaxed), 0);

        let mut writes = BackgroundWrites::default();
        let fail = || Err(CheckpointError::new(CheckpointErrorKind::DiskFull, "full"));
        writes.then(Box::new(fail)).unwrap();
        assert_eq!(
            writes.finish().unwrap_err().kind(),
            CheckpointErrorKind::DiskFull
        );
    }

    #[test]
    fn dropped_it_does_not_wait_for_what_is_left() {
        let mut writes = BackgroundWrites::default();
        writes.then(Box::new(|| Ok(()))).unwrap();
        drop(writes);
        drop(BackgroundWrites::default());
    }
}
