#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| headlong_fuzz::http_response::run(data));
