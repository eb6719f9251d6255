//! Ringway's load test: a mock MCP backend, a load generator, the relay floors, and a bench that compares proxies.
//!
//! `run.sh` builds this and runs `bench`; the other subcommands are its parts and can be used alone.

mod bench;
mod case;
mod clock;
mod cpu;
mod drive;
mod gate;
mod hold;
mod http;
mod launch;
mod memory;
mod mock;
mod peers;
mod relay;
mod report;
mod workload;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(version, about, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve as a mock MCP backend
    Mock(mock::MockArgs),
    /// Send load, check every answer, print one line of JSON
    Drive(drive::DriveArgs),
    /// Open connections that do nothing, print what each costs the proxy
    Hold(hold::HoldArgs),
    /// Relay bytes blindly: the least a one-thread hop costs
    Relay(relay::RelayArgs),
    /// Compare proxies: start them, visit them in turns, report
    Bench(bench::BenchArgs),
    /// Write the table and the plot of docs/performance.md
    Publish(report::PublishArgs),
    /// Count instructions of leaves and requests, compare them with figures that are checked in
    Gate(gate::GateArgs),
    /// Pin this process, tie it to its parent, and become another program
    #[command(hide = true)]
    Launch(launch::LaunchArgs),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Mock(args) => mock::run(&args),
        Command::Drive(args) => drive::run(&args),
        Command::Hold(args) => hold::run(&args),
        Command::Relay(args) => relay::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Publish(args) => report::publish(&args),
        Command::Gate(args) => gate::run(&args),
        Command::Launch(args) => launch::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
