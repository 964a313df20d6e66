#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| headlong_fuzz::nat_replies::run(data));
