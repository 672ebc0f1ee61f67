//! Errors of output directories.

use std::io;
use std::path::PathBuf;

/// The reason why an output directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The directory cannot be made, read or written to.
    #[error("cannot write to the output directory {path}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The path, or a directory on the way to it, is a file.
    #[error("the output directory {path} cannot be made: {file} is not a directory; choose another --out")]
    NotADirectory {
        /// The directory.
        path: PathBuf,
        /// The file.
        file: PathBuf,
    },
    /// The directory is a symlink to a place that does not exist.
    #[error(
        "the output directory {path} is a symlink to {target}, which does not exist; create it or remove the symlink"
    )]
    DanglingSymlink {
        /// The symlink.
        path: PathBuf,
        /// The target of the symlink.
        target: PathBuf,
    },
    /// Another run holds the directory.
    #[error("another run is writing to {path} ({holder}); wait for it with --wait, or choose another --out")]
    Held {
        /// The directory.
        path: PathBuf,
        /// The other run's command, process and host.
        holder: String,
    },
    /// Another run took the directory over while this one was running.
    #[error(
        "another run took over {path}, because this run was stopped for too long or its lock was removed; the results of \
         this run are not written; run the command again"
    )]
    Lost {
        /// The directory.
        path: PathBuf,
    },
    /// A path that this run would write to is not a regular file.
    #[error("{path} is {found}, and this run would replace it by a file; move it away or choose another --out")]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// `a directory`, `a symlink`, or `not a regular file`.
        found: &'static str,
    },
    /// A file with the name of a record or a lock has other contents.
    #[error("{path} was not written by rewire ({reason}); move it away or choose another --out")]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// The reason why rewire cannot have written the file.
        reason: String,
    },
    /// The directory holds an unfinished run of another command.
    #[error(
        "{directory} holds an unfinished run of another command (it differs in: {differs}); run that command again to \
         finish it, choose another --out, or give --force to discard it ({record})"
    )]
    OtherRun {
        /// The directory.
        directory: PathBuf,
        /// The settings that differ.
        differs: String,
        /// The record of the other run.
        record: PathBuf,
    },
    /// The directory holds shards of another command, model or version.
    #[error(
        "{path} is a shard of another run (`rewire {command}`; this run differs in: {differs}); choose another --out, or \
         give --force to remove it"
    )]
    OtherShards {
        /// The file of the other shard.
        path: PathBuf,
        /// The command line of the other run.
        command: String,
        /// The settings that differ.
        differs: String,
    },
    /// The directory holds no shards.
    #[error("{directory} holds no shards; make them with `rewire sweep .. --shard K/N --out {directory}`")]
    NoShards {
        /// The output directory.
        directory: PathBuf,
    },
    /// The directory holds shards of more than one run.
    #[error("{first} and {other} are shards of different runs (they differ in: {differs}); remove the shards of one")]
    MixedShards {
        /// A shard of one run.
        first: PathBuf,
        /// A shard of the other run.
        other: PathBuf,
        /// The settings that differ.
        differs: String,
    },
    /// The command of the shards would compute something else now.
    #[error(
        "the shards in {directory} cannot be merged: the model, the files or the program changed since they were \
         computed (this differs: {differs}); restore these, or compute the shards again"
    )]
    ChangedSinceShards {
        /// The folder of the shards.
        directory: PathBuf,
        /// The settings that differ.
        differs: String,
    },
    /// A file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}
