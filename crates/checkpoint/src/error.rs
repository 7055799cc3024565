//! Errors that name the file, the tensor, what was expected and found, and a hint.
use std::fmt;
use std::path::{Path, PathBuf};

/// What went wrong, for programs; the text is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "named by what they are")]
pub enum CheckpointErrorKind {
    NotFound,
    Io,
    DiskFull,
    Malformed,
    MissingTensor,
    WrongShape,
    WrongDType,
    NonFinite,
    UnsupportedQuantization,
    UnsupportedAdapter,
    UnsupportedPickle,
    UnsupportedGguf,
    OutputExists,
    Hub,
}

/// `file: tensor: message` and a hint on a line of its own.
///
/// ```
/// use fewbit_checkpoint::{CheckpointError, CheckpointErrorKind};
///
/// let error = CheckpointError::new(CheckpointErrorKind::WrongShape, "shape: expected [4, 2], found [2, 4]")
///     .in_file("model.safetensors")
///     .at_tensor("pooler.dense.weight")
///     .hint("config.json and the weights belong to different models");
/// assert_eq!(
///     error.to_string(),
///     "model.safetensors: tensor `pooler.dense.weight`: shape: expected [4, 2], found [2, 4]\n  \
///      hint: config.json and the weights belong to different models"
/// );
/// ```
// Boxed: a `Result` of this error stays one word wide next to its value.
#[derive(Debug)]
pub struct CheckpointError(Box<Parts>);

#[derive(Debug)]
struct Parts {
    kind: CheckpointErrorKind,
    file: Option<PathBuf>,
    tensor: Option<String>,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl CheckpointError {
    /// An error of `kind`, so far without a place.
    pub fn new(kind: CheckpointErrorKind, message: impl Into<String>) -> Self {
        CheckpointError(Box::new(Parts {
            kind,
            file: None,
            tensor: None,
            message: message.into(),
            hint: None,
            source: None,
        }))
    }

    /// The same error, in `file`.
    #[must_use]
    pub fn in_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.0.file = Some(file.into());
        self
    }

    /// The same error, at `tensor`.
    #[must_use]
    pub fn at_tensor(mut self, tensor: impl Into<String>) -> Self {
        self.0.tensor = Some(tensor.into());
        self
    }

    /// The same error, with what the reader can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// The same error, caused by `source`.
    #[must_use]
    pub fn caused_by(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The same error, its message after the name of the part of the file that it is about.
    #[must_use]
    pub(crate) fn within(mut self, part: &str) -> Self {
        self.0.message = format!("{part}: {}", self.0.message);
        self
    }

    /// What went wrong, for programs.
    pub fn kind(&self) -> CheckpointErrorKind {
        self.0.kind
    }

    /// The file or directory that the error is about.
    pub fn file(&self) -> Option<&Path> {
        self.0.file.as_deref()
    }

    /// The tensor that the error is about.
    pub fn tensor(&self) -> Option<&str> {
        self.0.tensor.as_deref()
    }

    /// A failed operation of the operating system on `file`: `what` says what was tried, for instance `"cannot open"`.
    pub(crate) fn io(what: &str, file: &Path, error: std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => CheckpointErrorKind::NotFound,
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                CheckpointErrorKind::DiskFull
            }
            _ => CheckpointErrorKind::Io,
        };
        CheckpointError::new(kind, format!("{what}: {error}"))
            .in_file(file)
            .caused_by(error)
    }
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts {
            file,
            tensor,
            message,
            hint,
            ..
        } = &*self.0;
        if let Some(file) = file {
            write!(f, "{}: ", file.display())?;
        }
        if let Some(tensor) = tensor {
            write!(f, "tensor `{tensor}`: ")?;
        }
        f.write_str(message)?;
        if let Some(hint) = hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for CheckpointError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
