//! `sluice.v1.ack.<service>`: an actuator's word on a command.

use serde::Deserialize;
use uuid::Uuid;

use super::error::{InputError, shown};
use super::{json, names};
use crate::core::event::code::Code;
use crate::core::event::fact::{Ack, AckStatus};
use crate::core::ids::CommandId;

/// Bytes of an ack: a few names and a sentence.
pub const ACK_MAX: usize = 16 * 1024;

/// An actuator's confirmation that a command is applied, or its refusal.
#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AckBody {
    /// Version of this shape.
    #[schemars(range(min = 1, max = 1))]
    pub v: Option<u32>,
    /// The command's id, as it came.
    #[schemars(extend("format" = "uuid"))]
    pub command: String,
    #[schemars(regex(pattern = "^[a-z0-9][a-z0-9-]{0,62}$"))]
    pub actuator: String,
    pub status: StatusWord,
    /// Why it was rejected; needed then.
    #[schemars(length(min = 1, max = 2000))]
    pub why: Option<String>,
    /// What the actuator now serves from the canary, in percent; for the actuator's own logs.
    #[schemars(range(min = 0, max = 100))]
    pub canary_weight: Option<f64>,
    pub took_ms: Option<u64>,
    /// Of a task, how much is done (documents, entries) and of how much. Applied with less than all is not applied.
    pub done: Option<u64>,
    pub of: Option<u64>,
    /// May be left out where the subject names it.
    #[schemars(regex(pattern = "^[a-z0-9][a-z0-9-]{0,62}$"))]
    pub service: Option<String>,
}

#[derive(Clone, Copy, Deserialize, schemars::JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum StatusWord {
    Applied,
    /// At work: not silent, and not done.
    Progress,
    Rejected,
}

/// Reads one ack. `service_from_subject` as in [`super::intent::parse_intent`].
///
/// Errors: those of the form (E1001 to E1011), E1005 a value that is not one, E1007, E1013 and E1025
/// names, E1024 no service, E1026 service and subject differ.
pub fn parse_ack(bytes: &[u8], service_from_subject: Option<&str>) -> Result<Ack, InputError> {
    let text = json::text("ack", bytes, ACK_MAX)?;
    let body: AckBody = json::object("ack", text)?;
    if let Some(v) = body.v.filter(|v| *v != 1) {
        return Err(InputError::new(
            Code::FieldValue,
            format!("ack.v: this sluice reads version 1, got {v}"),
        ));
    }
    let command = Uuid::try_parse(&body.command).map_err(|_| {
        let message = format!("ack.command: {} is not the id of a command (a UUID)", shown(&body.command));
        InputError::new(Code::FieldValue, message)
    })?;
    if let Some(weight) = body.canary_weight.filter(|weight| !(0.0..=100.0).contains(weight)) {
        let message = format!("ack.canary_weight: must be 0 to 100 percent, got {weight}");
        return Err(InputError::new(Code::FieldValue, message));
    }
    let service = names::agreed_service("ack", service_from_subject, body.service.as_deref())?;
    let status = match (body.status, body.why) {
        (StatusWord::Applied, _) => AckStatus::Applied,
        (StatusWord::Progress, _) => AckStatus::Progress,
        (StatusWord::Rejected, Some(why)) => {
            AckStatus::Rejected(names::prose("ack.why", &why, names::REASON_MAX)?)
        }
        (StatusWord::Rejected, None) => {
            let message = "ack: required field why is missing; a rejection says why";
            return Err(InputError::new(Code::FieldValue, message));
        }
    };
    let done = match (body.done, body.of) {
        (None, None) => None,
        (Some(done), Some(of)) if done <= of => Some((done, of)),
        (Some(done), Some(of)) => {
            let message = format!("ack.done: {done} is more than ack.of, {of}");
            return Err(InputError::new(Code::FieldValue, message));
        }
        _ => {
            let message = "ack: done and of belong together: how much is done, and of how much";
            return Err(InputError::new(Code::FieldValue, message));
        }
    };
    Ok(Ack {
        service,
        command: CommandId(command),
        actuator: names::actuator("ack.actuator", &body.actuator)?,
        status,
        took_ms: body.took_ms,
        done,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_applied_ack_is_read() {
        let body = r#"{"v":1,"command":"0190a0b0-0000-7000-8000-000000000001","actuator":"router-us",
            "status":"applied","canary_weight":0,"took_ms":4580}"#;
        let ack = parse_ack(body.as_bytes(), Some("support-bot")).unwrap();
        assert_eq!((ack.status, ack.took_ms), (AckStatus::Applied, Some(4_580)));
        assert_eq!(ack.service, "support-bot".into());
    }

    #[test]
    fn a_rejection_needs_its_why() {
        let body = |why: &str| {
            format!(
                r#"{{"command":"0190a0b0-0000-7000-8000-000000000001","actuator":"r","status":"rejected"{why}}}"#
            )
        };
        let parse = |body: String| parse_ack(body.as_bytes(), Some("s"));
        assert_eq!(
            parse(body(r#","why":"no such flag""#)).unwrap().status,
            AckStatus::Rejected("no such flag".into())
        );
        assert_eq!(parse(body("")).unwrap_err().code, Code::FieldValue);
    }
}
