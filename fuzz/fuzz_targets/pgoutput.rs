#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| afterwrite_fuzz::targets::pgoutput(input));
