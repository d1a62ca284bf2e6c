//! Sends a model to a registry that speaks the OCI distribution protocol as Ollama's does.
//!
//! The manifest comes last: whoever reads the registry finds the whole model or none of it. Sends no credentials, and
//! changes nothing in the store.

mod content;
mod error;
mod wire;

use std::fmt;

use tieline_types::{Bytes, Digest, ModelFile, ModelRef, RegistryRef};

use crate::model::Model;
use crate::overlay::Overlay;
use crate::pull::Environment;
use crate::remove::Lease;
use crate::store::Store;
use content::{Blob, Content};
pub use error::PushError;
use wire::Wire;

/// How to push.
#[derive(Clone, Copy)]
pub struct PushOptions<'a> {
    /// What the push may use.
    pub environment: &'a Environment,
    /// Speak http to the registry, though it is no process of this machine.
    pub insecure: bool,
    /// Is told how it goes.
    pub tell: &'a (dyn Fn(PushEvent) + Send + Sync),
}

impl fmt::Debug for PushOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushOptions")
            .field("environment", &self.environment)
            .field("insecure", &self.insecure)
            .finish_non_exhaustive()
    }
}

/// A step of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PushEvent {
    /// More of a file was sent, or all of it is there.
    Blob {
        /// Which.
        digest: Digest,
        /// What is there.
        done: Bytes,
        /// What there will be.
        total: Bytes,
    },
    /// All files are there; what ties them together is sent.
    Manifest,
}

impl Store {
    /// Sends the model of this name to `place`, with what was put before it. Files that are there already are not sent
    /// again.
    ///
    /// Dropping the future stops the work; the registry keeps whole files, and no model.
    ///
    /// # Errors
    /// There is no such model, its file is damaged, or the registry fails or does not take it. The tag means what it
    /// meant then.
    pub async fn push(
        &self,
        model: &ModelRef,
        place: &RegistryRef,
        options: PushOptions<'_>,
    ) -> Result<(), PushError> {
        if options.environment.offline {
            return Err(PushError::Offline { place: place.to_string() });
        }
        let (model, overlay) = self.meant(model)?;
        // Nobody removes the file while it is sent.
        let (_lease, file) = self.held(&model).await?;
        let content = Content::of(&model, file, overlay.as_ref());
        let wire = Wire::new(place, &options)?;
        for blob in content.blobs() {
            wire.send(blob).await?;
        }
        (options.tell)(PushEvent::Manifest);
        wire.manifest(&content.manifest()).await
    }

    /// The model that has the file, and what is put before it under the name that was asked for.
    fn meant(&self, reference: &ModelRef) -> Result<(Model, Option<Overlay>), PushError> {
        let not_found = || PushError::NotFound { reference: reference.to_string() };
        let named = match reference {
            ModelRef::Name(name) => self.overlay(name)?,
            _ => None,
        };
        let base = match &named {
            Some(overlay) if overlay.base.contains('+') => {
                return Err(PushError::Adapted { name: overlay.name.clone() });
            }
            Some(overlay) => overlay.base.parse().map_err(|_| not_found())?,
            None => reference.clone(),
        };
        let model = self.find(&base)?.ok_or_else(not_found)?;
        if model.is_adapter {
            return Err(PushError::Adapter { name: model.name });
        }
        let overlay = match named {
            Some(overlay) => Some(overlay),
            None => self.overlay(&model.name)?.filter(|overlay| overlay.base == model.name),
        };
        Ok((model, overlay))
    }

    /// The model's verified file, kept from removal. Verifying may read all of it.
    async fn held(&self, model: &Model) -> Result<(Lease, ModelFile), PushError> {
        let (store, model) = (self.clone(), model.clone());
        let task = tokio::task::spawn_blocking(move || {
            let lease = store.lease(&model)?;
            Ok((lease, store.open_model(&model)?))
        });
        task.await.map_err(|_| PushError::Stopped)?
    }
}

/// What a step is told with.
fn step(blob: &Blob, done: u64) -> PushEvent {
    PushEvent::Blob { digest: blob.digest, done: Bytes(done), total: Bytes(blob.size) }
}
