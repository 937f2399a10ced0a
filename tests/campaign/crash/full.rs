//! The disk fills: intake stops while decisions go on, nothing confirmed is lost, and with room again all goes on.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use sluice::shell::clock;
use sluice::sim::random::Random;

use crate::crash::campaign::Campaign;
use crate::crash::check::Promises;
use crate::crash::daemon::Daemon;
use crate::crash::disk::Disk;
use crate::crash::traffic::{Traffic, What};
use crate::support::{DEADLINE, try_post, wait_for};

const MIB: u64 = 96;
/// Intake stops below 12 MiB; the ballast is more than what opening needs.
const DISK: &str = "{ballast: 20MiB, free_min: 12MiB}";
const FREE_MIN: u64 = 12 << 20;

#[test]
fn a_disk_that_fills_stops_intake_and_loses_nothing() {
    let campaign = Campaign::new("fill", 1, 1);
    let home = tempfile::tempdir().expect("a temporary folder");
    if let Err(why) = Disk::tmpfs(home.path(), 1) {
        return campaign.skip(&format!("nothing may be mounted here ({why}); needs root"));
    }
    campaign.run(|case, mut random| vec![fill(case, &mut random)]);
}

fn fill(case: u64, random: &mut Random) -> String {
    let home = tempfile::tempdir().expect("a temporary folder");
    let on_ext4 = random.chance(0.5);
    let ext4 = on_ext4.then(|| Disk::ext4(home.path(), MIB));
    let (disk, kind) = match ext4 {
        Some(Ok(disk)) => (disk, "ext4"),
        // Not everywhere is there a loop device.
        Some(Err(_)) | None => (Disk::tmpfs(home.path(), MIB).expect("a disk"), "tmpfs"),
    };
    let (data, filler) = (disk.path().join("data"), disk.path().join("filler"));
    let mut promises = Promises::default();
    let at_once = random.chance(0.5);
    let wait = Duration::from_millis(random.below(500));
    // What is left: nothing, or some of what is kept for decisions.
    let left = if at_once { 0 } else { FREE_MIN / 4 + random.below(FREE_MIN / 2) };

    let traffic = Traffic::new(format!("f{case}"), 1_000_000);
    let mut daemon = Daemon::start(home.path(), &data, &[], DISK);
    let address = daemon.ready().expect("the daemon is up");
    let url = |address: &str, path: &str| format!("http://{address}/v1{path}");
    let first = intent("first");
    let (status, receipt) = try_post(&url(&address, "/intents"), &first).expect("an answer");
    assert_eq!(status, 200, "{receipt}");
    let rollout = receipt["rollout"].as_str().expect("a rollout").to_owned();
    let order = json!({"actor": "maya", "reason": "users complain"});
    let how = traffic.run(&address, || {
        std::thread::sleep(wait);
        grow(&filler, disk.path(), left);
        if at_once {
            // Decisions are recorded to the last byte; then it ends, and says why.
            let note = json!({"actor": "maya", "reason": "noted ".repeat(300)});
            wait_for("the daemon to end", || {
                let answer = try_post(&url(&address, &format!("/rollouts/{rollout}/note")), &note);
                let seq = answer
                    .filter(|(status, _)| *status == 200)
                    .and_then(|(_, answer)| answer["seq"].as_u64());
                traffic.confirmed(seq, What::Order { rollout: rollout.clone(), command: None });
                daemon.ended()
            });
            return match traffic.full.load(Ordering::Relaxed) {
                true => "full at once: intake stopped, the daemon ended at the last byte",
                false => "full at once: the daemon ended",
            };
        }
        wait_for("intake to stop", || {
            assert!(daemon.ended().is_none(), "the daemon ended: {}", daemon.stderr());
            traffic.full.load(Ordering::Relaxed).then_some(())
        });
        // What takes traffic back is recorded to the last byte.
        let answer = try_post(&url(&address, &format!("/rollouts/{rollout}/rollback")), &order);
        let (status, answer) = answer.expect("an answer");
        assert_eq!(status, 200, "a rollback on a disk that is nearly full: {answer}");
        fs::remove_file(&filler).expect("make room");
        wait_for("intake to go on", || {
            let (status, _) = try_post(&url(&address, "/intents"), &intent("with room"))?;
            (status == 200).then_some(())
        });
        "nearly full: intake stopped, a rollback was taken, intake went on"
    });
    if at_once {
        assert!(!daemon.wait().success(), "{}", daemon.stderr());
        assert!(daemon.stderr().contains("no space left on device"), "{}", daemon.stderr());
    }
    daemon.kill9();
    promises.acked.append(&mut traffic.acked());

    if at_once {
        // Whatever the daemon left is filled too. The ballast is for this: it opens, tells, and takes decisions.
        grow(&filler, disk.path(), 0);
        let mut daemon = Daemon::start(home.path(), &data, &[], DISK);
        let address = daemon.ready().unwrap_or_else(|| panic!("full disk: {}", daemon.stderr()));
        let (status, answer) = try_post(&url(&address, "/intents"), &intent("no room")).expect("an answer");
        // With the ballast given up there may be just enough for it.
        assert!(status == 200 || answer["code"] == "E5021", "{answer}");
        let answer = try_post(&url(&address, &format!("/rollouts/{rollout}/rollback")), &order);
        let (status, answer) = answer.expect("an answer");
        assert_eq!(status, 200, "a rollback on a full disk: {answer}");
        daemon.terminate();
        assert!(daemon.wait().success(), "{}", daemon.stderr());
        fs::remove_file(&filler).expect("make room");
    }
    promises.check(&data);
    let mut daemon = Daemon::start(home.path(), &data, &[], DISK);
    let address = daemon.ready().unwrap_or_else(|| panic!("with room: {}", daemon.stderr()));
    wait_for("intake to go on", || {
        let (status, _) = try_post(&url(&address, "/intents"), &intent("afterwards"))?;
        (status == 200).then_some(())
    });
    daemon.terminate();
    assert!(daemon.wait().success(), "{}", daemon.stderr());
    promises.check(&data);
    promises.check_verbs(&data);
    let reopened = if at_once { ", the ballast reopened the log" } else { "" };
    format!("{kind}, {how}{reopened}")
}

fn intent(id: &str) -> serde_json::Value {
    json!({
        "id": id.replace(' ', "-"), "service": format!("s-{}", id.replace(' ', "-")),
        "change": {"kind": "prompt", "from": "a@1", "to": "b@1"},
        "policy": "short", "by": "maya", "reason": "a better answer",
    })
}

/// Grows `filler` until so many bytes are left on the disk; with 0, until nothing more fits.
fn grow(filler: &Path, disk: &Path, left: u64) {
    let mut file = File::options().create(true).append(true).open(filler).expect("the filler");
    let end = clock::monotonic() + DEADLINE;
    let mut piece = 1 << 20;
    while clock::monotonic() < end {
        let free = sluice::shell::os_sync::room(disk).expect("room").free;
        if free <= left {
            return;
        }
        let size = piece.min((free - left).max(1) as usize);
        // On ext4 the room shows once the data has its place.
        if file.write_all(&vec![1; size]).and_then(|()| file.sync_data()).is_err() {
            if left == 0 && piece <= 512 {
                return;
            }
            piece = (piece / 2).max(512);
        }
    }
    panic!("the disk does not fill");
}
