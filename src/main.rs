//! The entry point, and the only place that exits.

fn main() -> std::process::ExitCode {
    sandbox::main().into()
}
