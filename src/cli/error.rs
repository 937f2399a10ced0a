//! What a command says when it did not do what was asked, and the exit code it ends with.
//!
//! A refusal of the daemon keeps the code it came with, also one that this build does not know.

use std::fmt::Display;
use std::io;

use super::exit;
use crate::core::event::code::Code;
use crate::core::text::plain;
use crate::shell::log::LogError;
use crate::wire::yaml::FileError;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub struct CliError {
    pub exit: u8,
    /// Empty when there is nothing to say: the reader of a pipe has gone.
    pub code: String,
    pub message: String,
    /// How to go on.
    pub help: Option<String>,
}

impl CliError {
    pub fn new(exit: u8, code: Code, message: impl Into<String>) -> CliError {
        CliError { exit, code: code.to_string(), message: message.into(), help: None }
    }

    /// Nothing is said.
    pub fn silent(exit: u8) -> CliError {
        CliError { exit, code: String::new(), message: String::new(), help: None }
    }

    pub fn usage(message: impl Into<String>) -> CliError {
        CliError::new(exit::USAGE, Code::Usage, message)
    }

    /// What could not be done with a file, with the system's reason.
    pub fn file(what: impl Display, error: &io::Error) -> CliError {
        CliError::new(exit::USAGE, Code::FileUnread, format!("{what}: {}", reason(error)))
    }

    /// Standard output does not take what is written.
    pub fn output(error: &io::Error) -> CliError {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return CliError::silent(exit::OK);
        }
        CliError::new(
            exit::USAGE,
            Code::OutputFailed,
            format!("writing the output failed: {}", reason(error)),
        )
    }

    /// What the daemon answered instead of doing it.
    pub fn refused(code: &str, message: &str, help: Option<&str>) -> CliError {
        let exit = match Code::named(code) {
            // What was asked for is the case already.
            Some(Code::RolledBackAlready) => exit::OK,
            Some(Code::NotFound | Code::NoSuchPolicy | Code::PolicyName) => exit::NOT_FOUND,
            Some(
                Code::IntentAgain
                | Code::IntentIdReused
                | Code::RolloutOver
                | Code::ServesAlready
                | Code::RollingOutAlready
                | Code::OneAtATime
                | Code::QueueFull
                | Code::Quarantined
                | Code::SeveralParts
                | Code::PartsUnknown
                | Code::StrayAck,
            ) => exit::REFUSED,
            // What this program asks for in a way the daemon does not take is no mistake of the user's.
            Some(Code::NotJson | Code::NoSuchPath | Code::Method | Code::BadPath | Code::LogUnread) => {
                exit::BUG
            }
            _ => match code.get(..2) {
                Some("E0" | "E5") => exit::REFUSED,
                Some("E1" | "E2" | "E3" | "E4") => exit::USAGE,
                _ => exit::BUG,
            },
        };
        CliError { exit, code: code.into(), message: message.into(), help: help.map(str::to_owned) }
    }

    /// Policies that cannot be read, or are not sound.
    pub fn policies(error: impl Display) -> CliError {
        let text = error.to_string();
        // What is wrong inside a file has a code of its own already.
        let coded = text.strip_prefix("error[").and_then(|rest| rest.split_once("]: "));
        let (code, message) = coded.unwrap_or((Code::PolicyUnread.as_str(), &text));
        CliError { exit: exit::USAGE, code: code.to_owned(), message: message.to_owned(), help: None }
    }

    /// The daemon said something this build does not understand.
    pub fn answer(what: impl Display) -> CliError {
        let message = format!("the answer of sluice was not understood: {what}");
        CliError::new(exit::BUG, Code::Fault, message).help("use the same version of sluice on both sides")
    }

    /// Everything that is wrong with a policy or a config file, each thing with its place.
    pub fn policy(error: FileError) -> CliError {
        let text = error.to_string();
        let code = error.0.first().map_or(Code::FileValue, |fault| fault.code);
        let message = text.strip_prefix(&format!("error[{code}]: ")).unwrap_or(&text);
        CliError::new(exit::USAGE, code, message)
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> CliError {
        self.help = Some(help.into());
        self
    }

    /// What goes to standard error: code, message, how to go on. Never a control character.
    pub fn text(&self) -> String {
        let lines = |text: &str, between: &str| text.lines().map(plain).collect::<Vec<_>>().join(between);
        let help = self.help.as_deref().map(|help| format!("\n  help: {}", lines(help, "\n  ")));
        // What was asked for is the case already: that is no error.
        let kind = if self.exit == exit::OK { "note" } else { "error" };
        format!("{kind}[{}]: {}{}", self.code, lines(&self.message, "\n"), help.unwrap_or_default())
    }
}

impl From<LogError> for CliError {
    fn from(error: LogError) -> CliError {
        let message = error.to_string();
        match error {
            LogError::Locked { .. } => CliError::new(exit::REFUSED, Code::LogInUse, message).help(
                "the log is in use by a running sluice. Stop it first, or ask it: sluice log tail, sluice log show",
            ),
            LogError::Empty { .. } => CliError::new(exit::USAGE, Code::NothingInFile, message),
            LogError::NoSuchEvent { .. } => CliError::new(exit::NOT_FOUND, Code::NotFound, message),
            LogError::NoLog(_) => {
                CliError::new(exit::USAGE, Code::FileUnread, message).help("name the folder of a log: --data DIR")
            }
            LogError::Io { what: "writing the export", .. } => CliError::new(exit::USAGE, Code::OutputFailed, message),
            LogError::Corrupt { .. } | LogError::Damaged { .. } | LogError::Anchor(_) | LogError::Cut { .. } => {
                CliError::new(exit::MISMATCH, Code::LogDamaged, message)
            }
            LogError::OutOfOrder { .. }
            | LogError::GroupTooLarge { .. }
            | LogError::TooLarge(_)
            | LogError::Poisoned => {
                CliError::new(exit::BUG, Code::LogDamaged, message)
            }
            _ => CliError::new(exit::USAGE, Code::FileUnread, message),
        }
    }
}

/// An operating system's error as the end of a sentence: `no space left on device`.
pub fn reason(error: &dyn Display) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_lowercase().chain(letters).collect())
}
