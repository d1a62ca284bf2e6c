//! Why a command did not do what it was asked, and the exit code that says so.

use std::error::Error;
use std::fmt::Write;

use tieline_server::{ServeError, TlsError};
use tieline_store::keys::{KeyError, TokenError};
use tieline_store::{
    DbError, EngineError, LeaseError, OpenError, PullError, PushError, RemoveError, VerifyError,
};
use tieline_types::{BackendError, ErrorKind, Hint, InvalidParameter, ParseModelRefError};

use crate::composed::ComposeError;

/// What the user reads, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What was tried, on what, and why it failed.
    pub(crate) message: String,
    /// What the user can do.
    pub(crate) hint: Option<String>,
    /// The exit code.
    pub(crate) code: u8,
}

impl Failure {
    /// The user must act.
    pub(crate) const USER: u8 = 1;
    /// Our fault or the machine's.
    pub(crate) const OURS: u8 = 2;
    /// Ctrl-C: 128 + SIGINT, as shells have it.
    pub(crate) const INTERRUPTED: u8 = 130;

    /// For the user to mend.
    pub(crate) fn user(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, code: Self::USER }
    }

    /// Our fault or the machine's.
    pub(crate) fn ours(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, code: Self::OURS }
    }

    /// Ended by Ctrl-C.
    pub(crate) fn interrupted(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, code: Self::INTERRUPTED }
    }

    /// Adds what the user can do.
    #[must_use]
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn from_error(error: &(impl Hint + 'static), code: u8) -> Self {
        Self { message: with_causes(error), hint: error.hint(), code }
    }
}

/// An error and its causes in one line.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Some causes repeat the message of their effect.
        if !text.ends_with(&more) {
            // Writing to a string cannot fail.
            let _ = write!(text, ": {more}");
        }
        cause = error.source();
    }
    text
}

impl From<ComposeError> for Failure {
    fn from(error: ComposeError) -> Self {
        let code = if error.kind() == ErrorKind::Internal { Self::OURS } else { Self::USER };
        Self::from_error(&error, code)
    }
}

impl From<ParseModelRefError> for Failure {
    fn from(error: ParseModelRefError) -> Self {
        Self::user(error.to_string()).with_hint(
            "for example smollm2, hf:OWNER/REPO:QUANT, https://…, pypi:PROJECT or file:PATH",
        )
    }
}

impl From<InvalidParameter> for Failure {
    fn from(error: InvalidParameter) -> Self {
        Self::user(error.to_string())
    }
}

impl From<PullError> for Failure {
    fn from(error: PullError) -> Self {
        let code = match error {
            PullError::Db(_) | PullError::Client(_) | PullError::Stopped => Self::OURS,
            _ => Self::USER,
        };
        Self::from_error(&error, code)
    }
}

impl From<PushError> for Failure {
    fn from(error: PushError) -> Self {
        let code = match error {
            PushError::Db(_) | PushError::Client(_) | PushError::Stopped => Self::OURS,
            _ => Self::USER,
        };
        Self::from_error(&error, code)
    }
}

impl From<BackendError> for Failure {
    fn from(error: BackendError) -> Self {
        let code = match error.kind {
            ErrorKind::InvalidRequest
            | ErrorKind::NotFound
            | ErrorKind::ContextExceeded
            | ErrorKind::Unsupported
            | ErrorKind::BadModel
            | ErrorKind::OutOfMemory
            | ErrorKind::Busy => Self::USER,
            _ => Self::OURS,
        };
        Self::from_error(&error, code)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::ours(format!("the system refused: {error}"))
    }
}

macro_rules! failure_from {
    ($($error:ty => $code:ident),+ $(,)?) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::from_error(&error, Self::$code)
            }
        }
    )+};
}

failure_from! {
    DbError => OURS,
    EngineError => USER,
    ServeError => OURS,
    TlsError => USER,
    KeyError => OURS,
    TokenError => USER,
    LeaseError => USER,
    OpenError => USER,
    RemoveError => USER,
    VerifyError => USER,
}
