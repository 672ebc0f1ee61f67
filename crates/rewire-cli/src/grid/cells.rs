//! The cells of a grid: one sweep for each model, revision, task and seed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::ensure;
use rewire_model::ModelFiles;
use rewire_tasks::ioi::Corruption;
use rewire_toy::Toy;
use toml::Spanned;

use super::file::{GridFile, ModelEntry, TaskEntry, Toml};
use super::flags;
use super::prompts::Prompts;
use crate::sweep;

/// A cell of a grid.
pub(super) struct Cell {
    /// Name of the model.
    pub(super) model: String,
    /// Revision of the model, if the grid gives any.
    pub(super) revision: Option<String>,
    /// Name of the task.
    pub(super) task: String,
    /// Seed of the generated pairs; none for a file.
    pub(super) seed: Option<u64>,
    /// Directory of the results.
    pub(super) directory: PathBuf,
    /// Command line of the sweep, without the program.
    pub(super) command: Vec<String>,
    /// The same, parsed.
    pub(super) arguments: Box<sweep::Arguments>,
    pub(super) prompts: Prompts,
    /// Directory of the revision of a local model, which may be missing.
    pub(super) of_revision: Option<PathBuf>,
}

impl Cell {
    /// Returns the model, the revision, the task and the seed; a dash for what the cell lacks.
    pub(super) fn coordinates(&self) -> [String; 4] {
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let seed = self.seed.map(|seed| seed.to_string());
        [self.model.clone(), or_dash(self.revision.clone()), self.task.clone(), or_dash(seed)]
    }

    /// Returns the coordinates in words, for progress and errors.
    pub(super) fn in_words(&self) -> String {
        let model = self.revision.iter().fold(self.model.clone(), |model, revision| format!("{model} at {revision}"));
        let seed = self.seed.map_or_else(String::new, |seed| format!(", seed {seed}"));
        format!("{model}, {}{seed}", self.task)
    }
}

/// One model at one revision.
struct Place {
    name: String,
    revision: Option<String>,
    /// The value of `--model`.
    argument: String,
    of_revision: Option<PathBuf>,
}

/// Returns the cells of a grid in the order in which they run: by model, revision, task and seed.
/// `words` are flags that every cell gets.
///
/// # Errors
/// If the file contradicts itself, or if `rewire sweep` refuses the flags of a cell.
pub(super) fn cells(file: &Toml, grid: &GridFile, out: &Path, words: &[String]) -> anyhow::Result<Vec<Cell>> {
    check_names(file, grid)?;
    let mut cells = Vec::new();
    for model in grid.models.get_ref() {
        for place in places(file, model)? {
            for task in grid.tasks.get_ref() {
                let of_task = flags::words(file, &grid.sweep, &task.get_ref().sweep)?;
                for (seed, prompts) in prompts(file, grid, task)? {
                    let name = task_name(task.get_ref());
                    let parts = [Some(place.name.clone()), place.revision.clone(), Some(name.clone())];
                    let seeded = seed.map(|seed| format!("seed-{seed}"));
                    let parts = parts.into_iter().chain([seeded]).flatten();
                    let directory = parts.fold(out.to_owned(), |path, part| path.join(plain(&part)));
                    let mut command: Vec<String> = vec!["sweep".to_owned()];
                    command.push(format!("--pairs={}", prompts.file(&directory).display()));
                    command.push(format!("--model={}", place.argument));
                    command.extend(of_task.iter().cloned());
                    command.extend(seed.map(|seed| format!("--seed={seed}")));
                    command.push(format!("--out={}", directory.display()));
                    command.extend(words.iter().cloned());
                    let arguments = flags::parsed(&command)
                        .map_err(|problem| file.error(None, &format!("[sweep] of the task {name}: {problem}")))?;
                    cells.push(Cell {
                        model: place.name.clone(),
                        revision: place.revision.clone(),
                        task: name,
                        seed,
                        directory,
                        command,
                        arguments,
                        prompts,
                        of_revision: place.of_revision.clone(),
                    });
                }
            }
        }
    }
    Ok(cells)
}

/// Refuses empty lists, and models or tasks of the same name.
fn check_names(file: &Toml, grid: &GridFile) -> anyhow::Result<()> {
    let GridFile { models, tasks, seeds, .. } = grid;
    let lists = [("models", models.span(), models.get_ref().len()), ("tasks", tasks.span(), tasks.get_ref().len())];
    let seeds = ("seeds", seeds.span(), seeds.get_ref().len());
    for (what, span, len) in lists.into_iter().chain([seeds]) {
        ensure!(len > 0, file.error(Some(span), &format!("`{what}` is empty; give at least one")));
    }
    let models = models.get_ref().iter().map(|model| ("models", model.span(), model_name(model.get_ref())));
    let tasks = tasks.get_ref().iter().map(|task| ("tasks", task.span(), task_name(task.get_ref())));
    let mut seen = BTreeSet::new();
    for (what, span, name) in models.chain(tasks) {
        let problem = format!("two {what} have the name `{name}`; give one of them another `name`");
        ensure!(seen.insert((what, plain(&name))), file.error(Some(span), &problem));
    }
    let mut seen = BTreeSet::new();
    for seed in grid.seeds.get_ref() {
        let problem = format!("`seeds` has {seed} twice; remove one");
        ensure!(seen.insert(seed), file.error(Some(grid.seeds.span()), &problem));
    }
    Ok(())
}

/// Returns a model at each of its revisions.
fn places(file: &Toml, entry: &Spanned<ModelEntry>) -> anyhow::Result<Vec<Place>> {
    let ModelEntry { model, revisions, .. } = entry.get_ref();
    let (name, given) = (model_name(entry.get_ref()), model.get_ref());
    let path = file.folder().join(given);
    let is_toy = given.parse::<Toy>().is_ok();
    let is_local =
        !is_toy && (path.is_dir() || ModelFiles::on_disk(&path.to_string_lossy()).is_ok_and(|f| f.is_some()));
    let argument = if is_local { path.to_string_lossy().into_owned() } else { given.clone() };
    let Some(revisions) = revisions else {
        return Ok(vec![Place { name, revision: None, argument, of_revision: None }]);
    };
    let refuse = |problem: &str| file.error(Some(revisions.span()), problem);
    ensure!(!revisions.get_ref().is_empty(), refuse("`revisions` is empty; remove it, or give at least one"));
    ensure!(!is_toy, refuse(&format!("`revisions`: {given} is one model of this program, without revisions")));
    ensure!(!is_local || path.is_dir(), refuse(&format!("`revisions`: {given} is one file, without revisions")));
    ensure!(is_local || !given.contains('@'), refuse("`revisions`: remove the revision after @ in `model`"));
    let mut seen = BTreeSet::new();
    let place = |revision: &String| {
        ensure!(seen.insert(plain(revision)), refuse(&format!("`revisions` has {revision} twice; remove one")));
        let of_revision = is_local.then(|| path.join(revision));
        let argument = match &of_revision {
            Some(directory) => directory.to_string_lossy().into_owned(),
            None => format!("{given}@{revision}"),
        };
        Ok(Place { name: name.clone(), revision: Some(revision.clone()), argument, of_revision })
    };
    revisions.get_ref().iter().map(place).collect()
}

/// Returns the prompts of a task: one file, or generated pairs for each seed.
fn prompts(file: &Toml, grid: &GridFile, task: &Spanned<TaskEntry>) -> anyhow::Result<Vec<(Option<u64>, Prompts)>> {
    let TaskEntry { pairs, ioi, corruption, .. } = task.get_ref();
    match (pairs, ioi) {
        (Some(pairs), None) => {
            let span = corruption.as_ref().map(Spanned::span);
            ensure!(span.is_none(), file.error(span, "`corruption` is of generated pairs; remove it, or give `ioi`"));
            Ok(vec![(None, Prompts::File(file.folder().join(pairs)))])
        }
        (None, Some(number)) => {
            let most = 1..=100_000;
            let problem = "`ioi` is a number of pairs from 1 to 100000";
            ensure!(most.contains(number.get_ref()), file.error(Some(number.span()), problem));
            let corruption = match corruption {
                None => Corruption::S2ToIo,
                Some(name) => name.get_ref().parse().map_err(|e: String| file.error(Some(name.span()), &e))?,
            };
            let number = *number.get_ref();
            let drawn = |seed: &u64| (Some(*seed), Prompts::Ioi { number, corruption, seed: *seed });
            Ok(grid.seeds.get_ref().iter().map(drawn).collect())
        }
        _ => Err(file.error(Some(task.span()), "a task needs either `pairs`, a file, or `ioi`, a number of pairs")),
    }
}

/// Returns the name of a model: the given one, or the end of its path.
fn model_name(ModelEntry { model, name, .. }: &ModelEntry) -> String {
    name.clone().unwrap_or_else(|| {
        let given = model.get_ref().trim_end_matches('/');
        given.rsplit('/').next().unwrap_or(given).to_owned()
    })
}

/// Returns the name of a task: the given one, the stem of its file, or `ioi`.
fn task_name(TaskEntry { name, pairs, .. }: &TaskEntry) -> String {
    let stem = || pairs.as_ref().and_then(|path| Some(Path::new(path).file_stem()?.to_string_lossy().into_owned()));
    name.clone().or_else(stem).unwrap_or_else(|| "ioi".to_owned())
}

/// Returns a name as the name of a directory.
fn plain(name: &str) -> String {
    let kept = |c: char| if c.is_alphanumeric() || "-_.@+".contains(c) { c } else { '-' };
    let plain: String = name.chars().map(kept).collect();
    // `.` and `..` are other directories.
    if plain.trim_matches('.').is_empty() { format!("_{plain}") } else { plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells_of(text: &str) -> Result<Vec<Cell>, String> {
        let file = Toml { path: "grid.toml".into(), text: text.to_owned() };
        let grid = file.parse().map_err(|error| error.to_string())?;
        cells(&file, &grid, Path::new("o"), &[]).map_err(|error| error.to_string())
    }

    #[test]
    fn a_grid_has_a_cell_for_each_model_revision_task_and_seed() {
        let text = "seeds = [0, 3]\n[[models]]\nmodel = \"owner/a\"\nrevisions = [\"step1\", \"step2\"]\n\
                    [[models]]\nmodel = \"toy-gpt2\"\n[[tasks]]\nioi = 4\n[[tasks]]\npairs = \"b/facts.jsonl\"";
        let cells = cells_of(text).unwrap();
        let found: Vec<String> =
            cells.iter().map(|cell| format!("{} {}", cell.in_words(), cell.directory.display())).collect();
        let expected = [
            "a at step1, ioi, seed 0 o/a/step1/ioi/seed-0",
            "a at step1, ioi, seed 3 o/a/step1/ioi/seed-3",
            "a at step1, facts o/a/step1/facts",
            "a at step2, ioi, seed 0 o/a/step2/ioi/seed-0",
            "a at step2, ioi, seed 3 o/a/step2/ioi/seed-3",
            "a at step2, facts o/a/step2/facts",
            "toy-gpt2, ioi, seed 0 o/toy-gpt2/ioi/seed-0",
            "toy-gpt2, ioi, seed 3 o/toy-gpt2/ioi/seed-3",
            "toy-gpt2, facts o/toy-gpt2/facts",
        ];
        assert_eq!(found, expected);
        let command = "sweep --pairs=o/a/step1/ioi/seed-3/pairs.jsonl --model=owner/a@step1 --metric=logit-diff --seed=3 \
                       --out=o/a/step1/ioi/seed-3";
        assert_eq!(cells[1].command.join(" "), command);
        assert_eq!(cells[8].command[1], "--pairs=b/facts.jsonl");
    }

    #[test]
    fn contradictions_are_refused_with_their_line() {
        let (model, task) = ("[[models]]\nmodel = \"gpt2\"\n", "[[tasks]]\nioi = 4\n");
        let cases = [
            (format!("{model}{model}{task}"), "line 3: two models have the name `gpt2`"),
            (format!("{model}{task}{task}"), "line 5: two tasks have the name `ioi`"),
            (format!("{model}[[tasks]]\nname = \"a\"\n"), "line 3: a task needs either `pairs`"),
            (format!("{model}[[tasks]]\nioi = 0\n"), "line 4: `ioi` is a number of pairs"),
            (format!("{model}{task}corruption = \"abcd\"\n"), "line 5: `abcd` is not a corruption"),
            (format!("{model}revisions = []\n{task}"), "line 3: `revisions` is empty"),
            (format!("[[models]]\nmodel = \"toy-gpt2\"\nrevisions = [\"a\"]\n{task}"), "line 3: `revisions`: toy-gpt2"),
            (format!("seeds = [1, 1]\n{model}{task}"), "line 1: `seeds` has 1 twice"),
            (format!("{model}{task}[sweep]\nmetric = \"logit\"\n"), "[sweep] of the task ioi: invalid value 'logit'"),
            (format!("{model}{task}[sweep]\nverify = 3\n"), "--verify needs --method attribution-patching"),
            (format!("tasks = []\n{model}"), "line 1: `tasks` is empty"),
        ];
        for (text, expected) in cases {
            let refused = cells_of(&text).err().unwrap_or_else(|| panic!("{text} is accepted"));
            assert!(refused.starts_with("grid.toml") && refused.contains(expected), "{refused}, not {expected}");
        }
    }

    #[test]
    fn names_are_made_names_of_directories() {
        assert_eq!(["a b/c", "..", "step-1"].map(plain), ["a-b-c", "_..", "step-1"]);
    }
}
