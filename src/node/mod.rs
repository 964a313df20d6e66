//! The node: builder, driver, handle.
