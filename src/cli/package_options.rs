//! The options that name packages.

use crate::cli::values::parse_switch;
use clap::Args;
use std::path::PathBuf;

/// The heading of the options that name packages.
pub const PACKAGES: &str = "Its packages";

/// The options that name packages, beyond what a script's header names.
#[derive(Args, Clone)]
pub struct PackageArgs {
    /// Bring a package from the index: numpy, 'numpy>=2'; or a wheel: ./demo-1.0-py3-none-any.whl; or
    /// a set of packages: @core, @data
    #[arg(long, value_name = "PACKAGE", help_heading = PACKAGES)]
    pub with: Vec<String>,
    /// Bring what this file names, with one package on each line
    #[arg(long, value_name = "FILE", help_heading = PACKAGES)]
    pub requirements: Vec<PathBuf>,
    /// Take packages from what was downloaded before, and nothing from a network
    #[arg(long, env = "SANDBOX_OFFLINE", value_parser = parse_switch, help_heading = PACKAGES)]
    pub offline: bool,
}
