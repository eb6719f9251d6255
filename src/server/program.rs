//! The program that this process runs, as it can be started again.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{self, Path, PathBuf};

use crate::control::Program;

/// To be asked at the start: later the file may be another, and the system knows only the one that
/// runs. The path is the one that was typed, if it leads to the running file, so that a link that is
/// pointed to a new version leads there.
///
/// # Errors
/// When the system does not say what runs.
pub fn program() -> io::Result<Program> {
    let arguments: Vec<OsString> = env::args_os().collect();
    let running = env::current_exe()?;
    let typed = arguments.first().and_then(|name| find(name, env::var_os("PATH").as_deref(), &running));
    Ok(Program { path: typed.unwrap_or(running), arguments })
}

/// The absolute path by which a name led to the running file.
fn find(name: &OsStr, search: Option<&OsStr>, running: &Path) -> Option<PathBuf> {
    let is_running = |path: &PathBuf| same_file(path, running);
    if Path::new(name).components().count() > 1 {
        return path::absolute(name).ok().filter(is_running);
    }
    env::split_paths(search?).filter_map(|directory| path::absolute(directory.join(name)).ok()).find(is_running)
}

fn same_file(left: &Path, right: &Path) -> bool {
    let identity = |path: &Path| path.metadata().map(|file| (file.dev(), file.ino()));
    matches!((identity(left), identity(right)), (Ok(left), Ok(right)) if left == right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_stays_a_link() {
        let directory = tempfile::tempdir().expect("a directory");
        let (real, link) = (directory.path().join("ringway-1"), directory.path().join("ringway"));
        std::fs::write(&real, "").expect("written");
        std::os::unix::fs::symlink(&real, &link).expect("linked");
        let search = env::join_paths([Path::new("/nowhere"), directory.path()]).expect("no colon");
        assert_eq!(find(link.as_os_str(), None, &real), Some(link.clone()));
        assert_eq!(find(OsStr::new("ringway"), Some(&search), &real), Some(link.clone()));
        assert_eq!(find(OsStr::new("other"), Some(&search), &real), None);
        let other = directory.path().join("other");
        std::fs::write(&other, "").expect("written");
        assert_eq!(find(other.as_os_str(), None, &real), None, "not what runs");
    }
}
