//! The real binary, on a free port, with a data folder of its own; killed when it goes out of scope.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;

/// How long a start may take. The demo model is unpacked in this time, by a debug build, on a busy machine.
const START: Duration = Duration::from_secs(120);

/// A running `pentimento serve`.
#[derive(Debug)]
pub(crate) struct TestServer {
    process: Child,
    address: SocketAddr,
    /// What the server says after its address.
    lines: mpsc::Receiver<String>,
    /// Where its log and its data are.
    home: PathBuf,
    /// Deleted with the server, where it is its own.
    _folder: Option<TempDir>,
    /// Where pictures are served from, for calls that take addresses.
    served: String,
    key: Option<String>,
}

/// The first line that a program says, which a server does when it is ready.
pub(crate) fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    let output = child.stdout.take().expect("its output is piped");
    BufReader::new(output)
        .read_line(&mut line)
        .expect("its output is text");
    line
}

impl TestServer {
    /// Starts it with the embedded model, without keys.
    pub(crate) fn start() -> Self {
        Self::start_with(&[], &[])
    }

    /// Starts it with further flags and environment variables.
    pub(crate) fn start_with(flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the server");
        let mut server = Self::start_in(folder.path(), flags, environment);
        server._folder = Some(folder);
        server
    }

    /// Starts it in a folder that outlives it, on the data of the one before.
    pub(crate) fn start_in(home: &Path, flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut program = Command::new(env!("CARGO_BIN_EXE_pentimento"));
        program.envs(environment.iter().copied());
        Self::start_as(program, (home, flags))
    }

    /// Starts it as a program that ends in the server's binary, such as one that enters a namespace first. The server's process is the
    /// program's.
    pub(crate) fn start_as(program: Command, started: (&Path, &[&str])) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST, program, started)
    }

    /// The same, at an address that the program has.
    pub(crate) fn start_at(listen: Ipv4Addr, mut program: Command, (home, flags): (&Path, &[&str])) -> Self {
        let log = fs_err::OpenOptions::new()
            .create(true)
            .append(true)
            .open(home.join("server.log"))
            .expect("a file for its log");
        let mut process = program
            .args(["serve", "--listen", &format!("{listen}:0"), "--data"])
            .arg(home.join("data"))
            .args(flags)
            // No settings or catalogue of the machine may reach the test.
            .current_dir(home)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.into_parts().0)
            .spawn()
            .expect("the binary starts");
        let output = process.stdout.take().expect("its output is piped");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut server = Self {
            process,
            address: ([127, 0, 0, 1], 0).into(),
            lines,
            home: home.to_owned(),
            _folder: None,
            served: String::new(),
            key: None,
        };
        let line = server.lines.recv_timeout(START);
        let address = line
            .as_deref()
            .ok()
            .and_then(|line| line.strip_prefix("listening on http://"));
        server.address = address
            .and_then(|address| address.parse().ok())
            .unwrap_or_else(|| panic!("the server said {line:?}; its log:\n{}", server.log()));
        server
    }

    /// `http://127.0.0.1:PORT`
    pub(crate) fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// For one that wants a key of its callers.
    pub(crate) fn with_key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    /// What callers have to send.
    pub(crate) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Its data folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// Where health checks are answered alone. To be asked once.
    pub(crate) fn admin_base(&self) -> String {
        let line = self.lines.recv_timeout(START).expect("a second line");
        let address = line.strip_prefix("health checks on ");
        address.unwrap_or_else(|| panic!("no address: {line}")).to_owned()
    }

    /// The server of pictures that scenarios mean by `$served`.
    pub(crate) fn with_served(mut self, address: SocketAddr) -> Self {
        self.served = format!("http://{address}");
        self
    }

    /// Its root; empty when there is none.
    pub(crate) fn served(&self) -> &str {
        &self.served
    }

    /// For raw connections.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether the process still runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// For signals.
    pub(crate) fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Sends a signal, `TERM` for example.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.process.id().to_string()])
            .status();
        assert!(sent.expect("there is a kill").success());
    }

    /// SIGKILL: nothing is closed or written any more.
    pub(crate) fn kill(mut self) {
        self.process.kill().expect("it can be killed");
        self.process.wait().expect("it ends");
    }

    /// The exit code, once the process has ended by itself; None for one that a signal ended.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        self.process.wait().expect("it ends").code()
    }

    /// Once it has ended by itself.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        self.process
            .try_wait()
            .ok()
            .flatten()
            .and_then(|status| status.code())
    }

    /// The most bytes of memory that the process ever held at once.
    #[cfg(target_os = "linux")]
    pub(crate) fn peak_memory(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// The bytes of memory that the process holds now.
    #[cfg(target_os = "linux")]
    pub(crate) fn resident_memory(&self) -> u64 {
        self.memory("VmRSS:")
    }

    #[cfg(target_os = "linux")]
    fn memory(&self, figure: &str) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = fs_err::read_to_string(path).expect("the process runs");
        let found = status.lines().find_map(|line| line.strip_prefix(figure));
        let kib = found.and_then(|line| line.trim().strip_suffix(" kB"));
        kib.and_then(|kib| kib.parse::<u64>().ok())
            .expect("the system tells it in kB")
            * 1024
    }

    /// The end of what it logged.
    pub(crate) fn log(&self) -> String {
        let log = fs_err::read_to_string(self.home.join("server.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server's log ends with:\n{}", self.log());
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
