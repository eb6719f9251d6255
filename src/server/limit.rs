//! The number of descriptors this process may open.

use std::io;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit to the hard one: the soft one is low for the sake of programs that use
/// `select(2)`, and every connection takes two descriptors.
pub(super) fn raise_descriptors() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
            tracing::info!(from = soft, to = hard, "descriptor limit raised");
        }
        Ok(())
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "the descriptor limit stays as it is");
    }
}

/// Whether an operation failed because no descriptor was left.
pub(super) fn is_descriptors(error: &io::Error) -> bool {
    let exhausted = [Errno::EMFILE, Errno::ENFILE].map(|errno| errno as i32);
    error.raw_os_error().is_some_and(|errno| exhausted.contains(&errno))
}

/// What to do about it.
pub(super) fn advice() -> String {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or_else(|_| "unknown".to_owned(), |(soft, _)| soft.to_string());
    format!("the limit is {limit} descriptors (raise it: ulimit -n, LimitNOFILE= of systemd, ulimits of a container)")
}
