//! How many threads to use, and why that many.
//!
//! The first of these that is set decides: the caller's own argument, `FEWBIT_NUM_THREADS`, `RAYON_NUM_THREADS`,
//! `OMP_NUM_THREADS`; otherwise what the operating system lets this process use, which honours the container's
//! CPU quota and the affinity mask. The number never changes a result, only how soon it is there.

use serde::Serialize;
use std::fmt;

/// Most threads that may be asked for; beyond it a number is taken for a mistake.
pub const MAXIMUM: usize = 1024;

/// Environment variables that are asked, in this order.
pub const VARIABLES: [&str; 3] = ["FEWBIT_NUM_THREADS", "RAYON_NUM_THREADS", "OMP_NUM_THREADS"];

/// A number of threads and where it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Threads {
    /// Worker threads, `1..=MAXIMUM`.
    pub count: usize,
    /// What decided the number.
    pub source: ThreadSource,
}

/// What decided the number of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ThreadSource {
    /// The caller's argument (`--threads` on the command line).
    Argument,
    /// The environment variable of this name.
    Environment(&'static str),
    /// CPUs that this process may use: cores, affinity mask and container quota.
    Available,
}

impl fmt::Display for ThreadSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ThreadSource::Argument => f.write_str("the threads argument"),
            ThreadSource::Environment(variable) => write!(f, "the environment variable {variable}"),
            ThreadSource::Available => {
                f.write_str("the CPUs this process may use (affinity and container quota)")
            }
        }
    }
}

/// A number of threads that cannot be used; the text names the argument or the variable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{place}: expected a number of threads from 1 to {MAXIMUM}, found `{found}`\n  hint: give another number, or leave it unset to use every CPU this process may use"
)]
pub struct ThreadsError {
    place: &'static str,
    found: String,
}

/// The number of threads for this process: `argument` if given, else the environment, else what is available.
///
/// # Errors
/// The argument or the first variable that is set holds something other than `1..=MAXIMUM`. A wrong value is never
/// skipped in favour of the next source.
///
/// ```
/// let threads = fewbit::threads::resolve(Some(2))?;
/// assert_eq!(threads.count, 2);
/// # Ok::<(), fewbit::threads::ThreadsError>(())
/// ```
pub fn resolve(argument: Option<usize>) -> Result<Threads, ThreadsError> {
    let available = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    resolve_from(
        argument,
        |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()),
        available,
    )
}

fn resolve_from(
    argument: Option<usize>,
    variable: impl Fn(&str) -> Option<String>,
    available: usize,
) -> Result<Threads, ThreadsError> {
    if let Some(count) = argument {
        return in_range(count)
            .map(|count| Threads {
                count,
                source: ThreadSource::Argument,
            })
            .ok_or(ThreadsError {
                place: "threads",
                found: count.to_string(),
            });
    }
    for name in VARIABLES {
        let Some(value) = variable(name) else {
            continue;
        };
        let text = value.trim();
        // An empty variable counts as unset; rayon documents 0 as "choose for me".
        if text.is_empty() || (name == "RAYON_NUM_THREADS" && text == "0") {
            continue;
        }
        // OpenMP allows a list, one number for each nesting level; the first is the outermost.
        let first = if name == "OMP_NUM_THREADS" {
            text.split(',').next().unwrap_or(text).trim()
        } else {
            text
        };
        let count = first.parse().ok().and_then(in_range).ok_or(ThreadsError {
            place: name,
            found: value.clone(),
        })?;
        return Ok(Threads {
            count,
            source: ThreadSource::Environment(name),
        });
    }
    Ok(Threads {
        count: available.clamp(1, MAXIMUM),
        source: ThreadSource::Available,
    })
}

fn in_range(count: usize) -> Option<usize> {
    (1..=MAXIMUM).contains(&count).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(argument: Option<usize>, variables: &[(&str, &str)]) -> Result<Threads, ThreadsError> {
        let lookup = |name: &str| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        };
        resolve_from(argument, lookup, 6)
    }

    #[test]
    fn the_argument_wins_then_the_variables_in_order_then_the_machine() {
        let all = [
            ("OMP_NUM_THREADS", "2"),
            ("RAYON_NUM_THREADS", "3"),
            ("FEWBIT_NUM_THREADS", "4"),
        ];
        assert_eq!(
            with(Some(5), &all).unwrap(),
            Threads {
                count: 5,
                source: ThreadSource::Argument
            }
        );
        assert_eq!(
            with(None, &all).unwrap(),
            Threads {
                count: 4,
                source: ThreadSource::Environment("FEWBIT_NUM_THREADS")
            }
        );
        assert_eq!(
            with(None, &all[..2]).unwrap(),
            Threads {
                count: 3,
                source: ThreadSource::Environment("RAYON_NUM_THREADS")
            }
        );
        assert_eq!(
            with(None, &all[..1]).unwrap(),
            Threads {
                count: 2,
                source: ThreadSource::Environment("OMP_NUM_THREADS")
            }
        );
        assert_eq!(
            with(None, &[]).unwrap(),
            Threads {
                count: 6,
                source: ThreadSource::Available
            }
        );
    }

    #[test]
    fn spellings_that_other_tools_allow() {
        assert_eq!(
            with(None, &[("OMP_NUM_THREADS", " 4 , 2")]).unwrap().count,
            4
        );
        assert_eq!(
            with(
                None,
                &[("RAYON_NUM_THREADS", "0"), ("OMP_NUM_THREADS", "2")]
            )
            .unwrap()
            .count,
            2
        );
        assert_eq!(
            with(
                None,
                &[("FEWBIT_NUM_THREADS", ""), ("OMP_NUM_THREADS", "2")]
            )
            .unwrap()
            .count,
            2
        );
    }

    #[test]
    fn a_wrong_value_is_an_error_that_names_its_place() {
        for (name, value) in [
            ("FEWBIT_NUM_THREADS", "0"),
            ("RAYON_NUM_THREADS", "many"),
            ("OMP_NUM_THREADS", "-1"),
            ("OMP_NUM_THREADS", "1025"),
        ] {
            let text = with(None, &[(name, value)]).unwrap_err().to_string();
            assert!(
                text.starts_with(&format!(
                    "{name}: expected a number of threads from 1 to 1024, found `{value}`\n  hint: "
                )),
                "{text}"
            );
        }
        let text = with(Some(0), &[("FEWBIT_NUM_THREADS", "2")])
            .unwrap_err()
            .to_string();
        assert!(
            text.starts_with("threads: expected a number of threads from 1 to 1024, found `0`"),
            "{text}"
        );
    }
}
