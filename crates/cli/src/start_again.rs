//! The program anew in the place of the one that has ended: the same arguments, surroundings and process id, so that a supervisor
//! sees nothing of it, and a server without one comes back as well. What the file of the program is by now is what starts.

use std::ffi::OsString;
use std::process::ExitCode;

/// Where the program cannot be started in place: a supervisor that restarts what has failed does it then.
const RESTART: u8 = 75;

/// Does not return where it works. To be called when nothing of the program runs any more.
pub(crate) fn start_again(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    if let Some(program) = arguments.next() {
        replace(&program, arguments);
    }
    ExitCode::from(RESTART)
}

#[cfg(unix)]
fn replace(program: &OsString, arguments: impl Iterator<Item = OsString>) {
    use std::os::unix::process::CommandExt as _;
    let error = std::process::Command::new(program).args(arguments).exec();
    crate::output::note(format!("the program could not be started again: {error}"));
}

#[cfg(not(unix))]
fn replace(_program: &OsString, _arguments: impl Iterator<Item = OsString>) {}
