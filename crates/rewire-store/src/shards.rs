//! All shards of a run, to be merged.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::StoreError;
use crate::line::Key;
use crate::shard::{line_at, numbers, remove};
use crate::shard_file::{Contents, SHARDS, ShardHeader, files, scan};

/// The shards of one run in an output directory.
#[derive(Debug)]
pub struct Shards {
    folder: PathBuf,
    /// The description of the first shard. All shards have the same run and command.
    header: ShardHeader,
    run: String,
    /// The finished files, each opened.
    finished: Vec<(PathBuf, Mutex<File>)>,
    /// Index of the finished file, offset and length of each pass.
    kept: HashMap<Key, (usize, (u64, usize))>,
    plans: Vec<String>,
    missing: Vec<MissingShard>,
    /// Files of processes that did not finish.
    partial: Vec<PathBuf>,
}

/// A shard that is not finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingShard {
    /// The shard, counted from 1.
    pub number: usize,
    /// The number of its passes that are finished.
    pub kept: usize,
}

impl Shards {
    /// Reads the shards in the output directory `out`.
    ///
    /// # Errors
    /// [`StoreError::NoShards`] if there are none, [`StoreError::MixedShards`] if they belong to
    /// different runs, and [`StoreError::Read`] if a file cannot be read.
    pub fn read(out: &Path) -> Result<Self, StoreError> {
        let mut found: Vec<(PathBuf, Contents)> = Vec::new();
        for path in files(out)? {
            if let Some(contents) = scan(&path)? {
                found.push((path, contents));
            }
        }
        let Some((first, Contents { header, run, .. })) = found.first() else {
            return Err(StoreError::NoShards { directory: out.into() });
        };
        if let Some((other, contents)) = found.iter().find(|(_, contents)| contents.run != *run) {
            let differs = header.differences(&contents.header);
            return Err(StoreError::MixedShards { first: first.clone(), other: other.clone(), differs });
        }
        let mut shards = Self {
            folder: out.join(SHARDS),
            header: header.clone(),
            run: run.clone(),
            finished: Vec::new(),
            kept: HashMap::new(),
            plans: Vec::new(),
            missing: Vec::new(),
            partial: Vec::new(),
        };
        shards.sort(out, found)?;
        Ok(shards)
    }

    /// Sorts files into finished and unfinished ones.
    fn sort(&mut self, out: &Path, found: Vec<(PathBuf, Contents)>) -> Result<(), StoreError> {
        let mut kept_by_number = vec![0; self.header.of];
        let mut is_finished = vec![false; self.header.of];
        for (path, Contents { header, kept, plans, .. }) in found {
            let Some(index) = header.number.checked_sub(1).filter(|index| *index < self.header.of) else { continue };
            match plans.filter(|_| path == header.path(out)) {
                Some(plans) => {
                    let file = File::open(&path).map_err(|source| StoreError::Read { path: path.clone(), source })?;
                    let number = self.finished.len();
                    self.kept.extend(kept.into_iter().map(|(key, place)| (key, (number, place))));
                    self.finished.push((path, Mutex::new(file)));
                    is_finished[index] = true;
                    self.plans = plans;
                }
                None => {
                    kept_by_number[index] = kept_by_number[index].max(kept.len());
                    self.partial.push(path);
                }
            }
        }
        let missing = (0..self.header.of).filter(|index| !is_finished[*index]);
        self.missing = missing.map(|index| MissingShard { number: index + 1, kept: kept_by_number[index] }).collect();
        Ok(())
    }

    /// Returns the description of one of the shards.
    #[must_use]
    pub fn header(&self) -> &ShardHeader {
        &self.header
    }

    /// Returns the shards that are not finished.
    #[must_use]
    pub fn missing(&self) -> &[MissingShard] {
        &self.missing
    }

    /// Returns the hashes of the lists of passes that the shards planned.
    #[must_use]
    pub fn plans(&self) -> &[String] {
        &self.plans
    }

    /// Returns an error if the shards belong to a run with another identity.
    ///
    /// # Errors
    /// [`StoreError::ChangedSinceShards`], which names the settings that differ.
    pub fn check(&self, identity: &serde_json::Value) -> Result<(), StoreError> {
        let ours = ShardHeader { identity: identity.clone(), ..self.header.clone() };
        if ours.run() == self.run {
            return Ok(());
        }
        let differs = ours.differences(&self.header);
        Err(StoreError::ChangedSinceShards { directory: self.folder.clone(), differs })
    }

    /// Returns the numbers of a pass of a finished shard, or `None`.
    ///
    /// # Errors
    /// [`StoreError::Read`] if the file cannot be read.
    pub fn load(&self, key: Key) -> Result<Option<Vec<f32>>, StoreError> {
        let Some((number, place)) = self.kept.get(&key) else { return Ok(None) };
        let (path, file) = &self.finished[*number];
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        let line = line_at(&mut file, *place).map_err(|source| StoreError::Read { path: path.clone(), source })?;
        Ok(numbers(&line, &self.run, key))
    }

    /// Removes the files of the shards. Call this once the merged results are written.
    ///
    /// # Errors
    /// [`StoreError::Write`] if a file cannot be removed.
    pub fn remove(self) -> Result<(), StoreError> {
        self.finished.iter().map(|(path, _)| path).chain(&self.partial).try_for_each(|path| remove(path))?;
        // This fails for a folder that is not empty, which then stays.
        let _ = std::fs::remove_dir(&self.folder);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::shard::{OpenedShard, OtherShards, Shard};

    const OF: usize = 3;

    fn header(number: usize, metric: &str) -> ShardHeader {
        let identity = json!({ "metric": metric, "version": "0.1.0", "tolerance": 0.1 + 0.2 });
        let command = ["sweep", "--metric", metric].map(str::to_owned).to_vec();
        ShardHeader { number, of: OF, identity, command, directory: "/somewhere".to_owned() }
    }

    fn at(number: usize, pass: usize) -> Key {
        Key { portion: number, number: pass, plan: u64::MAX - 7 }
    }

    fn values(number: usize, pass: usize) -> Vec<f32> {
        vec![number as f32 + 0.1, f32::NAN, -0.0, pass as f32]
    }

    fn open(out: &Path, number: usize) -> Shard {
        match Shard::open(out, &header(number, "kl"), OtherShards::Refuse).unwrap() {
            OpenedShard::Unfinished(shard) => shard,
            OpenedShard::Finished => panic!("shard {number} is finished"),
        }
    }

    /// Computes the passes of a shard that it lacks, at most `most`.
    fn work(shard: &Shard, number: usize, most: usize) {
        let left = (0..4).filter(|pass| !shard.has(at(number, *pass)));
        left.take(most).for_each(|pass| shard.store(at(number, pass), &values(number, pass)).unwrap());
    }

    fn finished(out: &Path, number: usize) {
        let shard = open(out, number);
        work(&shard, number, 4);
        shard.finish(&["plan".to_owned()]).unwrap();
    }

    fn all(out: &Path) {
        (1..=OF).for_each(|number| finished(out, number));
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    fn assert_whole(shards: &Shards) {
        assert_eq!(shards.missing(), []);
        for (number, pass) in (1..=OF).flat_map(|number| (0..4).map(move |pass| (number, pass))) {
            let found = shards.load(at(number, pass)).unwrap().unwrap();
            assert_eq!(bits(&found), bits(&values(number, pass)), "shard {number}, pass {pass}");
        }
        assert_eq!(shards.load(at(1, 4)).unwrap(), None);
    }

    fn names(folder: &Path) -> Vec<String> {
        let name =
            |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().to_string_lossy().into_owned();
        let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn finished_shards_have_every_pass_and_are_removed_together() {
        let out = tempfile::tempdir().unwrap();
        all(out.path());
        let shards = Shards::read(out.path()).unwrap();
        assert_whole(&shards);
        assert_eq!(shards.plans(), ["plan"]);
        assert_eq!(shards.header().command, ["sweep", "--metric", "kl"]);
        shards.check(&header(1, "kl").identity).unwrap();
        let changed = shards.check(&header(1, "accuracy").identity).unwrap_err().to_string();
        assert!(changed.contains("this differs: metric"), "{changed}");
        let open = Shard::open(out.path(), &header(2, "kl"), OtherShards::Refuse).unwrap();
        assert!(matches!(open, OpenedShard::Finished));
        shards.remove().unwrap();
        assert!(names(out.path()).is_empty());
        assert!(matches!(Shards::read(out.path()), Err(StoreError::NoShards { .. })));
    }

    #[test]
    fn a_shard_that_died_is_named_and_resumes() {
        let out = tempfile::tempdir().unwrap();
        for number in [1, 3] {
            finished(out.path(), number);
        }
        // Two processes died after one and after two further passes.
        work(&open(out.path(), 2), 2, 1);
        work(&open(out.path(), 2), 2, 2);
        let shards = Shards::read(out.path()).unwrap();
        assert_eq!(shards.missing(), [MissingShard { number: 2, kept: 3 }]);
        let again = open(out.path(), 2);
        assert_eq!(again.finished_before(), 3);
        assert_eq!(bits(&again.load(at(2, 1)).unwrap().unwrap()), bits(&values(2, 1)));
        work(&again, 2, 4);
        again.finish(&["plan".to_owned()]).unwrap();
        assert_whole(&Shards::read(out.path()).unwrap());
        assert_eq!(names(&out.path().join(SHARDS)).len(), OF, "files of dead processes remain");
    }

    #[test]
    fn two_processes_may_compute_one_shard() {
        let out = tempfile::tempdir().unwrap();
        [1, 3].into_iter().for_each(|number| finished(out.path(), number));
        let [first, second] = [0, 1].map(|_| open(out.path(), 2));
        [&first, &second].into_iter().for_each(|shard| work(shard, 2, 4));
        first.finish(&["plan".to_owned()]).unwrap();
        assert_whole(&Shards::read(out.path()).unwrap());
        // The first one removed the file of the second one, which it no longer needs.
        second.finish(&["plan".to_owned()]).unwrap();
        assert_whole(&Shards::read(out.path()).unwrap());
    }

    #[test]
    fn a_changed_byte_gives_no_wrong_number() {
        let out = tempfile::tempdir().unwrap();
        all(out.path());
        let path = header(2, "kl").path(out.path());
        let whole = std::fs::read(&path).unwrap();
        for at_byte in (0..whole.len()).step_by(7) {
            let mut changed = whole.clone();
            changed[at_byte] ^= 4;
            std::fs::write(&path, &changed).unwrap();
            match Shards::read(out.path()) {
                Ok(shards) if shards.missing().is_empty() => assert_whole(&shards),
                Ok(shards) => assert_eq!(shards.missing()[0].number, 2),
                Err(error) => assert!(matches!(error, StoreError::MixedShards { .. }), "byte {at_byte}: {error}"),
            }
        }
        // A file that was cut off lacks its last line.
        std::fs::write(&path, &whole[..whole.len() - 30]).unwrap();
        assert_eq!(Shards::read(out.path()).unwrap().missing(), [MissingShard { number: 2, kept: 4 }]);
        finished(out.path(), 2);
        assert_whole(&Shards::read(out.path()).unwrap());
    }

    #[test]
    fn shards_of_another_run_are_refused_or_removed() {
        let out = tempfile::tempdir().unwrap();
        all(out.path());
        let other = |metric: &str, of: usize| ShardHeader { of, ..header(1, metric) };
        for (other, differs) in [(other("accuracy", OF), "metric"), (other("kl", 4), "number of shards")] {
            let refused = Shard::open(out.path(), &other, OtherShards::Refuse).unwrap_err().to_string();
            assert!(refused.contains(&format!("this run differs in: {differs}")), "{refused}");
            assert!(refused.contains("--force") && refused.contains("`rewire sweep --metric kl`"), "{refused}");
        }
        let OpenedShard::Unfinished(shard) =
            Shard::open(out.path(), &other("accuracy", OF), OtherShards::Remove).unwrap()
        else {
            panic!("it is finished")
        };
        assert_eq!(shard.finished_before(), 0);
        shard.finish(&[]).unwrap();
        assert_eq!(names(&out.path().join(SHARDS)).len(), 1);
        std::fs::write(out.path().join(SHARDS).join("1-of-2.jsonl"), "mine").unwrap();
        let refused = Shard::open(out.path(), &other("accuracy", OF), OtherShards::Refuse).unwrap_err();
        assert!(matches!(refused, StoreError::NotOurs { .. }), "{refused}");
    }

    #[test]
    fn shards_of_two_runs_are_not_merged() {
        let out = tempfile::tempdir().unwrap();
        finished(out.path(), 1);
        let other = tempfile::tempdir().unwrap();
        let OpenedShard::Unfinished(shard) =
            Shard::open(other.path(), &header(2, "accuracy"), OtherShards::Refuse).unwrap()
        else {
            panic!("it is finished")
        };
        shard.finish(&[]).unwrap();
        let path = header(2, "accuracy").path(other.path());
        std::fs::copy(&path, header(2, "accuracy").path(out.path())).unwrap();
        let refused = Shards::read(out.path()).unwrap_err().to_string();
        assert!(refused.contains("differ in: metric"), "{refused}");
    }

    #[test]
    fn an_identity_survives_its_file() {
        let out = tempfile::tempdir().unwrap();
        all(out.path());
        let shards = Shards::read(out.path()).unwrap();
        let number: &Value = &shards.header().identity["tolerance"];
        assert_eq!(number.as_f64(), Some(0.1 + 0.2));
    }
}
