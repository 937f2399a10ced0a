//! What people do to a rollout: the request, checked, and its answer.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::View;
use super::error::ApiError;
use super::rollout::Standing;
use crate::core::event::code::Code;
use crate::core::event::fact::Act;
use crate::core::event::verb::Verb;
use crate::core::ids::{EventSeq, RolloutId};
use crate::wire::names;
use crate::wire::outgoing::DecisionMessage;

/// Words of a command line kept with an act, and their bytes together.
const ARGS_MAX: usize = 64;
const ARGS_BYTES: usize = 8 * 1024;

/// What a person does to a rollout.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ActRequest {
    /// As in `status`. Over HTTP the path names it.
    pub rollout: Option<String>,
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
    /// Why. `rollback`, `skip`, `note` and an overriding `promote` or `claim` need one.
    #[serde(default)]
    #[schemars(length(max = 2000))]
    pub reason: String,
    /// Refuse when the rollout has moved since this event.
    pub if_seq: Option<EventSeq>,
    /// Promote although a guardrail or an approval is in the way; claim what somebody else has claimed.
    #[serde(default, rename = "override")]
    pub force: bool,
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
}

impl ActRequest {
    /// The act to be recorded: who, which rollout of those in `view`, and why.
    ///
    /// Errors: E1005 no rollout, E4004 no such one, E4003 no reason, E1025 the command line, and what is wrong with the words.
    pub fn act(self, verb: Verb, view: &View) -> Result<Act, ApiError> {
        let field = |name: &str| format!("{}.{name}", verb.as_str());
        let Some(rollout) = &self.rollout else {
            let message = format!("{}: required field rollout is missing", verb.as_str());
            return Err(ApiError::new(Code::FieldValue, message));
        };
        let rollout = RolloutId(view.find(rollout)?.rollout.clone());
        if let Some(what) = verb.lacks_reason(self.force, &self.reason) {
            let message = format!("{what} needs --reason TEXT (it is written to the log)");
            return Err(ApiError::new(Code::ReasonNeeded, message));
        }
        let optional = |name: &str, text: String, max: usize| match text.is_empty() {
            true => Ok(text),
            false => names::prose(&field(name), &text, max),
        };
        bounded(&field("args"), &self.args)?;
        Ok(Act {
            rollout,
            verb,
            actor: names::prose(&field("actor"), &self.actor, names::BY_MAX)?,
            host: optional("host", self.host, names::BY_MAX)?,
            args: self.args,
            reason: optional("reason", self.reason, names::REASON_MAX)?,
            if_seq: self.if_seq,
            force: self.force,
        })
    }
}

/// A command line for the record has its bounds.
pub(super) fn bounded(field: &str, args: &[String]) -> Result<(), ApiError> {
    let (n, bytes) = (args.len(), args.iter().map(String::len).sum::<usize>());
    if n > ARGS_MAX || bytes > ARGS_BYTES {
        let message =
            format!("{field}: at most {ARGS_MAX} words of {ARGS_BYTES} bytes together, got {n} of {bytes}");
        return Err(ApiError::new(Code::Length, message));
    }
    Ok(())
}

/// Answer to an act.
#[derive(Serialize, JsonSchema)]
pub struct ActAnswer {
    /// Always true.
    pub ok: bool,
    pub rollout: String,
    pub verb: &'static str,
    /// The event of the act. Of a dry run: the one it would have become.
    pub seq: EventSeq,
    /// Where the rollout stands now. Of a dry run: would stand.
    pub state: Standing,
    pub summary: String,
    /// What was decided because of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionMessage>,
    /// Id of the command that carries it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Nothing was recorded.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The schema says in words which verbs need a reason, and the rows say so.
    #[test]
    fn the_words_of_the_request_name_the_verbs_that_need_a_reason() {
        let schema = schemars::schema_for!(ActRequest);
        let said =
            schema.pointer("/properties/reason/description").and_then(|text| text.as_str()).expect("said");
        let (always, override_) = said.split_once(" and an overriding ").expect("both sorts are named");
        for verb in Verb::ALL {
            let named = format!("`{}`", verb.as_str());
            let wants = [verb.lacks_reason(false, " "), verb.lacks_reason(true, " ")];
            assert_eq!(wants[0].is_some(), always.contains(&named), "{named}");
            assert_eq!(wants[0].is_none() && wants[1].is_some(), override_.contains(&named), "{named}");
            assert_eq!(verb.lacks_reason(true, "because"), None);
        }
    }
}
