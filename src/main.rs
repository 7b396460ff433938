//! The command line of digstore.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
