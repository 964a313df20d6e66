//! The coins, and all that changes them. Usable without any network.
