//! The files of the two stacks, of the connectors and of the database must fit together. These tests read them, and start
//! nothing.

mod reading;

mod compose;

mod connectors;
