//! Keeps personal text from leaving this machine: finds it ([`detect`]), says what leaves ([`outbound`]) and
//! wraps every remote ([`remote`]).
//!
//! A vendor's adapter is a [`Remote`], which takes an [`Outbound`]; only this crate makes one, and only
//! [`Guarded`] turns a remote into a [`tieline_types::Backend`]. So no adapter can see text that was not released.

#![forbid(unsafe_code)]

mod answer;
pub mod detect;
pub mod guard;
pub mod guarded;
mod known;
pub mod outbound;
pub mod pseudonym;
mod redact;
pub mod remote;
pub mod restore;
pub mod surfaces;
pub mod survey;
pub mod vault;
mod view;

pub use detect::{Detectors, Dictionary, DictionaryError, Entity, Finding};
pub use guard::{Guard, GuardLimits, Preview, Refusal, would_leave};
pub use guarded::{Guarded, Release, Released, Treatment};
pub use outbound::{Egress, Outbound, Part, SurfaceEgress, Why};
pub use remote::Remote;
pub use restore::{Restorer, Target};
pub use surfaces::Surface;
pub use survey::{Survey, survey};
pub use vault::{Pseudonyms, RootKey, Session, Vault, VaultLimits};
