//! `sandbox mcp`.

use crate::mcp::{self, Options};
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
pub struct McpArgs {}

pub fn mcp_verb(_args: McpArgs, kvm: PathBuf) -> Result<u8> {
    mcp::serve(Options { kvm })
}
