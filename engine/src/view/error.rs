//! Why a request of the API is not answered: a code for programs, words for people.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NotFound;
use crate::retrace::RetraceError;
use crate::wire::error::InputError;

/// Why a request is not answered: a code for programs, words for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Stable: `E0313`.
    pub code: String,
    /// As HTTP counts.
    pub status: u16,
    pub message: String,
    /// A command line that helps.
    pub help: Option<String>,
}

impl ApiError {
    pub fn new(code: &str, message: impl Into<String>) -> ApiError {
        ApiError { code: code.to_owned(), status: status(code), message: message.into(), help: None }
    }

    pub fn help(mut self, help: impl Into<String>) -> ApiError {
        self.help = Some(help.into());
        self
    }

    pub fn body(&self) -> ErrorBody {
        let ApiError { code, message, help, .. } = self.clone();
        ErrorBody { ok: false, code, message, help }
    }
}

/// What a code means to an HTTP client.
fn status(code: &str) -> u16 {
    match code {
        "E5003" | "E5005" => 403,
        "E4004" | "E5006" => 404,
        "E5008" => 405,
        "E5009" => 408,
        // What the core refuses: it was understood, and does not fit how things stand.
        "E1014" | "E1015" | "E1021" | "E1022" | "E2101" | "E3021" | "E3022" => 409,
        code if code.starts_with("E03") || code.starts_with("E103") => 409,
        "E1011" => 413,
        "E1028" | "E5004" => 415,
        "E5090" => 500,
        "E5021" => 503,
        _ => 400,
    }
}

impl From<InputError> for ApiError {
    fn from(error: InputError) -> ApiError {
        ApiError::new(error.code, error.message)
    }
}

/// An error as it is answered.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// Always false.
    pub ok: bool,
    pub code: String,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl From<NotFound> for ApiError {
    fn from(error: NotFound) -> ApiError {
        ApiError::new("E4004", error.to_string())
    }
}

impl From<RetraceError> for ApiError {
    fn from(error: RetraceError) -> ApiError {
        let code = match error {
            RetraceError::NoEvent(_) | RetraceError::NoGuardrail(..) => "E4004",
            RetraceError::NoEvidence(..) | RetraceError::Which(..) => "E5015",
        };
        ApiError::new(code, error.to_string())
    }
}
