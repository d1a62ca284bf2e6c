//! What other programs take of the processors, as the system counts it.
//!
//! `/proc/stat` is opened before the jail is shut and read through the open file from then on, so nothing more is
//! allowed in it. It tells what the processors worked in sum, as the clock tells anybody who measures it.

#[cfg(target_os = "linux")]
pub(crate) use linux::Others;

#[cfg(not(target_os = "linux"))]
pub(crate) use elsewhere::Others;

#[cfg(target_os = "linux")]
mod linux {
    #![expect(
        unsafe_code,
        reason = "the standard library asks for no affinity, priority or clock tick"
    )]

    use std::fs::File;
    use std::mem::{self, MaybeUninit};
    use std::os::unix::fs::FileExt as _;
    use std::thread;
    use std::time::Duration;

    use tieline_decode::threads::Usage;

    use crate::process;

    /// A line for each processor, one for each interrupt, and then how many threads run.
    const MOST: usize = 256 << 10;
    /// How often it is looked again after a pause, at most.
    const LOOKS: usize = 3;

    /// Reads how busy the processors are that this process may use.
    #[derive(Debug)]
    pub(crate) struct Others {
        stat: File,
        /// By number: whether we may use it.
        ours: Vec<bool>,
        /// How many of the system's ticks are a second.
        ticks: f64,
        /// Whether this process itself gives way to others.
        nice: bool,
        text: Vec<u8>,
    }

    impl Others {
        /// `None` where the system does not tell.
        pub(crate) fn open() -> Option<Self> {
            let stat = File::open("/proc/stat").ok()?;
            // SAFETY: both take any number.
            let (ticks, nice) = unsafe {
                (libc::sysconf(libc::_SC_CLK_TCK), libc::getpriority(libc::PRIO_PROCESS, 0) > 0)
            };
            let ticks = f64::from(i32::try_from(ticks).ok().filter(|ticks| *ticks > 0)?);
            Some(Self { stat, ours: allowed()?, ticks, nice, text: Vec::new() })
        }

        /// Now, which is `now` seconds since whatever moment the caller counts from. After a pause (`again`) who only
        /// just brought the work may still be running: then there is a second look or two, a millisecond apart.
        pub(crate) fn look(&mut self, now: f64, again: bool) -> Option<Usage> {
            let mut usage = self.once(now)?;
            for _ in 0..if again { LOOKS } else { 0 } {
                if usage.waiting == 0 {
                    break;
                }
                thread::sleep(Duration::from_millis(1));
                usage.waiting = usage.waiting.min(self.once(now)?.waiting);
            }
            Some(usage)
        }

        fn once(&mut self, now: f64) -> Option<Usage> {
            let own = process::processor_seconds()?;
            self.text.resize(MOST, 0);
            let length = self.stat.read_at(&mut self.text, 0).ok()?;
            let text = std::str::from_utf8(self.text.get(..length)?).ok()?;
            let (busy, processors) = busy(text, &self.ours, self.nice)?;
            // This thread is one of those that run.
            let waiting = running(text).map_or(usize::MAX, |all| all.saturating_sub(1));
            Some(Usage { now, processors, busy: busy / self.ticks, own, waiting })
        }
    }

    /// Which processors this process may use.
    fn allowed() -> Option<Vec<bool>> {
        let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
        // SAFETY: `set` is writable and as large as is said.
        let asked = unsafe {
            libc::sched_getaffinity(0, mem::size_of::<libc::cpu_set_t>(), set.as_mut_ptr())
        };
        if asked != 0 {
            return None;
        }
        // SAFETY: all-zero is valid, and the call filled it.
        let set = unsafe { set.assume_init() };
        let count = usize::try_from(libc::CPU_SETSIZE).ok()?;
        // SAFETY: each number is below the set's size.
        Some((0..count).map(|number| unsafe { libc::CPU_ISSET(number, &set) }).collect())
    }

    /// Ticks that the named processors worked, and how many they are. Where `nice`, work that gives way counts too.
    fn busy(text: &str, ours: &[bool], nice: bool) -> Option<(f64, usize)> {
        let (mut sum, mut count) = (0.0, 0);
        for line in text.lines() {
            let Some(rest) = line.strip_prefix("cpu") else { break };
            let mut words = rest.split_ascii_whitespace();
            // The first line is all of them together, and has no number.
            if rest.starts_with(' ') {
                continue;
            }
            let number: usize = words.next()?.parse().ok()?;
            if !ours.get(number).copied().unwrap_or(false) {
                continue;
            }
            let ticks: Vec<f64> = words.filter_map(|word| word.parse().ok()).collect();
            // In turn: user, nice, system, idle, waiting for a disk, interrupts, soft ones, taken by the host.
            let [user, niced, system, _, _, interrupts, soft, taken, ..] = ticks[..] else {
                return None;
            };
            sum += user + system + interrupts + soft + taken + if nice { niced } else { 0.0 };
            count += 1;
        }
        (count > 0).then_some((sum, count))
    }

    /// How many threads of the system run or want to.
    fn running(text: &str) -> Option<usize> {
        text.lines().find_map(|line| line.strip_prefix("procs_running "))?.trim().parse().ok()
    }

    #[cfg(test)]
    mod tests {
        use std::time::Instant;

        use super::*;

        const STAT: &str = "cpu  7 7 7 7 7 7 7 7 7 7\ncpu0 100 10 20 900 5 1 2 3 0 0\n\
            cpu1 200 20 30 800 5 1 2 4 0 0\ncpu2 999 9 9 9 9 9 9 9 0 0\nintr 1 2 3\nprocs_running 4\nprocs_blocked 0\n";

        #[test]
        fn only_our_processors_count_and_who_gives_way_does_not() {
            let ours = [true, true, false];
            assert_eq!(busy(STAT, &ours, false), Some((126.0 + 237.0, 2)));
            assert_eq!(
                busy(STAT, &ours, true),
                Some((126.0 + 237.0 + 30.0, 2)),
                "we give way as well"
            );
            assert_eq!(busy(STAT, &[false; 3], false), None);
            assert_eq!(
                (running(STAT), running("procs_running x"), running("")),
                (Some(4), None, None)
            );
            for odd in ["", "cpu0", "cpu0 1 2 3\n", "cpux 1 2 3 4 5 6 7 8\n"] {
                assert_eq!(busy(odd, &ours, false), None, "{odd}");
            }
        }

        #[test]
        fn work_of_ours_is_seen_as_ours() {
            let mut others = Others::open().unwrap();
            let first = others.look(0.0, true).unwrap();
            let (until, mut last) = (Instant::now(), first);
            // Until the system has counted some of what this thread works meanwhile.
            while last.own - first.own < 0.1 && until.elapsed().as_secs() < 60 {
                last = others.look(until.elapsed().as_secs_f64(), false).unwrap();
            }
            assert!(last.own - first.own >= 0.1, "{first:?} {last:?}");
            assert!(last.busy > first.busy, "{first:?} {last:?}");
            assert!(last.processors >= 1 && last.processors == first.processors);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use tieline_decode::threads::Usage;

    /// Not written here: times of steps must do.
    #[derive(Debug)]
    pub(crate) enum Others {}

    impl Others {
        pub(crate) fn open() -> Option<Self> {
            None
        }

        pub(crate) fn look(&mut self, _: f64, _: bool) -> Option<Usage> {
            match *self {}
        }
    }
}
