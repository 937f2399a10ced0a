//! Ends the process when a flush does not return: after a failed write sled's own threads can wait for
//! ever, and a daemon that neither acks nor exits is worse than one that is restarted.

use crate::clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub struct Watchdog {
    shared: Arc<Shared>,
    /// `None` only while being dropped.
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    origin: Instant,
    /// Milliseconds after `origin` by which the flush must have returned; [`IDLE`] and [`STOP`] when
    /// nothing is watched.
    due: AtomicU64,
    deadline: Duration,
}

const IDLE: u64 = u64::MAX;
const STOP: u64 = u64::MAX - 1;

impl Watchdog {
    /// Watches with `deadline`; looks ten times in that span, so that a flush costs two stores only.
    pub fn start(deadline: Duration) -> std::io::Result<Watchdog> {
        let shared = Arc::new(Shared { origin: clock::monotonic(), due: AtomicU64::new(IDLE), deadline });
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new().name("log-watchdog".into()).spawn(move || theirs.watch())?;
        Ok(Watchdog { shared, thread: Some(thread) })
    }

    /// Runs `flush` and returns what it returns, or does not return at all.
    pub fn guard<T>(&self, flush: impl FnOnce() -> T) -> T {
        let due = (clock::monotonic() - self.shared.origin) + self.shared.deadline;
        self.shared.due.store(due.as_millis() as u64, Ordering::Release);
        let result = flush();
        self.shared.due.store(IDLE, Ordering::Release);
        result
    }
}

impl Shared {
    fn watch(&self) {
        loop {
            thread::park_timeout(self.deadline / 10);
            match self.due.load(Ordering::Acquire) {
                STOP => return,
                due if (clock::monotonic() - self.origin).as_millis() as u64 > due => {
                    eprintln!(
                        "sluice: writing the log did not finish within {} s; stopping, because what is not \
                         on disk must not be acted on. Check the disk, then start again",
                        self.deadline.as_secs_f64()
                    );
                    std::process::abort();
                }
                _ => {}
            }
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.due.store(STOP, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join(); // it returns nothing, and does not panic
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs this test once more, in a process that hangs in its flush.
    #[test]
    fn a_flush_that_does_not_return_ends_the_process() {
        const HANG: &str = "SLUICE_TEST_HANG";
        let name = "log::watchdog::tests::a_flush_that_does_not_return_ends_the_process";
        if std::env::var_os(HANG).is_some() {
            let watchdog = Watchdog::start(Duration::from_millis(50)).unwrap();
            watchdog.guard(|| ());
            watchdog.guard(|| thread::sleep(Duration::from_secs(60)));
            return;
        }
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", name, "--nocapture"]).env(HANG, "1").output().unwrap();
        use std::os::unix::process::ExitStatusExt as _;
        assert_eq!(output.status.signal(), Some(libc::SIGABRT));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("writing the log did not finish within 0.05 s; stopping"), "{said}");
    }
}
