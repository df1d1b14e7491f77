//! `sandbox mcp`: the server for agents.

use crate::cli::admission::keep_to_environment;
use crate::cli::exit_code::EXIT_SIGNALED;
use crate::cli::values::parse_address;
use crate::image::store;
use crate::kvm_mode::Device;
use crate::log::say;
use crate::mcp::{self, HttpOptions, Options};
use anyhow::Result;
use clap::{Args, Subcommand};
use nix::sys::signal::Signal;
use std::io::{Write, stdout};
use std::net::SocketAddr;
use std::path::PathBuf;

const SIGTERM: u8 = Signal::SIGTERM as u8;

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct McpArgs {
    /// Serve over HTTP at this address, instead of standard input and output
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = parse_address)]
    http: Option<SocketAddr>,
    /// Who may call over HTTP: a file with a line NAME:SHA256 for each token
    #[arg(long, value_name = "FILE", requires = "http")]
    tokens: Option<PathBuf>,
    /// Another name by which clients call this host
    #[arg(long, value_name = "HOST[:PORT]", requires = "http")]
    allow_host: Vec<String>,
    /// Let web pages from there call; others may not
    #[arg(long, value_name = "ORIGIN", requires = "http")]
    allow_origin: Vec<String>,
    /// What callers may ask for at most: docs/policy.md
    #[arg(long, env = "SANDBOX_POLICY", value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Write down here who ran what: docs/audit.md
    #[arg(long, env = "SANDBOX_AUDIT", value_name = "FILE")]
    audit: Option<PathBuf>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a token: print it, and its line for the file of --tokens
    Token { name: String },
}

pub fn mcp_verb(args: McpArgs, kvm: Device) -> Result<u8> {
    if let Some(Verb::Token { name }) = args.verb {
        let (line, token) = mcp::new_token(&name)?;
        writeln!(stdout(), "token: {token}\nline:  {line}")?;
        return Ok(0);
    }
    store::require_guest()?;
    keep_to_environment("--policy", "SANDBOX_POLICY", args.policy.as_deref())?;
    keep_to_environment("--audit", "SANDBOX_AUDIT", args.audit.as_deref())?;
    if let Some(address) = args.http
        && address.ip().is_unspecified()
        && args.allow_host.is_empty()
    {
        say(
            "clients elsewhere are refused until --allow-host says by which name or address they call this host",
        );
    }
    let signal = mcp::serve(Options {
        kvm,
        http: args.http.map(|address| HttpOptions {
            address,
            hosts: args.allow_host,
            origins: args.allow_origin,
        }),
        tokens: args.tokens,
        policy: args.policy,
        audit: args.audit,
    })?;
    Ok(match signal {
        // Whoever runs a service asks it to stop in this way, and it did.
        None | Some(SIGTERM) => 0,
        Some(signal) => EXIT_SIGNALED + signal,
    })
}
