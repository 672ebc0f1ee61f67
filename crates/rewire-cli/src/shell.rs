//! Generates shell completions and the manual page from the definitions of the commands.

use clap::{Args, Command};
use clap_complete::Shell;

use crate::output::print;

/// The arguments of `completions`.
#[derive(Args)]
pub struct CompletionArguments {
    /// Shell to complete for.
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the completion script of `program` for a shell.
pub(crate) fn completions(mut program: Command, arguments: &CompletionArguments) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut program, "rewire", &mut script);
    print(&String::from_utf8(script)?)
}

/// Prints the manual page of `program`: the program, then each command.
pub(crate) fn manual(mut program: Command) -> anyhow::Result<()> {
    let mut page = Vec::new();
    program.build();
    clap_mangen::Man::new(program.clone()).render(&mut page)?;
    for command in program.get_subcommands().filter(|command| command.get_name() != "help") {
        let name = command.get_name().to_uppercase();
        page.extend(format!(".SH \"{name}\"\n").into_bytes());
        let command = clap_mangen::Man::new(command.clone());
        command.render_description_section(&mut page)?;
        command.render_options_section(&mut page)?;
    }
    print(&String::from_utf8(page)?)
}
