#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| towpath_files::fuzzing::copybook(bytes));
