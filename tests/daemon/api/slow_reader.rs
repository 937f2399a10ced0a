//! Clients that ask and never read, on the real daemon.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;

use super::*;
use crate::support::{Daemon, http, wait_for};

/// How many do so at once.
const CLIENTS: usize = 20;

fn connect(daemon: &Daemon) -> TcpStream {
    let stream = TcpStream::connect(daemon.url("").trim_start_matches("http://")).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// Asks for the connections that the daemon counts, the one by which it asks included: always the same, for one that is over may
/// count for a while.
fn connections(daemon: &Daemon) -> impl Fn() -> usize + use<> {
    let (client, url) = (http(), daemon.url("/metrics"));
    move || {
        let metrics = client.get(&url).send().unwrap().text().unwrap();
        let open = metrics.lines().find_map(|line| line.strip_prefix("sluice_http_connections ")).unwrap();
        open.parse().unwrap()
    }
}

/// The most memory it has had, in MiB.
fn peak_mib(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// Asks again and again and reads nothing, until the daemon ends the connection.
fn ask(mut stream: TcpStream) -> ErrorKind {
    let requests = get("/metrics").repeat(100);
    loop {
        if let Err(error) = stream.write_all(requests.as_bytes()) {
            return error.kind();
        }
    }
}

#[test]
fn who_asks_and_never_reads_is_sent_away() {
    let mut daemon = Daemon::start(None, None);
    let before = peak_mib(&daemon);
    std::thread::scope(|scope| {
        let clients: Vec<_> =
            (0..CLIENTS).map(|_| connect(&daemon)).map(|stream| scope.spawn(|| ask(stream))).collect();
        // Others are served meanwhile.
        assert_eq!(daemon.post("/v1/intents", &intent("a")).0, 200);
        for client in clients {
            let error = client.join().unwrap();
            assert!(matches!(error, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
        }
    });
    let connections = connections(&daemon);
    wait_for("all places to be free", || (connections() == 1).then_some(()));
    let grown = peak_mib(&daemon) - before;
    assert!(grown < 2 * CLIENTS as u64, "{grown} MiB for {CLIENTS} clients");
    assert!(daemon.terminate().success());
}

#[test]
fn a_stream_that_nobody_reads_ends() {
    // One policy there sends no command twice within an hour.
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/campaign/kill/policies");
    let mut daemon = Daemon::start(None, Some(&policies));
    // Decisions, more than the sockets between them take.
    std::thread::scope(|scope| {
        for sender in 0..8 {
            let (client, url) = (http(), daemon.url("/v1/intents"));
            scope.spawn(move || {
                for i in 0..125 {
                    let mut intent = intent(&format!("s-{sender}-{i}"));
                    intent["policy"] = json!("short");
                    assert_eq!(client.post(&url).json(&intent).send().unwrap().status(), 200);
                }
            });
        }
    });
    let before = peak_mib(&daemon);
    let streams: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| {
            let (mut stream, mut begins) = (connect(&daemon), [0; 15]);
            stream.write_all(get("/v1/decisions?from=1").as_bytes()).unwrap();
            stream.read_exact(&mut begins).unwrap();
            assert_eq!(&begins, b"HTTP/1.1 200 OK");
            stream
        })
        .collect();
    assert_eq!(daemon.post("/v1/intents", &intent("a")).0, 200);
    let connections = connections(&daemon);
    wait_for("the streams to end", || (connections() == 1).then_some(()));
    drop(streams);
    let grown = peak_mib(&daemon) - before;
    assert!(grown < 2 * CLIENTS as u64, "{grown} MiB for {CLIENTS} streams");
    assert!(daemon.terminate().success());
}

/// What they still wait for is cut off.
#[test]
fn the_end_does_not_wait_for_who_never_reads() {
    let mut daemon = Daemon::start(None, None);
    std::thread::scope(|scope| {
        let clients: Vec<_> =
            (0..CLIENTS).map(|_| connect(&daemon)).map(|stream| scope.spawn(|| ask(stream))).collect();
        let connections = connections(&daemon);
        wait_for("them to ask", || (connections() > CLIENTS).then_some(()));
        assert!(daemon.terminate().success(), "{}", daemon.stderr());
        for client in clients {
            client.join().unwrap();
        }
    });
}
