//! Ringway: a thread-per-core edge proxy for fleets of HTTP MCP servers.
//!
//! The map of the crate, in reading order. One worker thread per core owns everything a request
//! needs (`worker`, and the leaves it calls: `http`, `route`, `upstream`, `relay`); one control
//! thread owns what changes (`control`, `config`); they meet in `seam` only.

pub mod limits;

pub mod clock;

pub mod http;

pub mod mcp;

pub mod coalesce;

pub mod policy;

pub mod route;

pub mod upstream;

pub mod relay;

pub mod error;

pub mod seam;

pub mod worker;

pub mod config;

pub mod control;

pub mod demo;

pub mod server;
