//! For each rule of consensus a whole block at its limit, which is connected, and one over it, which is
//! refused with Core's word; the tip stays, and the hash is remembered or not as in Core.
//!
//! A block that fails by itself (`CheckBlock`), by its header or by a change on its way is forgotten: the
//! same bytes are judged again. One that fails in its place (`ContextualCheckBlock`, `ConnectBlock`) is
//! remembered: `duplicate-invalid`.
//!
//! Left out are reasons that no block can have: `bad-txns-oversize` (such a block is too large before),
//! `bad-txns-inputvalues-outofrange` and `bad-txns-accumulated-fee-outofrange` (there is not enough money).
//! Signet's `bad-signet-blksig` is tested with real blocks elsewhere.
#![cfg(all(feature = "sim", feature = "consensus"))]

mod activation;
mod blocks;
mod coins;
mod draft;
mod edits;
mod forms;
mod headers;
mod lab;
mod scripts;
mod signed;
mod transactions;
