//! The service manager's side channel (`sd_notify(3)`): datagrams of `KEY=VALUE` lines to the socket
//! that `NOTIFY_SOCKET` names. Without one, nothing is said.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::rc::Rc;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tracing::warn;

use super::Control;

/// Tells a service manager how this process is.
#[derive(Debug, Default)]
pub struct Notifier {
    manager: Option<(UnixDatagram, SocketAddr)>,
    /// It takes us for dead when it hears nothing for so long.
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As the environment says.
    #[must_use]
    pub fn of_environment() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let Some(path) = variable("NOTIFY_SOCKET") else {
            return Self::default();
        };
        match open(&path) {
            Ok(manager) => {
                let watchdog = watchdog(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"), std::process::id());
                Self { manager: Some(manager), watchdog }
            }
            Err(error) => {
                warn!(path, %error, "the service manager cannot be told anything");
                Self::default()
            }
        }
    }

    /// Sends lines of `KEY=VALUE`.
    pub(super) fn tell(&self, state: &str) {
        if let Some((socket, manager)) = &self.manager
            && let Err(error) = socket.send_to_addr(state.as_bytes(), manager)
        {
            warn!(%error, state, "the service manager was not told");
        }
    }

    /// A reload begins; the next `READY=1` says that it has ended.
    pub(super) fn tell_reloading(&self) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }

    /// We serve.
    pub(super) fn tell_ready(&self) {
        self.tell("READY=1\nSTATUS=serving");
    }
}

/// A path, or `@` and an abstract name.
fn open(path: &str) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None if path.starts_with('/') => SocketAddr::from_pathname(path)?,
        None => return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a path nor an abstract name")),
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not stop the control thread.
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

fn watchdog(usec: Option<String>, pid: Option<String>, own: u32) -> Option<Duration> {
    let interval = Duration::from_micros(usec?.parse().ok().filter(|usec| *usec > 0)?);
    let is_ours = pid.is_none_or(|pid| pid.parse() == Ok(own));
    is_ours.then_some(interval)
}

/// Says that the control loop runs, twice in the time after which the manager would end us.
pub(super) async fn feed_watchdog(control: Rc<Control>) {
    let Some(interval) = control.notifier.watchdog else { return };
    while !control.handed_over.get() {
        control.notifier.tell("WATCHDOG=1");
        monoio::time::sleep(interval / 2).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_of_this_process_only() {
        let watch = |usec: &str, pid: Option<&str>| watchdog(Some(usec.into()), pid.map(Into::into), 7);
        assert_eq!(watch("3000000", Some("7")), Some(Duration::from_secs(3)));
        assert_eq!(watch("3000000", None), Some(Duration::from_secs(3)));
        assert_eq!(watch("3000000", Some("8")), None);
        assert_eq!(watch("0", None), None);
        assert_eq!(watch("soon", None), None);
        assert_eq!(watchdog(None, None, 7), None);
    }

    #[test]
    fn only_paths_and_abstract_names_are_sockets() {
        assert!(open("vsock:2:1").is_err());
        assert!(open("@ringway-test").is_ok());
        assert!(open("/nowhere").is_ok(), "it may come up later");
    }
}
