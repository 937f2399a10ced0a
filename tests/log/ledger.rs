//! The ledger on the real log.

use sluice::core::state::State;
use sluice::runner::clock::Moment;
use sluice::runner::ledger::Ledger;
use sluice::wire::envelope::RECORD_MAX;

use super::*;

/// No input leads to such an event. Should one, the process ends as after an error of the disk.
#[test]
fn an_event_that_fits_no_record_ends_writing_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::new(open(dir.path()), State::default(), false);
    let moment = Moment { wall: Timestamp(1), steady: Span::ZERO };
    ledger.take(moment, started("first"), 1).unwrap();
    assert_eq!(ledger.commit().unwrap().receipts.len(), 1);
    ledger.take(moment, started("second"), 2).unwrap();
    let error = ledger.take(moment, started(&"x".repeat(RECORD_MAX)), 3).unwrap_err().to_string();
    assert_eq!(
        error,
        "a daemon.started event takes 65635 bytes in the log, the limit is 65536; this is a fault in sluice. What \
         was acknowledged is in the log"
    );
    drop(ledger);
    assert_eq!(all(&open(dir.path()), 1).len(), 1);
}
