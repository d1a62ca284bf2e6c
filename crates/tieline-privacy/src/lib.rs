//! Keeps personal text from leaving this machine: finds it ([`detect`]), says what leaves ([`outbound`]) and
//! wraps every remote ([`remote`]).
//!
//! A vendor's adapter is a [`Remote`], which takes an [`Outbound`]; only this crate makes one, and only
//! [`Guarded`] turns a remote into a [`tieline_types::Backend`]. So no adapter can see text that was not released.

#![forbid(unsafe_code)]

pub mod detect;
pub mod guarded;
pub mod outbound;
pub mod remote;

pub use detect::{Detectors, Dictionary, DictionaryError, Entity, Finding};
pub use guarded::{Guarded, Release, Released, Treatment};
pub use outbound::{Egress, Outbound};
pub use remote::Remote;
