//! The daemon under test, on a data folder of the test's choice and perhaps under another program.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};

use crate::support::{dying_with_us, kill9_group, ready_address, wait_for};

pub struct Daemon {
    child: Child,
    home: PathBuf,
    data: PathBuf,
}

impl Daemon {
    /// Starts `sluice serve` on `data`, behind the words of `under`. Its output goes to files in `home`.
    pub fn start(home: &Path, data: &Path, under: &[String], disk: &str) -> Daemon {
        let config =
            format!("apiVersion: sluice.dev/v1\nkind: Config\nhttp: {{listen: 127.0.0.1:0}}\ndisk: {disk}\n");
        fs::write(home.join("sluice.yaml"), config).expect("write the config");
        let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/campaign/kill/policies");
        let mut words = under.to_vec();
        words.extend(
            ["setpriv", "--pdeathsig", "KILL", env!("CARGO_BIN_EXE_sluice"), "serve"].map(Into::into),
        );
        let create = |name| File::create(home.join(name)).expect("create an output file");
        let child = dying_with_us(&words[0])
            .args(&words[1..])
            .arg("--config")
            .arg(home.join("sluice.yaml"))
            .arg("--policies")
            .arg(policies)
            .arg("--data")
            .arg(data)
            .stdin(Stdio::null())
            .stdout(create("stdout"))
            .stderr(create("stderr"))
            .process_group(0)
            .spawn()
            .expect("start the daemon through setpriv (util-linux)");
        Daemon { child, home: home.to_owned(), data: data.to_owned() }
    }

    /// The address once it is up; `None` when it ended before.
    pub fn ready(&mut self) -> Option<String> {
        wait_for("the daemon to be up or to end", || {
            if self.ended().is_some() {
                return Some(None);
            }
            Some(Some(ready_address(&fs::read_to_string(self.home.join("stdout")).ok()?)?))
        })
    }

    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("ask for the daemon")
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        wait_for("the daemon to end", || self.ended())
    }

    /// SIGTERM to the daemon itself, whatever it runs under. It may have ended already.
    pub fn terminate(&self) {
        if let Ok(pid) = fs::read_to_string(self.data.join("lock")) {
            let sent = std::process::Command::new("kill").args(["-TERM", pid.trim()]).output();
            sent.expect("run kill");
        }
    }

    /// Ends it as a crash would, and what it runs under, and waits until the folder is free.
    pub fn kill9(&mut self) {
        kill9_group(&mut self.child);
        let Ok(lock) = File::open(self.data.join("lock")) else { return };
        wait_for("the folder to be free", || lock.try_lock().is_ok().then_some(()));
    }

    pub fn stderr(&self) -> String {
        fs::read_to_string(self.home.join("stderr")).expect("read the daemon's stderr")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        kill9_group(&mut self.child);
        if std::thread::panicking() {
            let text = self.stderr();
            let lines: Vec<_> = text.lines().collect();
            eprintln!("the daemon's last words:\n{}", lines[lines.len().saturating_sub(10)..].join("\n"));
        }
    }
}
