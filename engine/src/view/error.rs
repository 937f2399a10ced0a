//! Why a request of the API is not answered: a code for programs, words for people.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NotFound;
use crate::core::event::code::Code;
use crate::evidence_trace::EvidenceTraceError;
use crate::wire::error::InputError;

/// Why a request is not answered: a code for programs, words for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub code: Code,
    /// As HTTP counts.
    pub status: u16,
    pub message: String,
    /// A command line that helps.
    pub help: Option<String>,
}

impl ApiError {
    pub fn new(code: Code, message: impl Into<String>) -> ApiError {
        ApiError { code, status: status(code), message: message.into(), help: None }
    }

    pub fn help(mut self, help: impl Into<String>) -> ApiError {
        self.help = Some(help.into());
        self
    }

    pub fn body(&self) -> ErrorBody {
        let ApiError { code, message, help, .. } = self.clone();
        ErrorBody { ok: false, code: code.to_string(), message, help }
    }
}

/// What a code means to an HTTP client.
fn status(code: Code) -> u16 {
    match code {
        Code::CrossSite | Code::HostName => 403,
        Code::NotFound | Code::NoSuchPath => 404,
        Code::Method => 405,
        Code::BodySlow => 408,
        // What the core refuses: it was understood, and does not fit how things stand.
        Code::IntentAgain
        | Code::IntentIdReused
        | Code::RolloutOver
        | Code::RolledBackAlready
        | Code::StrayAck
        | Code::NoSuchPolicy
        | Code::PolicyName => 409,
        code if ["E03", "E103"].iter().any(|of| code.as_str().starts_with(of)) => 409,
        Code::TooLarge => 413,
        Code::ContentType | Code::NotJson => 415,
        Code::LogUnread => 500,
        Code::NotNow => 503,
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
        ApiError::new(Code::NotFound, error.to_string())
    }
}

impl From<EvidenceTraceError> for ApiError {
    fn from(error: EvidenceTraceError) -> ApiError {
        let code = match error {
            EvidenceTraceError::NoEvent(_) | EvidenceTraceError::NoGuardrail(..) => Code::NotFound,
            EvidenceTraceError::NoEvidence(..) | EvidenceTraceError::Which(..) => Code::BadLimit,
        };
        ApiError::new(code, error.to_string())
    }
}
