//! What the processor takes, by its own counters: Linux's powercap, which Intel and AMD fill (RAPL, "Running Average
//! Power Limit"). They count microjoules of a processor's package and, where there is one, of its memory or of the
//! whole machine; disks, fans and the loss of the power supply are in none of them but the last.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Where the counters are on Linux.
pub const POWERCAP: &str = "/sys/class/powercap";

/// Why nothing is known of the energy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoEnergy {
    /// There are no counters.
    #[error("no counters of energy are in {0}")]
    None(PathBuf),
    /// They may not be read: on many systems only root may, since they tell others what is computed.
    #[error("{0} may not be read")]
    Denied(PathBuf),
    /// They cannot be read.
    #[error("{0} cannot be read")]
    Broken(PathBuf, #[source] io::Error),
}

impl NoEnergy {
    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Denied(path) => Some(format!("sudo chmod a+r {}", path.display())),
            Self::None(_) | Self::Broken(..) => None,
        }
    }
}

/// The counters that together are all that is counted, each once.
#[derive(Debug)]
pub struct Counters {
    counters: Vec<Counter>,
    /// `machine`, or `processor`, or `processor and memory`.
    of: &'static str,
}

#[derive(Debug)]
struct Counter {
    path: PathBuf,
    /// Where it begins again.
    range: u64,
    last: u64,
    /// Microjoules since it was found.
    sum: u64,
}

impl Counters {
    /// Those under `root`, which is [`POWERCAP`] but for tests.
    ///
    /// # Errors
    /// There are none, or they cannot be read.
    pub fn find(root: &Path) -> Result<Self, NoEnergy> {
        let zones = zones(root);
        let named = |wanted: fn(&str) -> bool| -> Vec<&PathBuf> {
            zones.iter().filter(|(name, _)| wanted(name)).map(|(_, path)| path).collect()
        };
        let machine = named(|name| name == "psys");
        let processors = named(|name| name.starts_with("package"));
        let memory = named(|name| name == "dram");
        let (of, paths) = match (machine.is_empty(), processors.is_empty(), memory.is_empty()) {
            // It counts the others too.
            (false, _, _) => ("machine", machine),
            (true, true, _) => return Err(NoEnergy::None(root.to_owned())),
            (true, false, true) => ("processor", processors),
            (true, false, false) => ("processor and memory", [processors, memory].concat()),
        };
        let counters =
            paths.into_iter().map(|path| Counter::open(path)).collect::<Result<_, _>>()?;
        Ok(Self { counters, of })
    }

    /// What they count.
    pub fn of(&self) -> &'static str {
        self.of
    }

    /// Joules since they were found. A counter begins again after some minutes of work: whoever waits longer between
    /// two calls loses a round of it.
    ///
    /// # Errors
    /// They cannot be read any more.
    pub fn joules(&mut self) -> Result<f64, NoEnergy> {
        let mut sum = 0;
        for counter in &mut self.counters {
            sum += counter.advance()?;
        }
        Ok(micro(sum))
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact up to gigajoules")]
fn micro(microjoules: u64) -> f64 {
    microjoules as f64 / 1e6
}

/// Each zone's name and folder. One that is listed at two places is here once, since each lies in the same folder as
/// all others there.
fn zones(root: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let mut zones: Vec<(String, PathBuf)> = entries
        .filter_map(|entry| {
            let folder = entry.path();
            // The same packages by another way.
            let mmio = entry.file_name().to_string_lossy().contains("mmio");
            let name = fs::read_to_string(folder.join("name")).ok().filter(|_| !mmio)?;
            Some((name.trim().to_owned(), folder))
        })
        .collect();
    zones.sort();
    zones
}

impl Counter {
    fn open(zone: &Path) -> Result<Self, NoEnergy> {
        let path = zone.join("energy_uj");
        let last = number(&path)?;
        let range = number(&zone.join("max_energy_range_uj"))?;
        Ok(Self { path, range, last, sum: 0 })
    }

    fn advance(&mut self) -> Result<u64, NoEnergy> {
        let now = number(&self.path)?;
        let gone = match now.checked_sub(self.last) {
            Some(gone) => gone,
            None => self.range.saturating_sub(self.last).saturating_add(now),
        };
        (self.last, self.sum) = (now, self.sum.saturating_add(gone));
        Ok(self.sum)
    }
}

fn number(path: &Path) -> Result<u64, NoEnergy> {
    let broken = |error| NoEnergy::Broken(path.to_owned(), error);
    let text = fs::read_to_string(path).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => NoEnergy::Denied(path.to_owned()),
        _ => broken(error),
    })?;
    text.trim().parse().map_err(|error| broken(io::Error::new(ErrorKind::InvalidData, error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Machine(tempfile::TempDir);

    impl Machine {
        fn with(zones: &[(&str, &str)]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            for (zone, name) in zones {
                fs::create_dir(folder.path().join(zone)).unwrap();
                fs::write(folder.path().join(zone).join("name"), format!("{name}\n")).unwrap();
            }
            let machine = Self(folder);
            for (zone, _) in zones {
                machine.set(zone, 100);
                machine.write(zone, "max_energy_range_uj", "1000000");
            }
            machine
        }

        fn write(&self, zone: &str, file: &str, text: &str) {
            fs::write(self.0.path().join(zone).join(file), text).unwrap();
        }

        fn set(&self, zone: &str, microjoules: u64) {
            self.write(zone, "energy_uj", &format!("{microjoules}\n"));
        }

        fn find(&self) -> Result<Counters, NoEnergy> {
            Counters::find(self.0.path())
        }
    }

    /// As an Intel desktop lists them: the class links to each zone, the sub-zones too.
    const DESKTOP: &[(&str, &str)] = &[
        ("intel-rapl:0", "package-0"),
        ("intel-rapl:0:0", "core"),
        ("intel-rapl:0:1", "uncore"),
        ("intel-rapl-mmio:0", "package-0"),
    ];

    #[test]
    fn what_is_part_of_another_is_not_counted_twice() {
        let machine = Machine::with(DESKTOP);
        let mut counters = machine.find().unwrap();
        assert_eq!(counters.of(), "processor");
        for zone in ["intel-rapl:0", "intel-rapl:0:0", "intel-rapl:0:1", "intel-rapl-mmio:0"] {
            machine.set(zone, 500_100);
        }
        assert_eq!(counters.joules().unwrap(), 0.5);
        let server = Machine::with(&[
            ("intel-rapl:0", "package-0"),
            ("intel-rapl:0:0", "dram"),
            ("intel-rapl:1", "package-1"),
            ("intel-rapl:1:0", "dram"),
        ]);
        let mut counters = server.find().unwrap();
        assert_eq!(counters.of(), "processor and memory");
        for zone in ["intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1", "intel-rapl:1:0"] {
            server.set(zone, 250_100);
        }
        assert_eq!(counters.joules().unwrap(), 1.0);
        let laptop = [DESKTOP, &[("intel-rapl:1", "psys")]].concat();
        assert_eq!(Machine::with(&laptop).find().unwrap().of(), "machine");
    }

    #[test]
    fn a_counter_that_begins_again_goes_on() {
        let machine = Machine::with(DESKTOP);
        let mut counters = machine.find().unwrap();
        for (now, want) in [(900_100, 0.9), (900_100, 0.9), (100, 1.0), (200_100, 1.2)] {
            machine.set("intel-rapl:0", now);
            assert!((counters.joules().unwrap() - want).abs() < 1e-9, "{now}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let none = Machine::with(&[("intel-rapl:0:0", "core")]);
        assert!(matches!(none.find(), Err(NoEnergy::None(_))));
        assert!(matches!(Counters::find(Path::new("/nowhere")), Err(NoEnergy::None(_))));
        let machine = Machine::with(DESKTOP);
        let mut counters = machine.find().unwrap();
        machine.write("intel-rapl:0", "energy_uj", "many");
        assert!(matches!(counters.joules(), Err(NoEnergy::Broken(..))));
        fs::remove_file(machine.0.path().join("intel-rapl:0/energy_uj")).unwrap();
        assert!(matches!(machine.find(), Err(NoEnergy::Broken(..))));
        let denied = NoEnergy::Denied(PathBuf::from("/sys/x/energy_uj"));
        assert_eq!(denied.hint().unwrap(), "sudo chmod a+r /sys/x/energy_uj");
    }
}
