//! An adapter's file on its way here: put together from pieces, and handed on when it is what was promised.
//!
//! Nothing of it is read before its SHA-256 is what the engine said.

use sha2::{Digest as _, Sha256};
use tieline_types::wire::{ADAPTER_BYTES, AdapterPiece, Failure, FailureKind};
use tieline_types::{Digest, HeldAdapter};

use crate::session::{failure, failure_with};

/// The one that is on its way, if one is.
#[derive(Debug, Default)]
pub(crate) struct Parcel(Option<Growing>);

#[derive(Debug)]
struct Growing {
    want: HeldAdapter,
    length: usize,
    bytes: Vec<u8>,
    hash: Sha256,
}

/// A file that came to its end, or will not.
pub(crate) type Arrived = (Digest, Result<Vec<u8>, Failure>);

impl Parcel {
    /// Another begins. One that is not whole is dropped.
    pub(crate) fn begin(&mut self, want: HeldAdapter) -> Option<Arrived> {
        self.0 = None;
        match Growing::new(want) {
            Ok(growing) => {
                self.0 = Some(growing);
                None
            }
            Err(failure) => Some((want.digest, Err(failure))),
        }
    }

    /// The engine gives it up, where it is the one that is on its way.
    pub(crate) fn give_up(&mut self, digest: Digest) {
        self.0.take_if(|growing| growing.want.digest == digest);
    }

    /// Takes some bytes. Those of none that was begun, or was given up, are nobody's.
    pub(crate) fn piece(&mut self, piece: &AdapterPiece) -> Option<Arrived> {
        let growing = self.0.as_mut().filter(|growing| growing.want.digest == piece.digest)?;
        if let Err(failure) = growing.take(&piece.bytes) {
            self.0 = None;
            return Some((piece.digest, Err(failure)));
        }
        if growing.bytes.len() < growing.length {
            return None;
        }
        self.0.take().map(|whole| (piece.digest, whole.end()))
    }
}

impl Growing {
    fn new(want: HeldAdapter) -> Result<Self, Failure> {
        let HeldAdapter { digest, bytes: size } = want;
        if size.0 == 0 || size > ADAPTER_BYTES {
            let text = format!(
                "the adapter {digest} has {size}: from 1 byte to {ADAPTER_BYTES} are taken in"
            );
            return Err(failure(FailureKind::InvalidRequest, text));
        }
        let length = usize::try_from(size.0).unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        if bytes.try_reserve_exact(length).is_err() {
            let text = format!("there is no memory for the adapter {digest}, which has {size}");
            let hint = "use a smaller adapter, or fewer at once";
            return Err(failure_with(FailureKind::OutOfMemory, text, hint));
        }
        Ok(Self { want, length, bytes, hash: Sha256::new() })
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let room = self.length - self.bytes.len();
        if bytes.is_empty() || bytes.len() > room {
            let text = format!(
                "a piece of the adapter {} has {} bytes, and {room} are missing",
                self.want.digest,
                bytes.len()
            );
            return Err(failure(FailureKind::Internal, text));
        }
        self.hash.update(bytes);
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn end(self) -> Result<Vec<u8>, Failure> {
        let found = Digest(self.hash.finalize().into());
        if found == self.want.digest {
            return Ok(self.bytes);
        }
        let text = format!("the file of the adapter {} holds {found}", self.want.digest);
        Err(failure_with(FailureKind::BadModel, text, "remove the adapter and pull it again"))
    }
}

#[cfg(test)]
mod tests {
    use tieline_types::Bytes;

    use super::*;

    fn of(bytes: &[u8]) -> HeldAdapter {
        let digest = Digest(Sha256::digest(bytes).into());
        HeldAdapter { digest, bytes: Bytes(bytes.len() as u64) }
    }

    fn piece(want: HeldAdapter, bytes: &[u8]) -> AdapterPiece {
        AdapterPiece { digest: want.digest, bytes: bytes.to_vec() }
    }

    #[track_caller]
    fn refused(arrived: Option<Arrived>, want: &str) {
        let (_, result) = arrived.expect("an end");
        let failure = result.expect_err("a failure");
        assert!(failure.message.contains(want), "{failure:?}");
    }

    #[test]
    fn pieces_become_the_file() {
        let want = of(b"adapter");
        let mut parcel = Parcel::default();
        assert!(parcel.begin(want).is_none());
        assert!(parcel.piece(&piece(want, b"ada")).is_none());
        assert_eq!(parcel.piece(&piece(want, b"pter")), Some((want.digest, Ok(b"adapter".into()))));
        // It is over: more is nobody's.
        assert!(parcel.piece(&piece(want, b"x")).is_none());
    }

    #[test]
    fn what_is_given_up_takes_nothing_more() {
        let want = of(b"adapter");
        let mut parcel = Parcel::default();
        assert!(parcel.begin(want).is_none());
        parcel.give_up(Digest([9; 32]));
        assert!(parcel.0.is_some());
        parcel.give_up(want.digest);
        assert!(parcel.0.is_none() && parcel.piece(&piece(want, b"adapter")).is_none());
    }

    #[test]
    fn what_is_not_what_was_promised_is_refused() {
        let want = of(b"adapter");
        let mut parcel = Parcel::default();
        assert!(parcel.begin(want).is_none());
        refused(parcel.piece(&piece(want, b"adaptor")), "holds sha256:");
        assert!(parcel.begin(want).is_none());
        refused(parcel.piece(&piece(want, b"adapters")), "8 bytes, and 7 are missing");
        assert!(parcel.begin(want).is_none());
        refused(parcel.piece(&piece(want, b"")), "0 bytes");
        for size in [0, ADAPTER_BYTES.0 + 1, u64::MAX] {
            refused(parcel.begin(HeldAdapter { bytes: Bytes(size), ..want }), "taken in");
        }
    }

    #[test]
    fn pieces_of_another_are_left_alone() {
        let (one, two) = (of(b"one"), of(b"two"));
        let mut parcel = Parcel::default();
        assert!(parcel.piece(&piece(one, b"one")).is_none());
        assert!(parcel.begin(one).is_none());
        assert!(parcel.begin(two).is_none());
        assert!(parcel.piece(&piece(one, b"one")).is_none());
        assert_eq!(parcel.piece(&piece(two, b"two")), Some((two.digest, Ok(b"two".into()))));
    }
}
