//! The daemon, or a writer that does nothing but append, is killed as it enters its n-th system call of a kind.
//!
//! strace stops the process there, so the kill falls between two changes to the disk, wherever they are: while a folder
//! is made, a log recovered, a group written, an anchor replaced, a log closed. A folder lives through ten kills; after
//! some of them the next start comes unchecked, so that a recovery is killed as well.

use std::path::Path;
use std::time::Duration;

use sluice::shell::clock;
use sluice::sim::random::Random;

use crate::crash::campaign::Campaign;
use crate::crash::check::Promises;
use crate::crash::daemon::Daemon;
use crate::crash::traffic::Traffic;
use crate::crash::writer::Writer;

/// Kills of one folder.
const KILLS: u64 = 10;
/// How long the daemon works before it is ended otherwise.
const WORK: Duration = Duration::from_millis(250);
/// Small, so that a start does not spend its time on it.
const DISK: &str = "{ballast: 1MiB, free_min: 1MiB}";

/// What to count, and how far: about what a start and a little traffic do on one thread, and what a writer does.
const CALLS: [(&str, u64, u64); 9] = [
    ("pwrite64", 10, 200),
    ("fsync", 10, 200),
    ("fdatasync", 3, 4),
    ("rename", 3, 3),
    ("ftruncate", 3, 3),
    ("write", 40, 400),
    ("openat", 60, 80),
    ("mkdir", 4, 4),
    ("unlink", 1, 1),
];

#[test]
fn what_was_confirmed_outlives_a_kill_at_any_system_call() {
    let campaign = Campaign::new("kill", KILLS, 10);
    let strace = std::process::Command::new("strace").arg("-V").output();
    if !strace.is_ok_and(|output| output.status.success()) {
        return campaign.skip("strace is not installed: apt-get install strace");
    }
    campaign.run(|_, mut random| kills(&mut random));
}

/// One folder; says what each kill met.
fn kills(random: &mut Random) -> Vec<String> {
    let home = tempfile::tempdir().expect("a temporary folder");
    let data = home.path().join("data");
    let mut promises = Promises::default();
    let (mut met, mut killed) = (Vec::new(), 0);
    for round in 0.. {
        let (call, of_daemon, of_writer) = CALLS[random.below(CALLS.len() as u64) as usize];
        let writes = random.chance(0.4);
        let most = if writes { of_writer } else { of_daemon };
        let most = if random.chance(0.5) { most.min(8) } else { most };
        let under = at_call(call, 1 + random.below(most));
        let work = WORK.mul_f64(random.unit());
        let how = if writes {
            // Opening takes most of its time under strace.
            write(&data, random, &under, work * 3, &mut promises)
        } else {
            let traffic = Traffic::new(format!("k{round}"), 12);
            let mut daemon = Daemon::start(home.path(), &data, &under, DISK);
            let how = serve(&mut daemon, &traffic, random.chance(0.2), work);
            daemon.kill9();
            let said = daemon.stderr();
            // Nothing but the kill ends it.
            assert!(
                !said.contains("error[") && !said.contains("panicked"),
                "round {round}, {under:?}: {said}"
            );
            promises.acked.append(&mut traffic.acked());
            how
        };
        killed += u64::from(how != ENDED);
        met.push(if how.contains(' ') { how.to_owned() } else { format!("{call}, {how}") });
        if random.chance(0.5) || killed == KILLS {
            promises.check(&data);
        } else {
            met.push("started again unchecked".to_owned());
        }
        if killed == KILLS {
            break;
        }
    }
    promises.check_verbs(&data);
    met
}

/// The daemon under traffic. Says where the kill met it: in one word when it was at the call.
fn serve(daemon: &mut Daemon, traffic: &Traffic, closes: bool, work: Duration) -> &'static str {
    let Some(address) = daemon.ready() else { return "starting" };
    traffic.run(&address, || {
        let until = clock::monotonic() + work;
        while daemon.ended().is_none() && clock::monotonic() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        if daemon.ended().is_some() {
            return "serving";
        }
        if !closes {
            return "no such call, killed at some moment";
        }
        daemon.terminate();
        if daemon.wait().success() { ENDED } else { "closing" }
    })
}

/// The same of a writer.
fn write(
    data: &Path,
    random: &mut Random,
    under: &[String],
    work: Duration,
    promises: &mut Promises,
) -> &'static str {
    let mut writer = Writer::start(data, random, under);
    let until = clock::monotonic() + work;
    while writer.ended().is_none() && clock::monotonic() < until {
        std::thread::sleep(Duration::from_millis(2));
    }
    let met = writer.ended().is_some();
    writer.kill9();
    let last = writer.rest();
    promises.durable(last);
    match (met, last) {
        (false, _) => "no such call, killed at some moment",
        (true, None) => "opening",
        (true, Some(_)) => "appending",
    }
}

/// No kill at all.
const ENDED: &str = "no such call, ended in order";

/// The words that run a program until its `n`-th `call` on any thread.
fn at_call(call: &str, n: u64) -> Vec<String> {
    let inject = format!("inject={call}:signal=KILL:when={n}");
    let trace = format!("trace={call}");
    // With `--seccomp-bpf` it would be faster and, in 6.1, miss nearly every call.
    let words = ["strace", "-f", "-qqq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
    words.map(str::to_owned).to_vec()
}
