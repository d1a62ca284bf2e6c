//! The router's parts together with a store.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod money;
