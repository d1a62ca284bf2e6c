//! How many connections there are, all together and from each address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Admissions(Arc<Mutex<Count>>);

#[derive(Debug, Default)]
struct Count {
    all: usize,
    /// Of addresses that have any.
    each: HashMap<Option<IpAddr>, usize>,
}

/// A connection that was let in; dropped, it is no longer counted.
#[derive(Debug)]
pub(crate) struct Admission {
    counts: Admissions,
    address: Option<IpAddr>,
}

impl Admissions {
    /// Lets one in, where there are not `most` yet, nor `most_each` from its address. Of this machine's own there may be
    /// as many as of all: behind a proxy that runs here everybody has its address.
    pub(crate) fn admit(
        &self,
        address: Option<IpAddr>,
        (most, most_each): (usize, usize),
    ) -> Option<Admission> {
        let local = address.is_none_or(|address| address.is_loopback());
        let address = address.map(network);
        let mut count = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let here = count.each.get(&address).copied().unwrap_or(0);
        if count.all >= most || (here >= most_each && !local) {
            return None;
        }
        count.all += 1;
        count.each.insert(address, here + 1);
        drop(count);
        Some(Admission { counts: self.clone(), address })
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut count = self.counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        count.all -= 1;
        let here = count.each.get(&self.address).copied().unwrap_or(1) - 1;
        match here {
            0 => count.each.remove(&self.address),
            here => count.each.insert(self.address, here),
        };
    }
}

/// One machine has as many addresses of version 6 as it likes, all in one network of 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(six) => {
            let [a, b, c, d, ..] = six.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_together_and_each() {
        let admissions = Admissions::default();
        let admit = |text: &str| admissions.admit(Some(text.parse().unwrap()), (3, 2));
        let first = admit("10.0.0.1").unwrap();
        let _second = admit("10.0.0.1").unwrap();
        assert!(admit("10.0.0.1").is_none());
        let _third = admit("2001:db8::1").unwrap();
        assert!(admit("10.0.0.2").is_none());
        drop(first);
        let _fourth = admit("2001:db8::2").unwrap();
        assert!(admit("10.0.0.1").is_none());
    }

    #[test]
    fn whoever_is_on_this_machine_is_bounded_with_all_alone() {
        let admissions = Admissions::default();
        let here = ["127.0.0.1", "127.0.0.1", "::1", "::1"].map(|text| Some(text.parse().unwrap()));
        let admit = |address: Option<IpAddr>| admissions.admit(address, (6, 1));
        let _all: Vec<_> =
            here.into_iter().chain([None, None]).map(|one| admit(one).unwrap()).collect();
        assert!(admit(None).is_none());
    }

    #[test]
    fn one_network_of_version_6_is_one_address() {
        let admissions = Admissions::default();
        let admit = |text: &str| admissions.admit(Some(text.parse().unwrap()), (9, 1));
        let _first = admit("2001:db8::1").unwrap();
        assert!(admit("2001:db8::ffff").is_none());
        assert!(admit("2001:db8:0:1::1").is_some());
    }
}
