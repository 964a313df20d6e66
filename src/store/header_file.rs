//! header_file
