//! The command line: which configuration, what to do with it, and the exit code.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use ringway::config::{self, Config, ConfigError, Loaded, process_variable};
use ringway::control::{Resolver, log};
use ringway::demo;
use ringway::route;
use ringway::seam::Snapshot;
use ringway::server::{self, Inherited, RunError};
use tracing::warn;

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Where a configuration is looked for when none is named, in this order.
const DEFAULT_FILES: [&str; 2] = ["config/ringway.toml", "/etc/ringway/ringway.toml"];

/// Thread-per-core edge proxy for fleets of HTTP MCP servers.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    file: FileArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve; without a configuration file, serve the demo. The default command
    Run(FileArgs),
    /// Serve two built-in MCP servers on loopback and print what to try
    Demo,
    /// Load and validate a configuration; print a summary, or every fault
    Check(FileArgs),
    /// Print the route table, or which route and backend a request meets and why
    Routes(RoutesArgs),
    /// Print version, commit and the I/O driver available here
    Version,
}

#[derive(Clone, Debug, Args)]
struct FileArgs {
    /// Configuration file; default: config/ringway.toml, then /etc/ringway/ringway.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct RoutesArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Request method
    #[arg(requires = "url")]
    method: Option<String>,
    /// URL, or a path for any host
    url: Option<String>,
}

/// Why the process ends other than cleanly.
struct Failure {
    exit_code: u8,
    text: String,
}

const ANYTHING_ELSE: u8 = 1;
const CONFIGURATION: u8 = 2;
const CANNOT_BIND: u8 = 3;

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self { exit_code: CONFIGURATION, text: error.to_string() }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self { exit_code: ANYTHING_ELSE, text: error.to_string() }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let exit_code = match error {
            RunError::Config(_) | RunError::Build(_) => CONFIGURATION,
            RunError::Bind { .. } => CANNOT_BIND,
            RunError::Control(_) | RunError::Other(_) => ANYTHING_ELSE,
        };
        Self { exit_code, text: error.to_string() }
    }
}

fn main() -> ExitCode {
    forgo_huge_pages();
    let cli = Cli::parse();
    let done = match cli.command.unwrap_or(Command::Run(cli.file)) {
        Command::Run(args) => run(args),
        Command::Demo => Inherited::take().map_err(Failure::from).and_then(run_demo),
        Command::Check(args) => check(args),
        Command::Routes(args) => routes(args),
        Command::Version => print(&version()).map_err(Failure::from),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Where nobody reads, the exit code must do.
            let _ = writeln!(io::stderr(), "{}", failure.text.trim_end());
            ExitCode::from(failure.exit_code)
        }
    }
}

/// Before anything is allocated on a worker. The allocator asks for huge pages, and one that is touched
/// anywhere is resident as a whole: an open stream, which allocates 3.3 KB, cost 5.1 KB.
fn forgo_huge_pages() {
    // Older kernels do not know it; nothing is lost but memory.
    let _ = nix::sys::prctl::set_thp_disable(true);
}

fn run(args: FileArgs) -> Result<(), Failure> {
    let inherited = Inherited::take()?;
    let Some(path) = args.config.or_else(default_file) else {
        print(&format!("no configuration in {}: serving the demo\n\n", DEFAULT_FILES.join(" or ")))?;
        return run_demo(inherited);
    };
    let loaded = config::load_with(&path, &process_variable)?;
    serve(loaded, server::Source::File(path), inherited, |_| String::new())
}

fn run_demo(inherited: Inherited) -> Result<(), Failure> {
    let servers = demo::start()?;
    let loaded = config::demo(servers.modern, servers.legacy, &process_variable)?;
    let announce = |address| servers.curl_lines(&format!("http://{address}"));
    serve(loaded, server::Source::Fixed, inherited, announce)
}

/// Serves, and once it does prints what `announce` makes of the first address.
fn serve(
    loaded: Loaded,
    source: server::Source,
    inherited: Inherited,
    announce: impl FnOnce(SocketAddr) -> String,
) -> Result<(), Failure> {
    let log = log::init();
    for note in loaded.notes {
        warn!(note, "configuration note");
    }
    let process = server::Process { inherited, program: server::program()?, log, hooks: server::Hooks::default() };
    let announce = |addresses: &[SocketAddr]| match addresses.first() {
        Some(address) => print(&announce(*address)),
        None => Ok(()),
    };
    Ok(server::run(loaded.config, source, process, announce)?)
}

fn check(args: FileArgs) -> Result<(), Failure> {
    let loaded = load(args)?;
    let snapshot = compile(&loaded)?;
    Ok(print(&summary(&loaded, &snapshot))?)
}

fn routes(args: RoutesArgs) -> Result<(), Failure> {
    let snapshot = compile(&load(args.file)?)?;
    let text = match (args.method, args.url) {
        (Some(method), Some(url)) => {
            let (host, path) = host_and_path(&url);
            route::explain(&snapshot, &method, host, path)
        }
        _ => route::table(&snapshot),
    };
    Ok(print(&text)?)
}

/// A file that cannot be asked about counts as there: loading it then says why.
fn default_file() -> Option<PathBuf> {
    DEFAULT_FILES.iter().map(PathBuf::from).find(|path| path.try_exists().unwrap_or(true))
}

fn load(args: FileArgs) -> Result<Loaded, ConfigError> {
    let path = args.config.or_else(default_file).unwrap_or_else(|| PathBuf::from(DEFAULT_FILES[0]));
    config::load_with(&path, &process_variable)
}

/// The snapshot of a configuration, host names resolved.
fn compile(loaded: &Loaded) -> Result<Snapshot, RunError> {
    let addresses = Resolver::at_start(&loaded.config).addresses(&loaded.config);
    Snapshot::build(&loaded.config, &addresses, None).map_err(RunError::Build)
}

fn summary(loaded: &Loaded, snapshot: &Snapshot) -> String {
    let Config { server, admin, backends, routes, .. } = &loaded.config;
    let endpoints: usize = backends.values().map(|backend| backend.endpoints.len()).sum();
    let addresses: Vec<String> = server.listen.iter().map(ToString::to_string).collect();
    let addresses_known: usize = snapshot.clusters.iter().map(|cluster| cluster.endpoints.len()).sum();
    let mut lines = vec![
        format!("files      {}", loaded.files.len()),
        format!("listen     {}", addresses.join(", ")),
        format!("admin      {}", admin.listen.map_or_else(|| "off".to_owned(), |address| address.to_string())),
        format!("routes     {}", routes.len()),
        format!("backends   {}", backends.len()),
        format!("endpoints  {endpoints} at {addresses_known} addresses"),
    ];
    lines.extend(loaded.notes.iter().map(|note| format!("note       {note}")));
    lines.push("ok\n".to_owned());
    lines.join("\n")
}

/// Host and path of a URL; of a path alone, no host.
fn host_and_path(url: &str) -> (&str, &str) {
    let url = url.split(['?', '#']).next().unwrap_or(url);
    let Some((_, rest)) = url.split_once("://") else {
        return ("", url);
    };
    match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, "/"),
    }
}

fn version() -> String {
    format!(
        "ringway {}\ncommit {}\nio driver {}\n",
        env!("CARGO_PKG_VERSION"),
        option_env!("RINGWAY_COMMIT").unwrap_or("unknown"),
        server::io_driver_available()
    )
}

/// To standard output; a reader that has left (`| head`) is no failure.
fn print(text: &str) -> io::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use std::path::Path;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_is_the_default_and_takes_a_file() {
        let cli = Cli::try_parse_from(["ringway", "--config", "a.toml"]).expect("valid");
        assert!(cli.command.is_none());
        assert_eq!(cli.file.config.as_deref(), Some(Path::new("a.toml")));
        assert!(Cli::try_parse_from(["ringway", "routes", "GET"]).is_err(), "a method needs a URL");
    }

    #[test]
    fn urls_and_paths() {
        assert_eq!(host_and_path("http://a.example:80/mcp/x?q#f"), ("a.example:80", "/mcp/x"));
        assert_eq!(host_and_path("https://a"), ("a", "/"));
        assert_eq!(host_and_path("/mcp/x"), ("", "/mcp/x"));
    }
}
