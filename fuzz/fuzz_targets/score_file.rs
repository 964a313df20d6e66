#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| headlong_fuzz::score_file::run(data));
