//! The power goes: what was written and not synced is gone, what was synced is there.
//!
//! The data folder is on an ext4 of its own, which is shut down by force while the daemon, or a writer that does
//! nothing but append, is at work. A folder lives through five cuts.

use std::fs;
use std::time::Duration;

use sluice::shell::clock;
use sluice::sim::random::Random;

use crate::crash::campaign::Campaign;
use crate::crash::check::Promises;
use crate::crash::daemon::Daemon;
use crate::crash::disk::Disk;
use crate::crash::traffic::Traffic;
use crate::crash::writer::Writer;

/// Cuts of one folder.
const CUTS: u64 = 5;
const MIB: u64 = 160;
/// How long the work goes on before the cut, at most.
const WORK: Duration = Duration::from_millis(600);
/// A daemon whose disk fails is to end within this time: a failed write at once, one that hangs after 10 s, and all of it
/// later on a machine that has other work.
const ENDS_WITHIN: Duration = Duration::from_secs(30);
const DISK: &str = "{ballast: 1MiB, free_min: 1MiB}";

#[test]
fn what_was_confirmed_outlives_power_cuts() {
    let campaign = Campaign::new("cut", CUTS, 5);
    let home = tempfile::tempdir().expect("a temporary folder");
    let possible = Disk::ext4(home.path(), 16).and_then(|disk| disk.cut_power());
    if let Err(why) = possible {
        return campaign.skip(&format!(
            "no ext4 of our own whose power can be cut ({why}); needs root and loop devices"
        ));
    }
    campaign.run(|_, mut random| cuts(&mut random));
}

fn cuts(random: &mut Random) -> Vec<String> {
    let home = tempfile::tempdir().expect("a temporary folder");
    let disk = Disk::ext4(home.path(), MIB).expect("a disk");
    let data = disk.path().join("data");
    let mut promises = Promises::default();
    let mut met = Vec::new();
    for round in 0..CUTS {
        let work = WORK.mul_f64(random.unit());
        // A new name each time: ext4 hurries with the data of a file that replaces one.
        let unsynced = disk.path().join(format!("unsynced-{round}"));
        // What is confirmed from here on is confirmed by nobody: with the power the process would be gone.
        let cut = || {
            // Proof that the cut is one: this must not survive.
            fs::write(&unsynced, [7; 10_000]).expect("write without a sync");
            disk.cut_power().expect("the power is cut");
            clock::monotonic()
        };
        let how = if random.chance(0.5) {
            let mut writer = Writer::start(&data, random, &[]);
            std::thread::sleep(work);
            promises.durable(writer.last());
            cut();
            let said = writer.wait();
            promises.late_head = writer.rest().or(promises.late_head);
            format!("a writer, {}", if said { "which saw its write fail" } else { "which was not open yet" })
        } else {
            let traffic = Traffic::new(format!("p{round}"), 40);
            let mut daemon = Daemon::start(home.path(), &data, &[], DISK);
            // A cut may well come before it is up.
            let address = random.chance(0.8).then(|| daemon.ready().expect("nothing is wrong yet"));
            let up = address.is_some();
            let at = match address {
                Some(address) => traffic.run(&address, || {
                    std::thread::sleep(work);
                    promises.acked.append(&mut traffic.acked());
                    let at = cut();
                    daemon.wait();
                    at
                }),
                None => {
                    std::thread::sleep(work);
                    let at = cut();
                    // Without traffic one that came up in time has nothing to write, and does not notice.
                    if daemon.ready().is_some() {
                        daemon.kill9();
                    }
                    at
                }
            };
            let took = clock::monotonic() - at;
            assert!(took < ENDS_WITHIN, "round {round}: the daemon went on for {} s", took.as_secs_f64());
            let (ended, said) = (daemon.wait(), daemon.stderr());
            assert!(!ended.success() && !said.contains("panicked"), "round {round}: {ended}, {said}");
            promises.late.append(&mut traffic.acked());
            format!("the daemon, {}", if up { "at work" } else { "while it started" })
        };
        disk.power_on();
        let survived = fs::read(&unsynced).unwrap_or_default();
        assert!(!survived.contains(&7), "round {round}: the power was not cut, {} bytes", survived.len());
        // Some folders are cut again before anybody looks.
        if random.chance(0.7) || round + 1 == CUTS {
            let gone = promises.check(&data);
            met.extend((0..gone).map(|_| "confirmed after the cut, and gone".to_owned()));
        }
        met.push(how);
    }
    promises.check_verbs(&data);
    met
}
