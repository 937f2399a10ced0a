//! One damage: made to a copy of a sound log, which is then read.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use sluice::core::event::Event;
use sluice::core::ids::{Digest, EventSeq};
use sluice::shell::log::{Log, LogError};
use sluice::shell::recover;
use sluice::sim::random::Random;
use sluice::wire::envelope::{Group, Head, encode, header};
use uuid::Uuid;

use super::templates;
use crate::crash::check;

/// Where copies are damaged, one after another.
pub struct Bench {
    _home: tempfile::TempDir,
    templates: Vec<Template>,
}

/// A sound log, and the folder its damaged copies are read in.
struct Template {
    name: String,
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// End of the bytes in use, at a rough guess: zeros follow.
    used: BTreeMap<PathBuf, usize>,
    dir: PathBuf,
    sound: Read,
    records: Vec<Vec<u8>>,
}

/// All that a log says.
#[derive(PartialEq, Debug)]
struct Read {
    log: Uuid,
    head: Head,
    records: Digest,
    state: Digest,
}

impl Bench {
    pub fn new(templates: &Path) -> Bench {
        let memory = Path::new("/dev/shm");
        let home = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let home = home.expect("a temporary folder");
        let names = templates::names(templates).into_iter();
        let templates = names.map(|name| Template::new(&templates.join(&name), name, home.path())).collect();
        Bench { _home: home, templates }
    }

    /// Damages a copy and reads it; says what was done and what came of it. What is not as it should be stays in
    /// `keep`, as it was before anybody opened it.
    pub fn attempt(&mut self, random: &mut Random, keep: &Path) -> String {
        let template = &self.templates[pick(random, &[4, 4, 2])];
        // Not every draw is one: a record swapped with itself changes nothing.
        let (what, again) = loop {
            template.restore();
            let again = random.clone();
            if let Some(what) = template.damage(random) {
                break (what, again);
            }
        };
        let bad = match check::open(&template.dir).and_then(|log| read(&log)) {
            Ok(read) if read == template.sound => return format!("not in use: {what}"),
            Ok(read) => format!("UNNOTICED: {what}: {:?} became {read:?}", template.sound),
            Err(error) => {
                let text = error.to_string();
                if ["seq ", "page ", "byte ", "bytes "].iter().any(|word| text.contains(word)) {
                    return format!("located: {what}");
                }
                format!("WITHOUT A PLACE: {what}: {text}")
            }
        };
        template.restore();
        template.damage(&mut again.clone());
        copy(&template.dir, keep);
        format!("{bad}; in a log of the kind {}, kept in {}", template.name, keep.display())
    }
}

impl Template {
    fn new(from: &Path, name: String, home: &Path) -> Template {
        let mut files = BTreeMap::new();
        for path in ["anchor", "lock", "sled/conf", "sled/db"] {
            files.insert(PathBuf::from(path), fs::read(from.join(path)).expect("a file of the template"));
        }
        for entry in fs::read_dir(from.join("sled")).expect("the store") {
            let entry = entry.expect("an entry");
            if entry.file_name().to_string_lossy().starts_with("snap.") {
                let bytes = fs::read(entry.path()).expect("a file of the template");
                files.insert(Path::new("sled").join(entry.file_name()), bytes);
            }
        }
        let used = files.iter().map(|(path, bytes)| {
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            (path.clone(), used)
        });
        let used = used.collect();
        let dir = home.join(&name);
        fs::create_dir_all(dir.join("sled/blobs")).expect("a folder");
        let sound = Read {
            log: Uuid::nil(),
            head: Head::default(),
            records: Digest::default(),
            state: Digest::default(),
        };
        let mut template = Template { name, files, used, dir, sound, records: Vec::new() };
        // The copy is opened, never the template itself: that would leave it as a crash does.
        template.restore();
        let log = check::open(&template.dir).expect("the template opens");
        template.sound = read(&log).expect("the template is sound");
        let mut scan = log.reader().scan(1).expect("it scans");
        while let Some(bytes) = scan.advance(|record| record.bytes.to_vec()).expect("a sound record") {
            template.records.push(bytes);
        }
        template
    }

    /// Puts the folder back as the sound log left it.
    fn restore(&self) {
        for entry in fs::read_dir(self.dir.join("sled")).expect("the store") {
            let entry = entry.expect("an entry");
            let path = Path::new("sled").join(entry.file_name());
            if entry.file_name() != "blobs" && !self.files.contains_key(&path) {
                fs::remove_file(entry.path()).expect("remove a file");
            }
        }
        for (path, bytes) in &self.files {
            // A new file: whatever a broken store leaked may hold a lock on the old one.
            let _ = fs::remove_file(self.dir.join(path));
            fs::write(self.dir.join(path), bytes).expect("write a file");
        }
    }

    /// Does one damage; `None` when that changed nothing.
    fn damage(&self, random: &mut Random) -> Option<String> {
        let kind = pick(random, &[40, 12, 12, 8, 6, 6, 4, 4, 4, 4]);
        match kind {
            0 => self.in_file(random, "bit flipped", |random, bytes, at, _| {
                bytes[at] ^= 1 << random.below(8);
            }),
            1 => self.in_file(random, "file cut short", |_, bytes, at, _| bytes.truncate(at)),
            2 => self.in_file(random, "bytes overwritten", |random, bytes, at, used| {
                let n = 1 + random.below(4_096.min((used - at) as u64)) as usize;
                let zeros = random.chance(0.5);
                bytes[at..at + n].fill_with(|| if zeros { 0 } else { random.bits() as u8 });
            }),
            3 => self.in_file(random, "two stretches swapped", |random, bytes, at, used| {
                let other = random.below(used as u64) as usize;
                let (a, b) = (at.min(other), at.max(other));
                let n = [64, 512, 4_096][pick(random, &[1, 1, 1])].min(b - a).min(used - b);
                let (left, right) = bytes.split_at_mut(b);
                left[a..a + n].swap_with_slice(&mut right[..n]);
            }),
            4 => self.in_file(random, "bytes lost", |random, bytes, at, used| {
                let n = 1 + random.below(600.min((used - at) as u64)) as usize;
                bytes.drain(at..at + n);
            }),
            _ => self.in_records(random, kind),
        }
    }

    /// Changes one file of the store, or the anchor.
    fn in_file(
        &self,
        random: &mut Random,
        what: &str,
        change: impl FnOnce(&mut Random, &mut Vec<u8>, usize, usize),
    ) -> Option<String> {
        let named = |part: &str| self.files.keys().find(|path| path.to_string_lossy().starts_with(part));
        let parts = ["sled/db", "sled/snap.", "sled/conf", "anchor"];
        let part = parts[pick(random, &[80, 10, 4, 6])];
        let path = named(part)?;
        let mut bytes = self.files[path].clone();
        let used = self.used[path];
        let at = random.below(used as u64) as usize;
        change(random, &mut bytes, at, used);
        if bytes == self.files[path] {
            return None;
        }
        fs::write(self.dir.join(path), bytes).expect("write a file");
        Some(format!("{what} in {}", part.trim_end_matches('.')))
    }

    /// Changes what the store holds, through the store: well-formed, with checksums as they should be.
    fn in_records(&self, random: &mut Random, kind: usize) -> Option<String> {
        let config = sled::Config::new().path(self.dir.join("sled")).flush_every_ms(None);
        let db = loop {
            // A store that was dropped lets go of its folder a moment later.
            match config.open() {
                Err(sled::Error::Io(error)) if error.to_string().contains("acquire lock") => {}
                opened => break opened.expect("the store opens"),
            }
        };
        let pages = db.open_tree("pages").expect("the pages");
        let keys: Vec<_> = pages.iter().keys().map(|key| key.expect("a key")).collect();
        let key = keys[random.below(keys.len() as u64) as usize].clone();
        let value = pages.get(&key).expect("read").expect("it is there");
        let what = match kind {
            5 => {
                // Neighbours swap places, or any two pages.
                let other = &keys[random.below(keys.len() as u64) as usize];
                let theirs = pages.get(other).expect("read").expect("it is there");
                if theirs == value {
                    return None;
                }
                pages.insert(&key, theirs).expect("write");
                pages.insert(other, value).expect("write");
                "two pages swapped"
            }
            6 => {
                pages.remove(&key).expect("remove");
                "a page removed"
            }
            7 => {
                // The records of one page, in another order, or one of them twice, or one less.
                let mut records = split(&value)?;
                let n = records.len() as u64;
                let (a, b) = (random.below(n) as usize, random.below(n) as usize);
                match random.below(3) {
                    0 if a == b => return None,
                    0 => records.swap(a, b),
                    1 => records.insert(a, records[b].clone()),
                    // The last of the log, taken away whole, leaves a log that ends before its anchor.
                    _ => drop(records.remove(a)),
                }
                pages.insert(&key, records.concat()).expect("write");
                "records of a page in disorder"
            }
            8 => {
                // A record that continues the chain where it stands; what follows does not.
                let mut records = split(&value)?;
                let at = random.below(records.len() as u64) as usize;
                let record = header(&records[at], &mut 0).expect("a record");
                let mut new = Vec::new();
                encode(&event(random), record.seq, record.at, record.prev, &mut new).expect("it fits");
                match random.below(2) {
                    0 if new == records[at] => return None,
                    0 => records[at] = new,
                    _ => records.insert(at, new),
                }
                pages.insert(&key, records.concat()).expect("write");
                "a well-formed record forged"
            }
            _ => {
                // Everything from one record on, written anew with sound hashes.
                let from = 1 + random.below(self.records.len() as u64);
                if !self.rewrite(&pages, from, random) {
                    return None;
                }
                "the chain rewritten"
            }
        };
        db.flush().expect("flush");
        Some(what.to_owned())
    }

    /// Another history from `from` on, as long as the true one; `false` when it is the true one.
    fn rewrite(&self, pages: &sled::Tree, from: EventSeq, random: &mut Random) -> bool {
        let mut group = Group::default();
        for (i, bytes) in self.records.iter().enumerate() {
            let record = header(bytes, &mut 0).expect("a record");
            if record.seq == from {
                group.push(&event(random), record.at).expect("it fits");
            } else if i as EventSeq + 1 < from {
                group.push_stored(&record).expect("it continues the chain");
            } else {
                group.push(&record.event().expect("an event"), record.at).expect("it fits");
            }
        }
        if group.bytes() == self.records.concat() {
            return false;
        }
        // In pages of one record each: how records are cut into pages is nobody's promise.
        pages.clear().expect("clear");
        let mut start = 0;
        for (i, end) in group.ends().iter().enumerate() {
            for (part, bytes) in group.bytes()[start..*end].chunks(6_400).enumerate() {
                let mut key = (i as EventSeq + 1).to_be_bytes().to_vec();
                key.extend((part > 0).then_some(part as u8));
                pages.insert(key, bytes).expect("write");
            }
            start = *end;
        }
        true
    }
}

/// The records of a page; `None` where it holds a part of one.
fn split(page: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (mut records, mut offset) = (Vec::new(), 0);
    while offset < page.len() {
        records.push(header(page, &mut offset).ok()?.bytes.to_vec());
    }
    Some(records)
}

fn event(random: &mut Random) -> Event {
    match random.below(2) {
        0 => Event::TimePassed,
        _ => Event::DaemonStarted { build: format!("forged {}", random.bits()) },
    }
}

/// Everything a start of the daemon reads.
fn read(log: &Log) -> Result<Read, LogError> {
    let mut scan = log.reader().scan(1)?;
    let mut hasher = blake3::Hasher::new();
    while scan
        .advance(|record| {
            hasher.update(record.bytes);
        })?
        .is_some()
    {}
    let head = scan.head();
    log.outbox_cursor()?;
    let state = recover::recover(log)?;
    Ok(Read { log: log.id(), head, records: Digest(*hasher.finalize().as_bytes()), state: state.digest() })
}

/// Copies a data folder.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let (entry, to) = entry.map(|entry| (entry.path(), to.join(entry.file_name()))).expect("an entry");
        if entry.is_dir() {
            copy(&entry, &to);
        } else {
            fs::copy(entry, to).expect("copy a file");
        }
    }
}

/// An index, by weight.
fn pick(random: &mut Random, weights: &[u64]) -> usize {
    let drawn = random.below(weights.iter().sum());
    let mut sum = 0;
    let reached = |weight: &u64| {
        sum += weight;
        drawn < sum
    };
    weights.iter().position(reached).expect("it is below the sum")
}
