//! sled panics on some kinds of damage. These turn both its errors and its panics into [`LogError`]s.

use std::cell::Cell;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use super::LogError;
use crate::core::text::count;

/// Runs `work`; what sled reports or dies of comes back as an error.
pub fn guard<T>(work: impl FnOnce() -> sled::Result<T>) -> Result<T, LogError> {
    install_hook();
    let outer = QUIET.replace(true);
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    QUIET.set(outer);
    match done {
        Ok(result) => result.map_err(from_sled),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(match system_error(text) {
                Some(cause) => LogError::io("using the log", cause),
                None => LogError::damaged(format!("the store gave up ({text})")),
            })
        }
    }
}

/// The system's error that a panic was about: sled unwraps some, and a disk that fails is no damaged log.
fn system_error(panic: &str) -> Option<io::Error> {
    let code = panic.split_once("Os { code: ")?.1.split(',').next()?;
    code.parse().ok().map(io::Error::from_raw_os_error)
}

/// The open store. sled syncs once more when the last handle goes, and panics when the disk does not: by then
/// whoever wrote has had the error, and a panic would only hide it.
pub struct Store(Option<sled::Db>);

impl Store {
    pub fn open(config: &sled::Config) -> Result<Store, LogError> {
        guard(|| config.open()).map(|db| Store(Some(db)))
    }
}

impl std::ops::Deref for Store {
    type Target = sled::Db;

    fn deref(&self) -> &sled::Db {
        self.0.as_ref().expect("it is taken only by drop")
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let db = self.0.take();
        // Reported where it mattered.
        let _ = guard(|| {
            drop(db);
            Ok(())
        });
    }
}

fn from_sled(error: sled::Error) -> LogError {
    match error {
        sled::Error::Io(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => {
            LogError::damaged("a file ends too soon")
        }
        sled::Error::Io(cause) => LogError::io("using the log", cause),
        sled::Error::Corruption { at, .. } => LogError::Damaged {
            why: "its checksums do not match".into(),
            place: at.map(|at| format!("sled/db, byte {}", count(at.lid()))),
        },
        other => LogError::damaged(other.to_string().to_lowercase()),
    }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Keeps the panics that [`guard`] reports off stderr, and all others as they were.
fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                before(info);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_the_store_becomes_an_error() {
        let error = guard(|| -> sled::Result<()> { panic!("bad {}", "pointer") }).unwrap_err();
        let message =
            "the log does not open or read: the store gave up (bad pointer); restore a backup or an export";
        assert_eq!(error.to_string(), message);
        let failed = || Err::<(), _>(io::Error::from_raw_os_error(libc::EIO));
        let error = guard(|| -> sled::Result<()> {
            failed().unwrap();
            Ok(())
        });
        assert_eq!(error.unwrap_err().to_string(), "using the log failed: input/output error");
        assert_eq!(guard(|| Ok(7)).unwrap(), 7);
    }
}
