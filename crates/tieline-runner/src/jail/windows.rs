//! The jail of Windows: a job, policies of the process, and a token without rights. Compiled and never run.
//!
//! It is less than on Linux: whoever takes the runner over can still read what the user may read, and talk to
//! a network. What would forbid that, an app container, must be made by whoever starts the process.

use std::io;
use std::mem;
use std::ptr::{self, NonNull};

use tieline_decode::disk::OpenFolder;
use tieline_types::{Jail, JailLayer};
use windows_sys::Win32::Foundation::{CloseHandle, HANDLE};
use windows_sys::Win32::Security::{
    AdjustTokenPrivileges, CreateWellKnownSid, GetTokenInformation, LUID_AND_ATTRIBUTES,
    SE_PRIVILEGE_REMOVED, SECURITY_MAX_SID_SIZE, SID_AND_ATTRIBUTES, SetTokenInformation,
    TOKEN_ADJUST_DEFAULT, TOKEN_ADJUST_PRIVILEGES, TOKEN_MANDATORY_LABEL, TOKEN_PRIVILEGES,
    TOKEN_QUERY, TokenIntegrityLevel, TokenPrivileges, WinLowLabelSid,
};
use windows_sys::Win32::System::JobObjects::{
    AssignProcessToJobObject, CreateJobObjectW, JOB_OBJECT_LIMIT_ACTIVE_PROCESS,
    JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION, JOB_OBJECT_UILIMIT_DESKTOP,
    JOB_OBJECT_UILIMIT_DISPLAYSETTINGS, JOB_OBJECT_UILIMIT_EXITWINDOWS,
    JOB_OBJECT_UILIMIT_GLOBALATOMS, JOB_OBJECT_UILIMIT_HANDLES, JOB_OBJECT_UILIMIT_READCLIPBOARD,
    JOB_OBJECT_UILIMIT_SYSTEMPARAMETERS, JOB_OBJECT_UILIMIT_WRITECLIPBOARD,
    JOBOBJECT_BASIC_UI_RESTRICTIONS, JOBOBJECT_EXTENDED_LIMIT_INFORMATION, JOBOBJECTINFOCLASS,
    JobObjectBasicUIRestrictions, JobObjectExtendedLimitInformation, SetInformationJobObject,
};
use windows_sys::Win32::System::SystemServices::SE_GROUP_INTEGRITY;
use windows_sys::Win32::System::Threading::{
    GetCurrentProcess, OpenProcessToken, PROCESS_MITIGATION_POLICY, ProcessChildProcessPolicy,
    ProcessDynamicCodePolicy, ProcessExtensionPointDisablePolicy, ProcessImageLoadPolicy,
    SetProcessMitigationPolicy,
};

/// Everything that a program could do to others on the same desktop.
const DESKTOP: u32 = JOB_OBJECT_UILIMIT_DESKTOP
    | JOB_OBJECT_UILIMIT_DISPLAYSETTINGS
    | JOB_OBJECT_UILIMIT_EXITWINDOWS
    | JOB_OBJECT_UILIMIT_GLOBALATOMS
    | JOB_OBJECT_UILIMIT_HANDLES
    | JOB_OBJECT_UILIMIT_READCLIPBOARD
    | JOB_OBJECT_UILIMIT_SYSTEMPARAMETERS
    | JOB_OBJECT_UILIMIT_WRITECLIPBOARD;

/// Policies of a process, each with its bits: no library that others wish to load into it, none from a network
/// or of low integrity.
const POLICIES: &[(PROCESS_MITIGATION_POLICY, u32)] =
    &[(ProcessExtensionPointDisablePolicy, 1), (ProcessImageLoadPolicy, 0b11)];

/// The most privileges of a token: Windows knows some 36.
const PRIVILEGES: usize = 64;

/// Puts this process into a job of its own. First of all.
pub(crate) fn before() -> Jail {
    let mut jail = Jail::none("Windows has no such thing");
    let said = |error: io::Error| error.to_string();
    let limits = own_job().map(|()| "a job of one process, no desktop".to_owned());
    jail.note(JailLayer::Limits, limits.map_err(said));
    let none =
        policy(ProcessChildProcessPolicy, 1).map(|()| "no program can be started".to_owned());
    jail.note(JailLayer::NoNewPrivileges, none.map_err(said));
    jail
}

/// Gives up all privileges and the right to write to what is the user's, and memory that runs.
pub(crate) fn lock(jail: &mut Jail, _: Option<&OpenFolder>) {
    let said = |error: io::Error| error.to_string();
    let gone = no_privileges().map(|()| "no privileges".to_owned());
    jail.note(JailLayer::Capabilities, gone.map_err(said));
    // Said to be missing even where it holds: only half of what the word means does.
    let files = match low_integrity() {
        Ok(()) => "low integrity: it writes to nothing of the user's, and may read it".to_owned(),
        Err(error) => error.to_string(),
    };
    jail.note(JailLayer::Files, Err(files));
    let runs = policy(ProcessDynamicCodePolicy, 1).map_or_else(said, |()| {
        "no memory that runs; Windows has no list of calls that a process may make".to_owned()
    });
    jail.note(JailLayer::SystemCalls, Err(runs));
    for (which, bits) in POLICIES {
        // Of little weight, and older systems lack some.
        let _ = policy(*which, *bits);
    }
}

/// Nothing is left to take away.
pub(crate) fn seal(_: &mut Jail, _: bool) {}

fn done(result: i32) -> io::Result<()> {
    if result == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A job of which nobody else has a handle, so that nobody widens it; it ends with this process.
fn own_job() -> io::Result<()> {
    // SAFETY: neither rights nor a name are given, which it allows.
    let job = unsafe { CreateJobObjectW(ptr::null(), ptr::null()) };
    let job = NonNull::new(job).ok_or_else(io::Error::last_os_error)?.as_ptr();
    // SAFETY: all-zero is a valid value: no limit.
    let mut limits: JOBOBJECT_EXTENDED_LIMIT_INFORMATION = unsafe { mem::zeroed() };
    limits.BasicLimitInformation.LimitFlags =
        JOB_OBJECT_LIMIT_ACTIVE_PROCESS | JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION;
    limits.BasicLimitInformation.ActiveProcessLimit = 1;
    limit(job, JobObjectExtendedLimitInformation, &limits)?;
    let desktop = JOBOBJECT_BASIC_UI_RESTRICTIONS { UIRestrictionsClass: DESKTOP };
    limit(job, JobObjectBasicUIRestrictions, &desktop)?;
    // SAFETY: both handles are valid. The job's is left open: closed, its limits would hold all the same.
    done(unsafe { AssignProcessToJobObject(job, GetCurrentProcess()) })
}

fn limit<T>(job: HANDLE, class: JOBOBJECTINFOCLASS, limits: &T) -> io::Result<()> {
    let limits = ptr::from_ref(limits).cast();
    // SAFETY: the caller names the class of the struct that it gives, whose size is told.
    done(unsafe { SetInformationJobObject(job, class, limits, size_of::<T>() as u32) })
}

/// Sets a policy of this process, which cannot be taken back.
fn policy(which: PROCESS_MITIGATION_POLICY, bits: u32) -> io::Result<()> {
    // SAFETY: each of these policies is a struct of one such number.
    done(unsafe {
        SetProcessMitigationPolicy(which, ptr::from_ref(&bits).cast(), size_of::<u32>())
    })
}

/// This process's token.
struct Token(HANDLE);

impl Token {
    fn open() -> io::Result<Self> {
        let mut token = ptr::null_mut();
        let rights = TOKEN_QUERY | TOKEN_ADJUST_DEFAULT | TOKEN_ADJUST_PRIVILEGES;
        // SAFETY: the process's handle is valid, and `token` is writable.
        done(unsafe { OpenProcessToken(GetCurrentProcess(), rights, &raw mut token) })?;
        Ok(Self(token))
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        // SAFETY: opened by `open`, closed once.
        unsafe { CloseHandle(self.0) };
    }
}

/// A token's privileges, with room for all there are. Laid out as [`TOKEN_PRIVILEGES`], whose list has any
/// length.
#[repr(C)]
struct Privileges {
    count: u32,
    list: [LUID_AND_ATTRIBUTES; PRIVILEGES],
}

/// Removes every privilege from this process's token. None of them comes back.
fn no_privileges() -> io::Result<()> {
    let token = Token::open()?;
    // SAFETY: all-zero is valid: an empty list.
    let mut privileges: Privileges = unsafe { mem::zeroed() };
    let (size, mut needed) = (size_of::<Privileges>() as u32, 0);
    let room = (&raw mut privileges).cast();
    // SAFETY: `room` is writable, as large as is told, and laid out as the list is.
    done(unsafe { GetTokenInformation(token.0, TokenPrivileges, room, size, &raw mut needed) })?;
    privileges.list.iter_mut().for_each(|one| one.Attributes = SE_PRIVILEGE_REMOVED);
    let list = (&raw const privileges).cast::<TOKEN_PRIVILEGES>();
    // SAFETY: the list holds as many as its count says, and nothing is to be told of what was.
    done(unsafe { AdjustTokenPrivileges(token.0, 0, list, 0, ptr::null_mut(), ptr::null_mut()) })
}

/// From now on the system lets this process write to nothing that is not marked as of low integrity.
fn low_integrity() -> io::Result<()> {
    let token = Token::open()?;
    // Aligned as an identifier must be.
    let (mut sid, mut size) = ([0_u32; SECURITY_MAX_SID_SIZE as usize / 4], SECURITY_MAX_SID_SIZE);
    let sid = sid.as_mut_ptr().cast();
    // SAFETY: `sid` has room for any identifier, and this one is not of a domain.
    done(unsafe { CreateWellKnownSid(WinLowLabelSid, ptr::null_mut(), sid, &raw mut size) })?;
    let attributes = SE_GROUP_INTEGRITY.cast_unsigned();
    let label =
        TOKEN_MANDATORY_LABEL { Label: SID_AND_ATTRIBUTES { Sid: sid, Attributes: attributes } };
    let told = size_of::<TOKEN_MANDATORY_LABEL>() as u32 + size;
    // SAFETY: the label and the identifier that it points to live through the call.
    done(unsafe {
        SetTokenInformation(token.0, TokenIntegrityLevel, ptr::from_ref(&label).cast(), told)
    })
}
