//! The `wg` binary: parse, run, exit code.

fn main() -> std::process::ExitCode {
    wg_cli::cli::main().into()
}
