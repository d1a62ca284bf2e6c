//! Turns the list of system calls into the kernel's filters, and says what a forbidden call was.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::MaybeUninit;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule,
};

use super::calls::{CACHE_ARGUMENT, Call, EXECUTABLE, Only, Otherwise, PROFILE, Stage, profile};
use super::names;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Forbids what `stage` does not need, for all threads that there are and will be. The first filter also
/// makes forbidden calls say their names.
pub(super) fn install(stage: Stage, has_cache: bool) -> Result<String, String> {
    let said = |error: &dyn std::fmt::Display| format!("seccomp: {error}");
    let mut programs = Vec::new();
    if stage == Stage::Load {
        name_the_forbidden().map_err(|error| said(&error))?;
        for errno in errors() {
            let rules = failing(errno, has_cache).map_err(|error| said(&error))?;
            let fails = SeccompAction::Errno(errno.cast_unsigned());
            programs.push(compile(rules, SeccompAction::Allow, fails).map_err(|e| said(&e))?);
        }
    }
    let allowed = allowed(stage, has_cache).map_err(|error| said(&error))?;
    let count = allowed.len();
    programs
        .push(compile(allowed, SeccompAction::Trap, SeccompAction::Allow).map_err(|e| said(&e))?);
    for program in &programs {
        seccompiler::apply_filter_all_threads(program).map_err(|error| said(&error))?;
    }
    Ok(match stage {
        Stage::Load => format!("{count} while it loads, for the {PROFILE}"),
        Stage::Always => format!("{count}, for the {PROFILE}"),
    })
}

fn compile(
    rules: Rules,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    let processor = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, otherwise, matched, processor)?.try_into()
}

/// Calls that pass, with what their arguments must be.
fn allowed(stage: Stage, has_cache: bool) -> Result<Rules, BackendError> {
    let listed = profile().filter(|call| stage == Stage::Load || call.until == Stage::Always);
    let mut rules = Rules::new();
    for call in listed {
        if let Some(rule) = passes(call, has_cache)? {
            rules.insert(call.number, rule);
        }
    }
    Ok(rules)
}

/// An empty list: with any arguments. `None`: with none.
fn passes(call: &Call, has_cache: bool) -> Result<Option<Vec<SeccompRule>>, BackendError> {
    if call.otherwise != Otherwise::End {
        // Another filter makes it fail.
        return Ok(Some(Vec::new()));
    }
    let conditions = match call.only {
        Only::Any => return Ok(Some(Vec::new())),
        // Those fail, above.
        Only::Never | Only::OpenInCache => return Ok(None),
        Only::InCache(_) if !has_cache => return Ok(None),
        Only::InCache(arguments) => {
            let is_cache = |&argument: &u8| number(argument, SeccompCmpOp::Eq, CACHE_ARGUMENT);
            arguments.iter().map(is_cache).collect::<Result<_, _>>()?
        }
        // All 64 bits: a pointer or a set of flags.
        Only::Is(argument, value) => vec![whole(argument, SeccompCmpOp::Eq, value)?],
        Only::OneOf(argument, values) => {
            let is =
                |&value: &u64| SeccompRule::new(vec![number(argument, SeccompCmpOp::Eq, value)?]);
            return values.iter().map(is).collect::<Result<_, _>>().map(Some);
        }
        Only::IsNot(argument, value) => vec![number(argument, SeccompCmpOp::Ne, value)?],
        Only::Without(argument, bits) => vec![whole(argument, SeccompCmpOp::MaskedEq(bits), 0)?],
        Only::Maps(rights, flags) => {
            let maps = |without: i32| {
                SeccompRule::new(vec![
                    whole(rights, SeccompCmpOp::MaskedEq(EXECUTABLE), 0)?,
                    number(flags, SeccompCmpOp::MaskedEq(without.cast_unsigned().into()), 0)?,
                ])
            };
            return Ok(Some(vec![maps(libc::MAP_SHARED)?, maps(libc::MAP_ANONYMOUS)?]));
        }
        Only::ThisProcess(argument) => {
            vec![number(argument, SeccompCmpOp::Eq, std::process::id().into())?]
        }
    };
    Ok(Some(vec![SeccompRule::new(conditions)?]))
}

/// The errors with which listed calls fail.
fn errors() -> BTreeSet<i32> {
    let errno = |call: &Call| match call.otherwise {
        Otherwise::Fail(errno) => Some(errno),
        Otherwise::End => None,
    };
    profile().filter_map(errno).collect()
}

/// Calls that fail with `errno`, with what their arguments are then.
fn failing(errno: i32, has_cache: bool) -> Result<Rules, BackendError> {
    let mut rules = Rules::new();
    for call in profile().filter(|call| call.otherwise == Otherwise::Fail(errno)) {
        let rule = match call.only {
            Only::OpenInCache if has_cache => {
                let bare = libc::O_PATH.cast_unsigned().into();
                vec![
                    SeccompRule::new(vec![number(0, SeccompCmpOp::Ne, CACHE_ARGUMENT)?])?,
                    SeccompRule::new(vec![number(2, SeccompCmpOp::MaskedEq(bare), bare)?])?,
                ]
            }
            _ => Vec::new(),
        };
        rules.insert(call.number, rule);
    }
    Ok(rules)
}

/// Of an argument that is an `int`: the kernel looks at no more than its lower half.
fn number(argument: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value)
}

fn whole(argument: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, op, value)
}

/// Has a forbidden call say its name on standard error before the process dies of it.
fn name_the_forbidden() -> std::io::Result<()> {
    // SAFETY: all zeros are a valid sigaction: no flags, an empty mask, the default handler.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = forbidden as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: `action` is complete; the handler calls only what a handler may.
    match unsafe { libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Where `siginfo_t` has the number of the call that a filter stopped: libc has no field for it.
#[repr(C)]
struct Stopped {
    number: libc::c_int,
    errno: libc::c_int,
    code: libc::c_int,
    address: *mut libc::c_void,
    call: libc::c_int,
}

extern "C" fn forbidden(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a siginfo of this signal, which begins like this on 64 bits.
    let call = unsafe { (*info.cast::<Stopped>()).call };
    say(b"tieline-runner: forbidden system call: ");
    match names::name(call.into()) {
        Some(name) => say(name.as_bytes()),
        None => say_number(call),
    }
    say(b"\n");
    // Forbidden too, and while this handler runs the signal is blocked: then it ends the process, which
    // its parent sees. SAFETY: takes no arguments.
    unsafe { libc::syscall(libc::SYS_getppid) };
    // SAFETY: ends the process; never reached while a filter is in force.
    unsafe { libc::_exit(2) };
}

fn say_number(number: libc::c_int) {
    let mut digits = [0; 10];
    let mut rest = number.unsigned_abs();
    let mut start = digits.len();
    while start > 0 && (rest > 0 || start == digits.len()) {
        start -= 1;
        // Below 10, so that nothing is lost.
        digits[start] = b'0' + (rest % 10).to_le_bytes()[0];
        rest /= 10;
    }
    say(&digits[start..]);
}

/// Without locks and without memory: in a signal's handler.
fn say(text: &[u8]) {
    // SAFETY: reads `text` alone. Nobody is left to tell if it fails.
    unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
}
