//! Machines in network namespaces of a test's own, whose lines to single addresses can be cut without a word, as a cable that is
//! pulled somewhere in between: nothing is refused, and nothing arrives.
//!
//! The test runs itself once more inside a user namespace, so that it needs no right beyond making one, touches nothing of the
//! machine's own network, and leaves nothing behind. Linux only.

use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};

/// By which the test knows that it is inside.
const INSIDE: &str = "TEST_IN_NAMESPACE";

/// False outside, where the named test has been run inside, or left out with a word where the system allows no namespaces.
#[expect(
    clippy::disallowed_methods,
    reason = "a test's own switch, not a setting of the program"
)]
pub(crate) fn is_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let enter = |program: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", program]);
        command
    };
    let probe = enter("sh")
        .args([
            "-c",
            "ip link add name veth-a type veth peer name veth-b && ip rule add pref 9 to 10.0.0.1 blackhole",
        ])
        .stderr(Stdio::null())
        .status();
    if !probe.is_ok_and(|status| status.success()) {
        println!("no network namespaces can be made here: {test} is NOT run");
        return false;
    }
    let program = std::env::current_exe().expect("the test's own program");
    let status = enter(program.to_str().expect("a path of letters"))
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .status();
    assert!(status.expect("it runs").success(), "inside it failed");
    false
}

/// Runs a program that must succeed.
fn run(mut command: Command) {
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

fn ip(arguments: &str) {
    let mut command = Command::new("ip");
    command.args(arguments.split(' '));
    run(command);
}

/// Gives the test's own side an address for a service that machines reach.
pub(crate) fn service_address(last: u8) -> Ipv4Addr {
    let address = Ipv4Addr::new(10, 77, 0, last);
    ip("link set lo up");
    ip(&format!("address add {address}/32 dev lo"));
    address
}

/// A namespace of a machine with a line to the test's own side.
#[derive(Debug)]
pub(crate) struct Namespace {
    /// Keeps it in being.
    holder: Child,
    number: u8,
}

impl Namespace {
    /// The `number`th.
    pub(crate) fn new(number: u8) -> Self {
        let holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo there; exec sleep 3600"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        let mut holder = holder.expect("a namespace inside of ours");
        super::server::first_line(&mut holder);
        let namespace = Self { holder, number };
        let id = namespace.holder.id();
        ip(&format!("link add near{number} type veth peer name far"));
        ip(&format!("link set far netns {id}"));
        ip(&format!("address add 10.77.{number}.1/24 dev near{number}"));
        ip(&format!("link set near{number} up"));
        for arguments in [
            "link set lo up",
            &format!("address add {}/24 dev far", namespace.address()),
            "link set far up",
            &format!("route add default via 10.77.{number}.1"),
            // A cut comes before the rule that what is for this machine is let in.
            "rule add pref 100 lookup local",
            "rule del pref 0",
        ] {
            namespace.ip(arguments);
        }
        namespace
    }

    /// Where the machine inside is reached.
    pub(crate) fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.number, 2)
    }

    /// A program inside.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--net", "--target", &self.holder.id().to_string(), program])
            .stdin(Stdio::null());
        command
    }

    fn ip(&self, arguments: &str) {
        let mut command = self.command("ip");
        command.args(arguments.split(' '));
        run(command);
    }

    /// From now on nothing gets from here to `address` or back.
    pub(crate) fn cut(&self, address: Ipv4Addr) {
        self.rules("add", address);
    }

    /// As it was.
    pub(crate) fn heal(&self, address: Ipv4Addr) {
        self.rules("del", address);
    }

    fn rules(&self, change: &str, address: Ipv4Addr) {
        for direction in ["to", "from"] {
            self.ip(&format!("rule {change} pref 10 {direction} {address} blackhole"));
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
