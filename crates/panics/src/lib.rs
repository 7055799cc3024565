//! Panics inside a library, which damaged input can cause, as values.
//!
//! Some libraries trust fields of a file and panic where they are wrong. [`contain`] turns that into a value; the standard
//! library would print the panic's message to stderr all the same. Only the process-wide panic hook can prevent this, so the
//! first call puts a hook before the one that is installed: it says nothing while the panicking thread is inside `contain`,
//! and hands every other panic on. A hook is never taken away or swapped for the length of a call, as other threads may panic
//! or install hooks meanwhile. If the application installs its own hook later, that one prints these panics as well;
//! nothing else changes.
#![forbid(unsafe_code)]

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Runs calls into a library.
///
/// # Errors
/// The message of a panic. Values that `run` was changing are then in an unknown state, and must not be used.
pub fn contain<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    // Hooks cannot be installed from a destructor that a panic runs.
    if !std::thread::panicking() {
        HOOK.call_once(|| {
            let next = take_hook();
            set_hook(Box::new(move |info| {
                // A thread whose locals are gone is in no call.
                if !CONTAINED.try_with(Cell::get).unwrap_or(false) {
                    next(info);
                }
            }));
        });
    }
    let outer = CONTAINED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    CONTAINED.set(outer);
    result.map_err(|panic| message(&*panic).to_owned())
}

fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// What the hook before ours sees: panics outside, on this and on other threads, and none inside.
    #[test]
    fn only_contained_panics_are_silent() {
        static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());
        let previous = take_hook();
        set_hook(Box::new(move |info| {
            let payload = message(info.payload()).to_owned();
            if payload.starts_with("hook test") {
                SEEN.lock().expect("not poisoned").push(payload);
            } else {
                previous(info);
            }
        }));
        assert_eq!(contain(|| 7).expect("no panic"), 7);
        let found = contain(|| {
            let inner = contain(|| panic!("hook test: inner {}", 1));
            assert_eq!(inner, Err::<(), _>("hook test: inner 1".to_owned()));
            // Still contained after the inner call.
            std::thread::scope(|scope| {
                let other = scope.spawn(|| panic!("hook test: another thread"));
                assert!(other.join().is_err());
            });
            panic!("hook test: inside");
        });
        assert_eq!(found, Err::<(), _>("hook test: inside".to_owned()));
        assert!(catch_unwind(|| panic!("hook test: outside")).is_err());
        assert_eq!(
            *SEEN.lock().expect("not poisoned"),
            ["hook test: another thread", "hook test: outside"]
        );
    }
}
