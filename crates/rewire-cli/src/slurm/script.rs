//! The text of the Slurm scripts.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// Name of the script of the job array.
pub(crate) const SHARDS: &str = "shards.sbatch";
/// Name of the script of the merge.
pub(super) const MERGE: &str = "merge.sbatch";

/// Seconds before the time limit at which a task gets a signal. A pass takes less.
const NOTICE: u32 = 120;

/// The settings of the scripts of a command in shards.
pub(super) struct Scripts {
    /// The program `rewire`.
    pub(super) program: PathBuf,
    /// The working directory.
    pub(super) directory: PathBuf,
    /// The output directory, as on the command line.
    pub(super) out: PathBuf,
    /// The folder of the scripts and logs.
    pub(super) folder: PathBuf,
    /// The command line, without the program.
    pub(super) command: Vec<String>,
    pub(super) shards: usize,
    pub(super) cpus: usize,
    pub(super) gpu: bool,
    /// Bytes of memory of each task.
    pub(super) memory: u64,
    /// Time limit of each task.
    pub(super) minutes: usize,
    /// Further options of sbatch.
    pub(super) options: Vec<String>,
}

impl Scripts {
    /// Returns the script of the job array. Each task computes the shard of its number, so a part
    /// of the array can be submitted again.
    pub(super) fn shards(&self) -> anyhow::Result<String> {
        let array = format!(
            "#SBATCH --array=1-{}\n#SBATCH --requeue\n#SBATCH --open-mode=append\n#SBATCH --signal=B:USR1@{NOTICE}\n",
            self.shards
        );
        let log = self.folder.join("shard-%a.log");
        let command = quoted(self.command.iter().map(String::as_str))?;
        let program = path(&self.program)?;
        let run = format!(
            "# With job control, a process in the background does not ignore signals.\n\
             set -m\n\
             {program} {command} --shard \"$SLURM_ARRAY_TASK_ID/{}\" &\n\
             # USR1 announces the time limit. TERM cancels the task.\n\
             again=no\n\
             trap 'again=yes; kill -TERM \"$!\"' USR1\n\
             trap 'kill -TERM \"$!\"' TERM\n\
             wait \"$!\"\n\
             code=$?\n\
             # A trap ends the first wait. rewire then finishes its pass.\n\
             if [ \"$code\" -gt 128 ]; then wait \"$!\"; code=$?; fi\n\
             # A shard that reached its time limit is queued again, and resumes.\n\
             if [ \"$code$again\" = 130yes ]; then scontrol requeue \"${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID\"; fi\n\
             exit \"$code\"",
            self.shards
        );
        self.script("shards", &array, &log, &run)
    }

    /// Returns the script that merges the shards.
    pub(super) fn merge(&self) -> anyhow::Result<String> {
        let out = self.out.to_string_lossy();
        let run = format!("exec {} {}", path(&self.program)?, quoted(["merge", &out].into_iter())?);
        self.script("merge", "#SBATCH --kill-on-invalid-dep=yes\n", &self.folder.join("merge.log"), &run)
    }

    /// Returns the script that submits the job array and the merge, which starts once all shards
    /// are finished.
    pub(super) fn submit(&self) -> anyhow::Result<String> {
        let [shards, merge] = [SHARDS, MERGE].map(|name| self.folder.join(name));
        let [shards, merge] = [path(&shards)?, path(&merge)?];
        Ok(format!(
            "#!/bin/sh\n\
             # Submits the shards, and the job that merges them.\n\
             set -eu\n\
             shards=$(sbatch --parsable {shards})\n\
             merge=$(sbatch --parsable --dependency=\"afterok:${{shards%%;*}}\" {merge})\n\
             echo \"submitted: shards ${{shards%%;*}}, merge ${{merge%%;*}}\"\n"
        ))
    }

    /// Returns what was written and what to run next.
    pub(super) fn summary(&self, submit: &Path) -> String {
        let Self { shards, cpus, minutes, .. } = self;
        let gpu = if self.gpu { ", 1 GPU" } else { "" };
        format!(
            "{shards} tasks of {cpus} cores{gpu}, {} MiB, at most {}; submit them with: sh {}\n",
            self.mebibytes(),
            hours(*minutes as f64 * 60.0),
            submit.display()
        )
    }

    fn mebibytes(&self) -> u64 {
        self.memory.div_ceil(1 << 20)
    }

    fn script(&self, what: &str, more: &str, log: &Path, run: &str) -> anyhow::Result<String> {
        let name = self.out.file_name().map_or_else(|| "sweep".to_owned(), |name| name.to_string_lossy().into_owned());
        let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let gpu = if self.gpu { "#SBATCH --gpus-per-task=1\n#SBATCH --ntasks=1\n" } else { "" };
        let options: String = self.options.iter().map(|option| format!("#SBATCH {option}\n")).collect();
        let (cpus, minutes) = (self.cpus, self.minutes);
        Ok(format!(
            "#!/bin/bash\n\
             #SBATCH --job-name=rewire-{name}-{what}\n\
             #SBATCH --output={}\n\
             {more}\
             #SBATCH --cpus-per-task={cpus}\n\
             #SBATCH --mem={}M\n\
             #SBATCH --time={minutes}\n\
             {gpu}{options}\
             export RAYON_NUM_THREADS={cpus}\n\
             cd {} || exit 2\n\
             {run}\n",
            option(log)?,
            self.mebibytes(),
            path(&self.directory)?,
        ))
    }
}

/// Returns seconds as hours and minutes, or minutes, or seconds.
pub(super) fn hours(seconds: f64) -> String {
    match seconds {
        s if s < 60.0 => format!("{s:.0} s"),
        s if s < 600.0 && s % 60.0 != 0.0 => format!("{:.1} min", s / 60.0),
        s if s < 3600.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// Returns words for a shell.
fn quoted<'a>(words: impl Iterator<Item = &'a str>) -> anyhow::Result<String> {
    shlex::try_join(words).context("a word of the command has a zero byte")
}

/// Returns a path for a shell.
fn path(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str().with_context(|| format!("{} is not UTF-8; Slurm needs a path that is", path.display()))?;
    quoted([text].into_iter())
}

/// Returns a path for a line `#SBATCH`, where sbatch itself reads quotation marks.
fn option(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str().with_context(|| format!("{} is not UTF-8; Slurm needs a path that is", path.display()))?;
    anyhow::ensure!(!text.contains(['"', '\n']), "the path {text:?} cannot stand in a script of Slurm");
    Ok(format!("\"{text}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scripts() -> Scripts {
        Scripts {
            program: "/opt/rewire".into(),
            directory: "/home/a b".into(),
            out: "out/heads".into(),
            folder: "/home/a b/out/heads/slurm".into(),
            command: ["sweep", "--pairs", "it's.jsonl", "--out", "out/heads"].map(str::to_owned).to_vec(),
            shards: 16,
            cpus: 4,
            gpu: true,
            memory: (4 << 30) + 1,
            minutes: 90,
            options: vec!["--partition=gpu".to_owned()],
        }
    }

    #[test]
    fn each_task_computes_the_shard_of_its_number() {
        let script = scripts().shards().unwrap();
        for line in [
            "#SBATCH --array=1-16",
            "#SBATCH --cpus-per-task=4",
            "#SBATCH --mem=4097M",
            "#SBATCH --time=90",
            "#SBATCH --gpus-per-task=1",
            "#SBATCH --partition=gpu",
            "#SBATCH --job-name=rewire-heads-shards",
            "#SBATCH --output=\"/home/a b/out/heads/slurm/shard-%a.log\"",
            "cd '/home/a b' || exit 2",
            "/opt/rewire sweep --pairs \"it's.jsonl\" --out out/heads --shard \"$SLURM_ARRAY_TASK_ID/16\" &",
        ] {
            assert!(script.lines().any(|found| found == line), "{line} is not in {script}");
        }
    }

    #[test]
    fn the_merge_waits_for_all_shards() {
        let submit = scripts().submit().unwrap();
        assert!(
            submit.contains("--dependency=\"afterok:${shards%%;*}\" '/home/a b/out/heads/slurm/merge.sbatch'"),
            "{submit}"
        );
        assert!(scripts().merge().unwrap().ends_with("exec /opt/rewire merge out/heads\n"));
    }
}
