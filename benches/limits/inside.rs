//! The daemon's writer and bus in this process, on the log or on what it is compared with.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use sluice::core::event::Event;
use sluice::core::ids::EventSeq;
use sluice::core::state::State;
use sluice::shell::bus::{self, NatsSettings, Running};
use sluice::shell::log::{Log, LogError, OpenOptions};
use sluice::shell::policies;
use sluice::shell::writer::{self, Journal, OUTBOX_MAX, Store, Writer};
use sluice::wire::envelope::{Envelope, Group, Head};
use tokio::runtime::Runtime;

/// One file, written and synced a group at a time: the least that durability costs.
pub struct PlainFile {
    file: File,
    head: Head,
    log: Log,
}

impl PlainFile {
    pub fn new(dir: &Path, log: Log) -> PlainFile {
        PlainFile { file: File::create(dir.join("plain")).expect("a file"), head: log.head(), log }
    }
}

impl Journal for PlainFile {
    type Error = LogError;

    fn head(&self) -> Head {
        self.head
    }

    fn append(&mut self, group: &Group) -> Result<(), LogError> {
        self.file
            .write_all(group.bytes())
            .and_then(|()| self.file.sync_data())
            .expect("write the plain file");
        self.head = group.head();
        Ok(())
    }

    fn scan(&self, _: EventSeq, _: &mut dyn FnMut(&Envelope) -> bool) -> Result<(), LogError> {
        Ok(())
    }

    fn snapshot(&self) -> Result<Option<(Head, Vec<u8>)>, LogError> {
        Ok(None)
    }

    fn put_snapshot(&mut self, bytes: &[u8]) -> Result<(), LogError> {
        self.log.put_snapshot(self.head, bytes)
    }

    fn outbox_cursor(&self) -> Result<EventSeq, LogError> {
        self.log.outbox_cursor()
    }

    fn set_outbox_cursor(&mut self, seq: EventSeq) {
        self.log.set_outbox_cursor(seq);
    }
}

impl Store for PlainFile {
    fn log(&mut self) -> &mut Log {
        &mut self.log
    }

    fn into_log(self) -> Log {
        self.log
    }
}

/// Writer and bus at work.
pub struct Inside {
    runtime: Runtime,
    writer: Writer,
    thread: std::thread::JoinHandle<Result<(), LogError>>,
    running: Running,
}

impl Inside {
    pub fn start<S: Store>(dir: &Path, url: &str, journal: impl FnOnce(Log) -> S) -> Inside {
        let runtime = Runtime::new().expect("a runtime");
        let (writer, thread, running) = runtime.block_on(async {
            let options = OpenOptions { ballast: 0, ..OpenOptions::default() };
            let log = Log::open(dir, &options).expect("open the log").log;
            let begin = Event::begin(log.id(), "bench");
            let (outbox, messages) = tokio::sync::mpsc::channel(OUTBOX_MAX);
            let state = State::default();
            let own = policies::load(Some(&dir.join("../policies"))).expect("policies");
            let facts = policies::to_store(&state, own);
            let (writer, thread) = writer::start(journal(log), state, Some(outbox));
            for fact in begin.into_iter().chain(facts) {
                writer.submit(fact).await.expect("the writer");
            }
            let settings = NatsSettings { servers: vec![url.to_owned()], creds: None };
            let bus = bus::connect(&settings).await.expect("connect to the broker");
            let running = bus.start(&writer, messages).await.expect("the bus");
            (writer, thread, running)
        });
        Inside { runtime, writer, thread, running }
    }

    pub fn stop(self) {
        self.runtime.block_on(async {
            self.running.stop(std::time::Duration::from_secs(10)).await;
            self.writer.stop().await;
        });
        self.thread.join().expect("the writer").expect("the log closes");
    }
}
