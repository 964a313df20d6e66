//! For tests of this crate and of its hosts: the chain forge.
