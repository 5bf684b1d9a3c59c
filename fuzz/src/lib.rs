//! What `fuzz_targets` call. The functions lie with the test that passes them the corpus, so that both ask the same.

#[path = "../../tests/corpus/targets/mod.rs"]
pub mod targets;
