//! The real things integration tests run against: a nats-server and the `sluice serve` binary.
//!
//! Both die with the thread that started them (`setpriv --pdeathsig`), so a killed test run leaves
//! nothing behind. Hold them in the test that started them, never in a static.
//! Nothing here sleeps to be in step: `wait_for` polls a condition against one generous deadline.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Longer than anything here takes on a loaded machine; only a broken run ever waits this long.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Polls `probe` until it gives a value; panics with `what` after [`DEADLINE`].
#[expect(clippy::disallowed_methods, reason = "waits for real processes in real time")]
pub fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "waited {} s in vain for {what}", DEADLINE.as_secs());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A nats-server with JetStream that has each message on disk before it acknowledges it.
pub struct NatsServer {
    dir: TempDir,
    child: Child,
    port: u16,
}

impl NatsServer {
    /// Starts a server with an empty store on a free port.
    pub fn start() -> NatsServer {
        NatsServer::start_with("always", "")
    }

    /// Starts a server that syncs its files this often: `always`, or a time like `2m`, the server's own default.
    pub fn start_syncing(interval: &str) -> NatsServer {
        NatsServer::start_with(interval, "")
    }

    /// As [`NatsServer::start`], with these lines in its configuration: who may come in, and what they may do.
    pub fn start_guarded(access: &str) -> NatsServer {
        NatsServer::start_with("always", access)
    }

    fn start_with(interval: &str, more: &str) -> NatsServer {
        let dir = TempDir::new().expect("a temporary folder");
        let at = dir.path().display();
        let config = format!(
            "ports_file_dir: \"{at}\"\njetstream {{ store_dir: \"{at}/store\", sync_interval: {interval} }}\n{more}\n"
        );
        fs::write(dir.path().join("nats.conf"), config).expect("write nats.conf");
        let child = spawn_nats(dir.path(), "-1");
        let mut server = NatsServer { dir, child, port: 0 };
        server.wait_ready();
        server
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Kills the server as a crash would; the store stays.
    pub fn stop(&mut self) {
        kill9(&mut self.child);
        // A killed server leaves its ports file, which a successor with its pid would be taken for.
        fs::remove_file(self.ports_file()).expect("remove the ports file");
    }

    /// Starts the stopped server again on the same port and store.
    pub fn start_again(&mut self) {
        self.child = spawn_nats(self.dir.path(), &self.port.to_string());
        self.wait_ready();
    }

    fn wait_ready(&mut self) {
        let ports_file = self.ports_file();
        let url = wait_for("nats-server to write its ports file", || {
            if let Some(status) = self.child.try_wait().expect("ask for nats-server") {
                panic!("nats-server ended with {status}: {}", tail(&self.dir.path().join("nats.log")));
            }
            let ports: Value = serde_json::from_str(&fs::read_to_string(&ports_file).ok()?).ok()?;
            Some(ports["nats"][0].as_str()?.to_owned())
        });
        self.port = port_of(&url);
        wait_for("nats-server to offer JetStream", || {
            let stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
            stream.set_read_timeout(Some(DEADLINE)).ok()?;
            let mut greeting = String::new();
            BufReader::new(stream).read_line(&mut greeting).ok()?;
            greeting.contains("\"jetstream\":true").then_some(())
        });
    }

    fn ports_file(&self) -> PathBuf {
        self.dir.path().join(format!("nats-server_{}.ports", self.child.id()))
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        kill9(&mut self.child);
    }
}

fn spawn_nats(dir: &Path, port: &str) -> Child {
    let binary = std::env::var("SLUICE_NATS_SERVER").unwrap_or_else(|_| "nats-server".to_owned());
    let found = Command::new(&binary).arg("--version").output().is_ok_and(|o| o.status.success());
    assert!(found, "cannot run {binary:?}; `make test` installs a nats-server and sets SLUICE_NATS_SERVER");
    dying_with_us(&binary)
        .args(["-a", "127.0.0.1", "-p", port, "-c"])
        .arg(dir.join("nats.conf"))
        .stdout(Stdio::null())
        .stderr(File::create(dir.join("nats.log")).expect("create nats.log"))
        .spawn()
        .expect("start nats-server through setpriv (util-linux)")
}

/// The real daemon, `sluice serve`, on a data folder of its own.
pub struct Daemon {
    dir: TempDir,
    args: Vec<String>,
    /// How often it was started: each run has its own output files.
    runs: u32,
    child: Child,
    address: String,
}

impl Daemon {
    /// Starts the daemon on an empty data folder and waits for its ready line. Without `nats` it runs
    /// its in-process bus. `policies` is a folder of policy files.
    pub fn start(nats: Option<&NatsServer>, policies: Option<&Path>) -> Daemon {
        Daemon::start_at(nats.map(NatsServer::url), policies)
    }

    /// As [`Daemon::start`], with the address of a broker, or of what stands before one.
    pub fn start_at(nats: Option<String>, policies: Option<&Path>) -> Daemon {
        Daemon::start_configured(nats, policies, None)
    }

    /// As [`Daemon::start_at`], with a config file.
    pub fn start_configured(nats: Option<String>, policies: Option<&Path>, config: Option<&Path>) -> Daemon {
        let dir = TempDir::new().expect("a temporary folder");
        let mut args = vec!["serve".into(), "--http".into(), "127.0.0.1:0".into()];
        args.extend(["--data".into(), dir.path().join("data").display().to_string()]);
        if let Some(nats) = nats {
            args.extend(["--nats".into(), nats]);
        }
        if let Some(policies) = policies {
            args.extend(["--policies".into(), policies.display().to_string()]);
        }
        if let Some(config) = config {
            args.extend(["--config".into(), config.display().to_string()]);
        }
        let child = spawn_daemon(dir.path(), &args, 1);
        let mut daemon = Daemon { dir, args, runs: 1, child, address: String::new() };
        daemon.wait_ready();
        daemon
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the daemon as a crash would.
    pub fn kill9(&mut self) {
        kill9(&mut self.child);
    }

    /// Asks the daemon to end (SIGTERM) and waits until it has.
    pub fn terminate(&mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().expect("run kill");
        assert!(sent.success(), "the daemon (pid {pid}) is not running any more");
        wait_for("the daemon to end after SIGTERM", || self.child.try_wait().expect("ask for the daemon"))
    }

    /// Starts the ended daemon again on the same data; its HTTP port is a new one.
    pub fn restart(&mut self) {
        self.launch();
        self.wait_ready();
    }

    /// Where the broker is from the next start on.
    pub fn turn_to(&mut self, nats: &NatsServer) {
        let flag = self.args.iter().position(|arg| arg == "--nats").expect("a daemon with a broker");
        self.args[flag + 1] = nats.url();
    }

    /// As [`Daemon::restart`], without waiting until it is ready: to kill it while it recovers.
    pub fn launch(&mut self) {
        self.runs += 1;
        self.child = spawn_daemon(self.dir.path(), &self.args, self.runs);
    }

    /// GET; the status and the JSON body (`Null` when the body is not JSON).
    pub fn get(&self, path: &str) -> (u16, Value) {
        reply(http().get(self.url(path))).expect("an HTTP answer from the daemon")
    }

    /// POST of JSON; the status and the JSON body.
    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        try_post(&self.url(path), body).expect("an HTTP answer from the daemon")
    }

    /// Everything this run has written to standard error so far.
    pub fn stderr(&self) -> String {
        fs::read_to_string(output(self.dir.path(), self.runs, "stderr")).expect("read the daemon's stderr")
    }

    fn wait_ready(&mut self) {
        let stdout = output(self.dir.path(), self.runs, "stdout");
        let stderr = output(self.dir.path(), self.runs, "stderr");
        self.address = wait_for("the daemon's line `ready http=`", || {
            if let Some(status) = self.child.try_wait().expect("ask for the daemon") {
                panic!("the daemon ended with {status}: {}", tail(&stderr));
            }
            ready_address(&fs::read_to_string(&stdout).ok()?)
        });
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        kill9(&mut self.child);
        if std::thread::panicking() {
            eprintln!("the daemon's last words:\n{}", tail(&output(self.dir.path(), self.runs, "stderr")));
        }
    }
}

/// The address in the ready line, once that line is complete.
pub fn ready_address(stdout: &str) -> Option<String> {
    let complete = &stdout[..=stdout.rfind('\n')?];
    complete.lines().find_map(|line| line.strip_prefix("ready http=")).map(str::to_owned)
}

fn spawn_daemon(dir: &Path, args: &[String], run: u32) -> Child {
    dying_with_us(env!("CARGO_BIN_EXE_sluice"))
        .args(args)
        .stdin(Stdio::null())
        .stdout(File::create(output(dir, run, "stdout")).expect("create the daemon's stdout"))
        .stderr(File::create(output(dir, run, "stderr")).expect("create the daemon's stderr"))
        .spawn()
        .expect("start the daemon through setpriv (util-linux)")
}

fn output(dir: &Path, run: u32, stream: &str) -> PathBuf {
    dir.join(format!("{stream}-{run}"))
}

/// `setpriv` sets the parent-death signal and then becomes `program`, under the same pid: the
/// direct way, `prctl` between fork and exec, needs `unsafe`.
pub fn dying_with_us(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

/// Kills and reaps a child that leads a process group, with all of the group.
pub fn kill9_group(child: &mut Child) {
    let group = format!("-{}", child.id());
    // The group may be gone.
    let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
    kill9(child);
}

/// Kills and reaps; a child that has ended already is left as it is.
pub fn kill9(child: &mut Child) {
    child.kill().expect("kill a child");
    child.wait().expect("reap a child");
}

fn port_of(url: &str) -> u16 {
    let port = url.rsplit(':').next().and_then(|port| port.parse().ok());
    port.unwrap_or_else(|| panic!("no port in {url:?}"))
}

/// The last 20 lines of a file, for a panic message.
fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_else(|e| format!("cannot read {}: {e}", path.display()));
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// A client for plain HTTP.
pub fn http() -> reqwest::blocking::Client {
    // reqwest wants a TLS provider even for plain HTTP. An error only says that one is set already.
    let _ = async_nats::rustls::crypto::ring::default_provider().install_default();
    reqwest::blocking::Client::builder().timeout(DEADLINE).build().expect("an HTTP client")
}

/// POST of JSON to a daemon that may be dying: nothing when no whole answer came.
pub fn try_post(url: &str, body: &Value) -> Option<(u16, Value)> {
    reply(http().post(url).json(body))
}

/// Sends; the status and the JSON body, or nothing when no whole answer came.
pub fn reply(request: reqwest::blocking::RequestBuilder) -> Option<(u16, Value)> {
    let response = request.send().ok()?;
    let status = response.status().as_u16();
    let body = response.bytes().ok()?;
    Some((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
}

/// Runs an offline verb of the binary with these environment variables; its exit code and everything it wrote.
pub fn sluice_in(place: &[(&str, &str)], args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    let output = command.args(args).envs(place.iter().copied()).output().expect("run sluice");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn a_ready_line_counts_once_it_is_complete() {
    assert_eq!(ready_address("ready http=127.0.0.1:71"), None);
    assert_eq!(ready_address("ready http=127.0.0.1:7117\n"), Some("127.0.0.1:7117".to_owned()));
}
