//! Bytes of several memories, which never make up for each other.

use tieline_types::Bytes;

/// Devices with memory of their own that are told apart at most; what lies on others is not counted.
pub const DEVICES: usize = 8;

/// Bytes of each device's own memory, in one order everywhere.
pub type Devices = [Bytes; DEVICES];

/// Bytes of the machine's memory, and of each device's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Room([u128; DEVICES + 1]);

impl Room {
    pub(super) fn new(machine: Bytes, devices: &Devices) -> Self {
        let mut room = Self::of_machine(machine);
        for (slot, device) in room.0.iter_mut().skip(1).zip(devices) {
            *slot = device.0.into();
        }
        room
    }

    pub(super) fn of_machine(machine: Bytes) -> Self {
        let mut room = Self::default();
        if let Some(slot) = room.0.first_mut() {
            *slot = machine.0.into();
        }
        room
    }

    /// Of the machine's memory.
    pub(super) fn machine(self) -> u128 {
        self.0.first().copied().unwrap_or(0)
    }

    /// Whether nothing of it is a device's.
    pub(super) fn is_of_the_machine(self) -> bool {
        self.0.iter().skip(1).all(|device| *device == 0)
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
        self.0.iter().zip(other.0).all(|(this, other)| *this <= other)
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
        let at = self.0.iter().zip(other.0).position(|(this, other)| *this > other)?;
        let bytes = |room: &[u128]| {
            Bytes(u64::try_from(room.get(at).copied().unwrap_or(0)).unwrap_or(u64::MAX))
        };
        Some((at.checked_sub(1), bytes(&self.0), bytes(&other.0)))
    }

    fn by(mut self, other: Self, with: impl Fn(u128, u128) -> u128) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(this, other)| *this = with(*this, other));
        self
    }
}

impl std::iter::Sum for Room {
    fn sum<I: Iterator<Item = Self>>(rooms: I) -> Self {
        rooms.fold(Self::default(), Self::plus)
    }
}
