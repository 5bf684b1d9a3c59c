//! Dead letters: jobs that failed for good, kept byte for byte, and their way back.
//!
//! Bytes live in the topic `<group>.dlq`, or in `afterwrite.dead_letters` where that refuses them as too large or where no
//! broker is; state lives in `afterwrite.letters`. A letter is the topic write, acknowledged by the broker, and then one
//! transaction for the ledger row `buried` and the state row; only then does the engine settle the job. A crash between the
//! two writes the letter again; copies share their id and collapse. Without a broker that transaction is all of it.

pub mod headers;

pub mod topic;

pub mod state;

pub mod table;

pub mod sink;

pub mod parking;

pub mod requests;

mod recall;

pub mod taker;

pub mod wakeups;

pub mod reader;

pub mod kept;

pub mod filter;

pub mod runs;

pub mod discards;

pub mod exported;
