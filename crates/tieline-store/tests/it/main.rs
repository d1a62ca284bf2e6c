//! The store against real files, real processes and servers on this machine. No test leaves it.
//!
//! The attributes tell clippy that the helpers are tests too.

#[cfg(test)]
mod crash;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod hub;
#[cfg(test)]
mod local;
#[cfg(test)]
mod money;
#[cfg(test)]
mod names;
#[cfg(test)]
mod overlays;
#[cfg(test)]
mod probe;
#[cfg(test)]
mod push;
#[cfg(test)]
mod pypi;
#[cfg(test)]
mod registry;
#[cfg(test)]
mod server;
#[cfg(test)]
mod shapes;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod transfer;
mod uploads;
#[cfg(test)]
mod world;
