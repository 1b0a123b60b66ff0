//! The error numbers that a failed start is judged by.

/// No such file or directory: the program, its interpreter or the working directory is missing.
pub const ENOENT: i32 = 2;
/// Exec format error: the file is not a program for this machine.
pub const ENOEXEC: i32 = 8;
/// Not enough memory.
pub const ENOMEM: i32 = 12;
/// Permission denied: not executable, or a directory on the way may not be searched.
pub const EACCES: i32 = 13;
/// Too many open files in this process.
pub const EMFILE: i32 = 24;
/// Try again: the limit on processes is reached.
pub const EAGAIN: i32 = if cfg!(any(
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "dragonfly"
)) {
    35
} else {
    11
};

/// Returns the name and the meaning of an error number that a start is known to fail with.
pub(crate) fn describe(errno: i32) -> Option<(&'static str, &'static str)> {
    Some(match errno {
        ENOENT => ("ENOENT", "no such file or directory"),
        ENOEXEC => ("ENOEXEC", "not a program for this machine"),
        ENOMEM => ("ENOMEM", "not enough memory"),
        EACCES => ("EACCES", "permission denied"),
        EMFILE => ("EMFILE", "too many open files"),
        EAGAIN => ("EAGAIN", "too many processes"),
        1 => ("EPERM", "not permitted"),
        5 => ("EIO", "input or output error"),
        7 => ("E2BIG", "argument list too long"),
        20 => ("ENOTDIR", "a part of the path is not a directory"),
        21 => ("EISDIR", "is a directory"),
        22 => ("EINVAL", "invalid argument"),
        23 => ("ENFILE", "too many open files in the system"),
        26 => ("ETXTBSY", "the program file is being written"),
        28 => ("ENOSPC", "no space left on device"),
        _ => return None,
    })
}
