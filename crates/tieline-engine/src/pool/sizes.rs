//! What members take, as it changes while the pool runs, and what there is of devices.

use tieline_types::{BackendError, Bytes, DeviceUse, OnDevice};
use tokio::sync::oneshot;

use super::decide::{Devices, Key, Phase, beside};
use super::{Member, Order, Pool, Worker, gone};

/// A device with memory of its own, and what all models may take of that together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceBudget {
    /// Its name.
    pub name: String,
    /// What models may take.
    pub bytes: Bytes,
}

/// What a member takes from its next load on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Of the machine's memory.
    pub bytes: Bytes,
    /// Of devices' own.
    pub devices: Devices,
}

impl Size {
    /// Both together.
    pub(super) fn plus(mut self, other: Self) -> Self {
        self.bytes = Bytes(self.bytes.0.saturating_add(other.bytes.0));
        for (bytes, more) in self.devices.iter_mut().zip(other.devices) {
            *bytes = Bytes(bytes.0.saturating_add(more.0));
        }
        self
    }

    /// With so many bytes of adapters for a model of this size.
    pub(super) fn with(self, adapters: Bytes, model: &Self) -> Self {
        self.plus(Self { bytes: adapters, devices: beside(adapters, &model.devices) })
    }
}

impl Pool {
    /// Says which devices have memory of their own, and how much models may take of it: without, what they take there is counted
    /// as if there were nothing. Of more than [`DEVICES`], the first count.
    ///
    /// # Errors
    /// The pool is shut down.
    pub async fn devices(&self, devices: Vec<DeviceBudget>) -> Result<(), BackendError> {
        self.send(Order::Devices(devices)).await
    }

    /// Changes what a member takes from its next load on. Who waits for it waits on. `false`: it is in memory or comes
    /// there, and has the size that it had.
    ///
    /// # Errors
    /// The pool is shut down.
    pub async fn resize(&self, name: &str, size: Size) -> Result<bool, BackendError> {
        let (reply, answer) = oneshot::channel();
        self.send(Order::Resize(name.to_owned(), size, reply)).await?;
        answer.await.map_err(|_| gone())
    }
}

impl Worker {
    /// What models may take of each device's memory.
    pub(super) fn budgets(&self) -> Devices {
        let mut budgets = Devices::default();
        for (budget, device) in budgets.iter_mut().zip(&self.devices) {
            *budget = device.bytes;
        }
        budgets
    }

    /// These parts of devices, by name.
    pub(super) fn on_devices(&self, devices: &Devices) -> Vec<OnDevice> {
        let parts = self.devices.iter().zip(devices).filter(|(_, bytes)| bytes.0 > 0);
        parts.map(|(one, bytes)| OnDevice { name: one.name.clone(), bytes: *bytes }).collect()
    }

    /// Each device, and what members take of it.
    pub(super) fn device_use(&self, taken: &Devices) -> Vec<DeviceUse> {
        let both = self.devices.iter().zip(taken);
        let part = |(one, taken): (&DeviceBudget, &Bytes)| DeviceUse {
            name: one.name.clone(),
            budget: (one.bytes != Bytes(u64::MAX)).then_some(one.bytes),
            taken: *taken,
        };
        both.map(part).collect()
    }

    /// Whose budget it is, for messages.
    pub(super) fn whose(&self, device: Option<usize>) -> String {
        let device = device.and_then(|at| self.devices.get(at));
        device.map_or_else(String::new, |device| format!(" of {}", device.name))
    }

    pub(super) fn resize(&mut self, name: &str, size: Size) -> bool {
        let key = self.find(name);
        let Some((key, entry)) = key.and_then(|key| Some((key, self.entries.get_mut(&key)?)))
        else {
            return true;
        };
        match entry.phase() {
            None => entry.member.takes(size),
            // It still takes what it took.
            Some(Phase::Ending) => drop(self.sizes.insert(key, size)),
            Some(Phase::Loading | Phase::Ready) => return false,
        }
        true
    }

    pub(super) fn ended(&mut self, key: Key) {
        let (size, now) = (self.sizes.remove(&key), self.now());
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.ended(now);
        size.into_iter().for_each(|size| entry.member.takes(size));
    }
}

impl Member {
    pub(super) fn size(&self) -> Size {
        Size { bytes: self.bytes, devices: self.devices }
    }

    pub(super) fn takes(&mut self, Size { bytes, devices }: Size) {
        (self.bytes, self.devices) = (bytes, devices);
    }
}
