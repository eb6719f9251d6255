//! The operator's file: from TOML text to [`Config`], or to every fault in it.
//!
//! Called by `main` and by `control` on reload; runs on no worker. What is written (`file`, over the
//! tree of `tree`, by the table of `reference`, every value at its `place`) becomes what is used
//! (`model`); code behind the loader sees only the latter. Nothing is resolved and nothing bound
//! here: the same text, included files and environment give the same answer.

mod address;
mod error;
mod file;
mod include;
pub mod model;
mod place;
mod reference;
mod text;
mod tree;

use std::net::SocketAddr;
use std::path::Path;

pub use error::{ConfigError, Fault};
pub use file::Loaded;
pub use model::Config;
pub use reference::{Absent, KeyDoc, Kind, reference};
pub use text::Variables;

use place::Source;

/// Loads a file and what it includes, with the variables of this process.
///
/// # Errors
/// Every fault found.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    load_with(path, &process_variable).map(|loaded| loaded.config)
}

/// Loads a text as if it stood in a file of that name.
///
/// # Errors
/// Every fault found.
pub fn load_str(name: &str, text: &str) -> Result<Config, ConfigError> {
    load_str_with(name, text, &process_variable).map(|loaded| loaded.config)
}

/// [`load`] with given variables, and with what there is to tell beside the configuration.
///
/// # Errors
/// Every fault found.
pub fn load_with(path: &Path, variables: Variables<'_>) -> Result<Loaded, ConfigError> {
    match text::read_file(path) {
        Ok(text) => file::read(&Source::new(path, text), variables),
        Err(found) => Err(ConfigError::from(Fault {
            file: path.display().to_string(),
            line: 0,
            key: String::new(),
            problem: found.problem,
            remedy: found.remedy,
        })),
    }
}

/// [`load_str`] with given variables, and with what there is to tell beside the configuration.
///
/// # Errors
/// Every fault found.
pub fn load_str_with(name: &str, text: &str, variables: Variables<'_>) -> Result<Loaded, ConfigError> {
    file::read(&Source::new(Path::new(name), text.to_owned()), variables)
}

/// A variable of this process; one that is no text counts as not set.
#[must_use]
pub fn process_variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The embedded default: the two built-in servers behind the proxy.
///
/// # Errors
/// When `RINGWAY_LISTEN` or `RINGWAY_ADMIN_LISTEN`, which may move the demo's two addresses, hold
/// something else than an address.
pub fn demo(modern: SocketAddr, legacy: SocketAddr, variables: Variables<'_>) -> Result<Loaded, ConfigError> {
    let address = |variable: &str, default: &str| match variables(variable) {
        Some(value) if !value.is_empty() => format!("${{{variable}}}"),
        _ => default.to_owned(),
    };
    let listen = address("RINGWAY_LISTEN", "127.0.0.1:8080");
    let admin_listen = address("RINGWAY_ADMIN_LISTEN", "127.0.0.1:9090");
    let text = format!(
        r#"[server]
listen = ["{listen}"]

[admin]
listen = "{admin_listen}"

[backends.modern]
endpoints = ["http://{modern}/mcp"]
protocol = "modern"

[backends.legacy]
endpoints = ["http://{legacy}/mcp"]
protocol = "legacy"
"#
    );
    load_str_with("demo", &text, variables)
}
