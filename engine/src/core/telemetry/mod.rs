//! What came in: samples as they are stored, and as they wait to settle.

pub mod arm;
pub mod cohort;
pub mod columns;
pub mod observation;
pub mod rates;
pub mod sliding_window;
pub mod tally;
