//! block_files
