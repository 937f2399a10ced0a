//! `freeze` and `unfreeze`: the order, checked, and its answer.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::act::bounded;
use super::error::ApiError;
use super::windows::moment;
use crate::core::event::code::Code;
use crate::core::event::fact::FreezeOrder;
use crate::core::ids::{EventSeq, Service};
use crate::core::time::{Span, Timestamp};
use crate::wire::names;
use crate::wire::yaml::Scalar;

/// Begins a freeze, or ends it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FreezeRequest {
    /// One service; else everything.
    pub service: Option<String>,
    /// When a freeze ends by itself: a time with its zone (`2026-12-24T15:00Z`), or how long it lasts (`4h`).
    pub until: Option<String>,
    /// Who does it.
    #[schemars(length(min = 1, max = 200))]
    pub actor: String,
    #[serde(default)]
    #[schemars(length(max = 200))]
    pub host: String,
    /// The command line as given, for the record.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub args: Vec<String>,
    /// Why.
    #[schemars(length(min = 1, max = 2000))]
    #[serde(default)]
    pub reason: String,
}

/// Answer to `freeze` and `unfreeze`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FreezeAnswer {
    /// Always true.
    pub ok: bool,
    pub verb: &'static str,
    /// The event of the order.
    pub seq: EventSeq,
    pub service: Option<String>,
    pub until_ms: Option<u64>,
    /// Rollouts that moved because of it.
    pub moved: Vec<String>,
}

impl FreezeRequest {
    /// The order to be recorded: a freeze, or its end. Errors: E1009 and E1017 the time, E4003 no reason, E1025 the command line.
    pub fn order(self, freeze: bool, now: Timestamp) -> Result<FreezeOrder, ApiError> {
        let verb = verb(freeze);
        let field = |name: &str| format!("{verb}.{name}");
        if self.reason.trim().is_empty() {
            let message = format!("{verb} needs --reason TEXT (it is written to the log)");
            return Err(ApiError::new(Code::ReasonNeeded, message));
        }
        let service = self.service.map(|service| names::label(&field("service"), &service).map(Service));
        let until = match &self.until {
            Some(_) if !freeze => {
                let message = format!("{}: an unfreeze takes effect at once", field("until"));
                return Err(ApiError::new(Code::UnknownField, message));
            }
            until => until.as_deref().map(|text| until_when(&field("until"), text, now)).transpose()?,
        };
        bounded(&field("args"), &self.args)?;
        let host = match self.host.is_empty() {
            true => String::new(),
            false => names::prose(&field("host"), &self.host, names::BY_MAX)?,
        };
        Ok(FreezeOrder {
            freeze,
            service: service.transpose()?,
            until,
            actor: names::prose(&field("actor"), &self.actor, names::BY_MAX)?,
            host,
            args: self.args,
            reason: names::prose(&field("reason"), &self.reason, names::REASON_MAX)?,
        })
    }
}

/// What it is called to begin a freeze, or to end it.
pub fn verb(freeze: bool) -> &'static str {
    if freeze { "freeze" } else { "unfreeze" }
}

/// A time, or how long from now.
fn until_when(field: &str, text: &str, now: Timestamp) -> Result<Timestamp, ApiError> {
    match Span::parse(text) {
        Ok(span) => Ok(now.plus(span)),
        Err(_) => moment(field, text).map_err(|error| ApiError {
            message: format!("{}; or how long it lasts, such as 4h", error.message),
            ..error
        }),
    }
}
