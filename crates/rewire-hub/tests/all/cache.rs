//! The cache is shared with `huggingface_hub`, is checked at each use, and nothing is written
//! outside it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::server::{
    Behavior, COMMIT, CONFIG, OTHER_COMMIT, REPOSITORY, Sandbox, get, git_tag, lfs_tag, serve, weights,
};
use rewire_hub::{Access, HubClient, HubError, HubErrorKind};

/// No server listens there.
const NOWHERE: &str = "http://127.0.0.1:9";

fn offline(sandbox: &Sandbox, file: &str) -> Result<PathBuf, HubError> {
    let mut config = sandbox.config(NOWHERE);
    config.access = Access::Offline;
    get(config, "main", file)
}

/// Returns the path that an error reports as damaged.
fn damaged(result: Result<PathBuf, HubError>) -> PathBuf {
    match *result.unwrap_err().kind {
        HubErrorKind::Damaged { path, .. } => path,
        other => panic!("{other}"),
    }
}

#[test]
fn the_cache_layout_matches_huggingface_hub() {
    let (sandbox, server) = (Sandbox::default(), serve(Behavior::LargeFilesElsewhere));
    for (file, content, tag, link) in [
        ("config.json", CONFIG.to_vec(), git_tag(CONFIG), "../../blobs"),
        ("model.safetensors", weights(), lfs_tag(&weights()), "../../blobs"),
        ("nested/folder/config.json", CONFIG.to_vec(), git_tag(CONFIG), "../../../../blobs"),
    ] {
        let path = sandbox.get(&server.endpoint, file).unwrap();
        assert_eq!(path, sandbox.entry("snapshots").join(COMMIT).join(file));
        assert_eq!(fs::read_link(&path).unwrap(), Path::new(link).join(&tag));
        assert_eq!(fs::read(&path).unwrap(), content);
        assert_eq!(fs::read(sandbox.entry("blobs").join(&tag)).unwrap(), content);
        assert!(sandbox.cache().join(".locks/models--owner--model").join(format!("{tag}.lock")).is_file());
    }
    assert_eq!(fs::read_to_string(sandbox.entry("refs/main")).unwrap(), COMMIT);
    let blobs: Vec<_> = fs::read_dir(sandbox.entry("blobs")).unwrap().collect();
    assert_eq!(blobs.len(), 2, "one blob for two files of the same content, nothing incomplete: {blobs:?}");
}

#[test]
fn a_cache_written_by_huggingface_hub_is_used_without_a_request() {
    let sandbox = Sandbox::default();
    sandbox.plant_file("config.json", &git_tag(CONFIG), CONFIG);
    sandbox.plant("blobs/5e9a-tag", &weights());
    sandbox.plant_link("model.safetensors", "../../blobs/5e9a-tag");
    // Without symbolic links, `huggingface_hub` copies files.
    sandbox.plant(&format!("snapshots/{COMMIT}/tokenizer.json"), b"{}");
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        assert!(offline(&sandbox, file).unwrap().is_file());
        assert!(sandbox.get(NOWHERE, file).unwrap().is_file());
    }
}

#[test]
fn a_cached_file_is_used_without_a_request() {
    let (sandbox, server) = (Sandbox::default(), serve(Behavior::Honest));
    let first = sandbox.get(&server.endpoint, "config.json").unwrap();
    let requests = server.requests().len();
    assert_eq!(sandbox.get(&server.endpoint, "config.json").unwrap(), first);
    assert_eq!(offline(&sandbox, "config.json").unwrap(), first);
    assert_eq!(server.requests().len(), requests);
}

#[test]
fn offline_errors_name_the_missing_file_and_the_cache() {
    let sandbox = Sandbox::default();
    let refused = offline(&sandbox, "config.json").unwrap_err();
    assert!(refused.is_absent());
    let text = refused.to_string();
    assert!(text.contains("config.json") && text.contains(&sandbox.cache().display().to_string()), "{text}");
    assert!(sandbox.outside().iter().all(|(path, _)| path.exists()) && !sandbox.entry("").exists());
}

#[test]
fn a_damaged_small_file_is_downloaded_again_or_named() {
    for poison in [&b"<html>Sign in</html>"[..], b"", &CONFIG[..20], &[CONFIG, b" "].concat()] {
        let (sandbox, server) = (Sandbox::default(), serve(Behavior::Honest));
        let blob = sandbox.plant_file("config.json", &git_tag(CONFIG), poison);
        let refused = offline(&sandbox, "config.json");
        let text = refused.as_ref().unwrap_err().to_string();
        assert!(text.contains("delete it") && text.contains(blob.to_str().unwrap()), "{text}");
        assert_eq!(damaged(refused), blob);
        // The remedy in the error works.
        let path = sandbox.get(&server.endpoint, "config.json").unwrap();
        assert_eq!(fs::read(path).unwrap(), CONFIG);
        let notices = sandbox.notices.lock().unwrap().clone();
        assert!(notices.len() == 1 && notices[0].contains("downloading it again"), "{notices:?}");
        assert!(offline(&sandbox, "config.json").is_ok());
    }
}

#[test]
fn damaged_weights_are_downloaded_again_or_named() {
    let whole = weights();
    for poison in [&b"<html>Sign in</html>"[..], &whole[..10_000], &[&whole[..], b"more"].concat()] {
        // The tag is not a hash, so this is the check for weights that are too long to hash at each
        // use.
        let (sandbox, server) = (Sandbox::default(), serve(Behavior::Honest));
        let blob = sandbox.plant_file("model.safetensors", "5e9a-tag", poison);
        assert_eq!(damaged(offline(&sandbox, "model.safetensors")), blob);
        let path = sandbox.get(&server.endpoint, "model.safetensors").unwrap();
        assert_eq!(fs::read(path).unwrap(), whole);
        assert!(offline(&sandbox, "model.safetensors").is_ok());
    }
}

#[test]
fn deleting_the_named_file_repairs_the_cache() {
    let (sandbox, server) = (Sandbox::default(), serve(Behavior::Honest));
    sandbox.plant_file("config.json", &git_tag(CONFIG), b"<html>");
    fs::remove_file(damaged(offline(&sandbox, "config.json"))).unwrap();
    assert!(offline(&sandbox, "config.json").unwrap_err().is_absent());
    assert!(sandbox.get(&server.endpoint, "config.json").is_ok());
}

#[test]
fn a_link_that_leaves_the_cache_is_not_followed() {
    let (sandbox, server) = (Sandbox::default(), serve(Behavior::Honest));
    let secret = sandbox.outer().join("secret.json");
    fs::write(&secret, CONFIG).unwrap();
    sandbox.plant("refs/main", COMMIT.as_bytes());
    for target in [secret.to_str().unwrap(), "../../../../../secret.json"] {
        let _ = fs::remove_file(sandbox.entry("snapshots").join(COMMIT).join("config.json"));
        sandbox.plant_link("config.json", target);
        let link = damaged(offline(&sandbox, "config.json"));
        assert_eq!(link, sandbox.entry("snapshots").join(COMMIT).join("config.json"));
        let path = sandbox.get(&server.endpoint, "config.json").unwrap();
        assert!(fs::canonicalize(path).unwrap().starts_with(fs::canonicalize(sandbox.cache()).unwrap()));
    }
}

#[test]
fn a_folder_that_is_a_link_is_refused() {
    for folder in ["blobs", "refs", "snapshots", &format!("snapshots/{COMMIT}")] {
        let (sandbox, server) = (Sandbox::default(), serve(Behavior::Honest));
        let elsewhere = sandbox.outer().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        let link = sandbox.entry(folder);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
        let before = sandbox.outside();
        let refused = sandbox.get(&server.endpoint, "config.json").unwrap_err();
        assert!(matches!(*refused.kind, HubErrorKind::CacheEntry { .. }), "{folder}: {refused}");
        assert!(refused.to_string().contains(link.to_str().unwrap()), "{refused}");
        assert_eq!(sandbox.outside(), before, "{folder}");
    }
}

#[test]
fn links_in_place_of_files_are_replaced_and_not_written_through() {
    let (sandbox, server) = (Sandbox::default(), serve(Behavior::Honest));
    let sentinel = sandbox.outer().join("sentinel");
    for entry in [format!("blobs/{}", git_tag(CONFIG)), format!("blobs/{}.incomplete", git_tag(CONFIG))] {
        let path = sandbox.entry(&entry);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(&sentinel, path).unwrap();
    }
    fs::create_dir_all(sandbox.entry("refs")).unwrap();
    std::os::unix::fs::symlink(&sentinel, sandbox.entry("refs/main")).unwrap();
    let before = sandbox.outside();
    let path = sandbox.get(&server.endpoint, "config.json").unwrap();
    assert_eq!(fs::read(path).unwrap(), CONFIG);
    assert_eq!(sandbox.outside(), before);
}

#[test]
fn nonsense_references_and_blobs_end_in_an_error_or_a_download() {
    for reference in [&b"../../../../outer"[..], b"", b"\xff\xff", &[b'a'; 1 << 16]] {
        let (sandbox, server) = (Sandbox::default(), serve(Behavior::Honest));
        sandbox.plant("refs/main", reference);
        assert!(offline(&sandbox, "config.json").unwrap_err().is_absent());
        assert!(sandbox.get(&server.endpoint, "config.json").is_ok());
        assert_eq!(fs::read_to_string(sandbox.entry("refs/main")).unwrap(), COMMIT);
    }
    let (sandbox, server) = (Sandbox::default(), serve(Behavior::Honest));
    fs::create_dir_all(sandbox.entry("blobs").join(git_tag(CONFIG))).unwrap();
    let refused = sandbox.get(&server.endpoint, "config.json").unwrap_err();
    assert!(matches!(*refused.kind, HubErrorKind::CacheEntry { .. }), "{refused}");
}

#[test]
fn names_that_lead_out_of_the_cache_are_refused() {
    let (sandbox, server) = (Sandbox::default(), serve(Behavior::Honest));
    let before = sandbox.outside();
    let out = "../../../../escaped";
    for (repository, revision, file) in [
        (REPOSITORY, out, "config.json"),
        (REPOSITORY, "/etc/escaped", "config.json"),
        (REPOSITORY, "main\u{1b}[31m", "config.json"),
        ("../../escaped", "main", "config.json"),
        ("owner/..", "main", "config.json"),
        (REPOSITORY, "main", out),
        (REPOSITORY, "main", "a\\..\\..\\b"),
    ] {
        let client = HubClient::new(sandbox.config(&server.endpoint));
        let refused = client.snapshot(repository, revision).get(file).unwrap_err();
        assert!(matches!(*refused.kind, HubErrorKind::Name(_)), "{refused}");
        assert!(!refused.to_string().contains(char::is_control), "{refused}");
    }
    assert_eq!(sandbox.outside(), before);
    assert!(server.requests().is_empty() && fs::read_dir(sandbox.cache()).unwrap().next().is_none());
}

#[test]
fn revisions_with_slashes_are_kept_in_nested_folders() {
    let (sandbox, server) = (Sandbox::default(), serve(Behavior::Honest));
    let path = get(sandbox.config(&server.endpoint), "refs/pr/1", "config.json").unwrap();
    assert_eq!(path, sandbox.entry("snapshots").join(COMMIT).join("config.json"));
    assert_eq!(fs::read_to_string(sandbox.entry("refs/refs/pr/1")).unwrap(), COMMIT);
    assert_eq!(server.requests()[0].path, "/owner/model/resolve/refs%2Fpr%2F1/config.json");
    let requests = server.requests().len();
    // A commit does not need a reference.
    assert_eq!(get(sandbox.config(&server.endpoint), COMMIT, "config.json").unwrap(), path);
    assert_eq!(server.requests().len(), requests);
}

#[test]
fn all_files_come_from_the_first_files_commit() {
    let (sandbox, server) = (Sandbox::default(), serve(Behavior::Honest));
    let client = HubClient::new(sandbox.config(&server.endpoint));
    let mut snapshot = client.snapshot(REPOSITORY, "main");
    snapshot.get("config.json").unwrap();
    snapshot.get("model.safetensors").unwrap();
    let asked: Vec<_> = server.requests().into_iter().map(|request| (request.method, request.path)).collect();
    let path = |revision: &str, file: &str| format!("/owner/model/resolve/{revision}/{file}");
    assert_eq!(asked[0], ("HEAD".to_owned(), path("main", "config.json")));
    assert!(asked[1..].iter().all(|(_, asked)| asked.contains(COMMIT)), "{asked:?}");

    let (sandbox, server) = (Sandbox::default(), serve(Behavior::CommitMoves));
    sandbox.get(&server.endpoint, "config.json").unwrap();
    let refused = sandbox.get(&server.endpoint, "model.safetensors").unwrap_err().to_string();
    assert!(refused.contains(&format!("is of commit {OTHER_COMMIT}, not {COMMIT}")), "{refused}");
}

#[test]
fn a_missing_file_is_requested_once() {
    let (sandbox, server) = (Sandbox::default(), serve(Behavior::Honest));
    sandbox.get(&server.endpoint, "config.json").unwrap();
    let first = sandbox.get(&server.endpoint, "absent.json").unwrap_err();
    assert!(first.is_absent() && first.to_string().contains("not found (HTTP 404)"), "{first}");
    let requests = server.requests().len();
    let again = sandbox.get(&server.endpoint, "absent.json").unwrap_err();
    let mark = sandbox.entry(".no_exist").join(COMMIT).join("absent.json");
    assert!(again.is_absent() && again.to_string().contains(mark.to_str().unwrap()), "{again}");
    assert_eq!(server.requests().len(), requests);
}

#[test]
fn a_cache_that_is_a_file_is_an_error_that_names_it() {
    let (sandbox, server) = (Sandbox::default(), serve(Behavior::Honest));
    let mut config = sandbox.config(&server.endpoint);
    config.cache = sandbox.outer().join("sentinel");
    let refused = get(config, "main", "config.json").unwrap_err();
    assert!(refused.to_string().contains("outer/sentinel"), "{refused}");
    assert_eq!(fs::read_to_string(sandbox.outer().join("sentinel")).unwrap(), "untouched");
}
