//! Bytes of several memories, which never make up for each other.

use tieline_types::Bytes;

/// Devices with memory of their own that are told apart at most; what lies on others is not counted.
pub const DEVICES: usize = 8;

/// Bytes of each device's own memory, in one order everywhere.
pub type Devices = [Bytes; DEVICES];

/// What adapters take of devices' memory, where it is like what their model takes there: each of their weights lies where the one
/// lies that it changes. Those of the model that lie on no device are not known here, so this is a little too much.
pub fn beside(adapters: Bytes, model: &Devices) -> Devices {
    let whole: u128 = model.iter().map(|bytes| u128::from(bytes.0)).sum();
    model.map(|bytes| {
        let share = (u128::from(adapters.0) * u128::from(bytes.0)).div_ceil(whole.max(1));
        Bytes(u64::try_from(share).unwrap_or(u64::MAX))
    })
}

/// Bytes of the machine's memory, and of each device's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Room {
    machine: u128,
    devices: [u128; DEVICES],
}

impl Room {
    pub(super) fn new(machine: Bytes, devices: &Devices) -> Self {
        Self { machine: machine.0.into(), devices: devices.map(|bytes| bytes.0.into()) }
    }

    /// Of adapters beside a model.
    pub(super) fn beside(adapters: Bytes, model: &Devices) -> Self {
        Self::new(adapters, &beside(adapters, model))
    }

    pub(super) fn plus(self, other: Self) -> Self {
        self.by(other, u128::saturating_add)
    }

    /// What is left of each, nothing where `other` has more.
    pub(super) fn less(self, other: Self) -> Self {
        self.by(other, u128::saturating_sub)
    }

    /// Whether each memory of `other` has room for this.
    pub(super) fn is_within(self, other: Self) -> bool {
        self.less(other).is_nothing()
    }

    pub(super) fn is_nothing(self) -> bool {
        self == Self::default()
    }

    /// Whether it is anything of what `short` lacks.
    pub(super) fn relieves(self, short: Self) -> bool {
        short.less(self) != short
    }

    /// The first memory of `other` that has no room for this: which device, how much of it, and how much there is.
    pub(super) fn beyond(self, other: Self) -> Option<(Option<usize>, Bytes, Bytes)> {
        let bytes = |room: u128| Bytes(u64::try_from(room).unwrap_or(u64::MAX));
        if self.machine > other.machine {
            return Some((None, bytes(self.machine), bytes(other.machine)));
        }
        let mut devices = self.devices.into_iter().zip(other.devices).enumerate();
        let (at, (needed, room)) = devices.find(|(_, (needed, room))| needed > room)?;
        Some((Some(at), bytes(needed), bytes(room)))
    }

    fn by(mut self, other: Self, with: impl Fn(u128, u128) -> u128) -> Self {
        self.machine = with(self.machine, other.machine);
        let devices = self.devices.iter_mut().zip(other.devices);
        devices.for_each(|(this, other)| *this = with(*this, other));
        self
    }
}

impl std::iter::Sum for Room {
    fn sum<I: Iterator<Item = Self>>(rooms: I) -> Self {
        rooms.fold(Self::default(), Self::plus)
    }
}
