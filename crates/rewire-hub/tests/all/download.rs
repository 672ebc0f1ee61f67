//! Downloads: token, resumption, repetition, locks.

use std::fs;
use std::time::{Duration, Instant};

use crate::server::{self, Behavior, CONFIG, Sandbox, TOKEN, git_tag, lfs_tag, serve, weights};
use rewire_hub::HubErrorKind;

fn incomplete(tag: &str) -> String {
    format!("blobs/{tag}.incomplete")
}

#[test]
fn the_token_goes_to_the_endpoint_alone() {
    let (sandbox, server) = (Sandbox::default(), serve(Behavior::LargeFilesElsewhere));
    let path = sandbox.get(&server.endpoint, "model.safetensors").unwrap();
    assert_eq!(fs::read(path).unwrap(), weights());
    let ours = server.requests();
    let bearer = format!("Bearer {TOKEN}");
    assert!(ours.iter().all(|request| request.header("authorization") == Some(bearer.as_str())), "{ours:?}");
    let strangers = server.requests_of_stranger();
    assert!(!strangers.is_empty());
    for request in strangers {
        assert!(!format!("{request:?}").contains(TOKEN), "{request:?}");
        assert_eq!(request.header("accept-encoding"), Some("identity"));
    }
}

#[test]
fn invalid_tokens_are_refused_and_not_printed() {
    let (sandbox, server) = (Sandbox::default(), serve(Behavior::Honest));
    let mut config = sandbox.config(&server.endpoint);
    config.token = Some("hf_one\r\nX-Injected: two".to_owned());
    assert!(!format!("{config:?}").contains("hf_one"));
    let refused = server::get(config, "main", "config.json").unwrap_err();
    assert!(matches!(*refused.kind, HubErrorKind::Token) && !refused.to_string().contains("hf_one"), "{refused}");
    assert!(server.requests().is_empty());
}

#[test]
fn invalid_endpoints_are_refused() {
    let sandbox = Sandbox::default();
    for endpoint in ["", "huggingface.co", "ftp://host", "file:///etc", "http://", "http://h/?q", "http://u:secret@h"] {
        let refused = sandbox.get(endpoint, "config.json").unwrap_err();
        assert!(matches!(*refused.kind, HubErrorKind::Endpoint { .. }), "{endpoint}: {refused}");
        assert!(!refused.to_string().contains("secret"), "{refused}");
    }
}

#[test]
fn a_renamed_repository_is_found() {
    let (sandbox, server) = (Sandbox::default(), serve(Behavior::Renamed));
    let path = sandbox.get(&server.endpoint, "config.json").unwrap();
    assert_eq!(fs::read(path).unwrap(), CONFIG);
}

#[test]
fn a_download_resumes_at_its_last_byte() {
    let (sandbox, server) = (Sandbox::default(), serve(Behavior::LargeFilesElsewhere));
    sandbox.plant(&incomplete(&lfs_tag(&weights())), &weights()[..5000]);
    let path = sandbox.get(&server.endpoint, "model.safetensors").unwrap();
    assert_eq!(fs::read(path).unwrap(), weights());
    assert_eq!(server.requests_of_stranger()[0].header("range"), Some("bytes=5000-"));
}

#[test]
fn an_interrupted_download_is_kept_and_resumed_by_the_next_fetch() {
    let (sandbox, bad, good) = (Sandbox::default(), serve(Behavior::BodyEndsEarly), serve(Behavior::Honest));
    let refused = sandbox.get(&bad.endpoint, "model.safetensors").unwrap_err();
    let HubErrorKind::Ended { received, .. } = *refused.kind else { panic!("{refused}") };
    assert_eq!(fs::metadata(sandbox.entry(&incomplete(&lfs_tag(&weights())))).unwrap().len(), received);
    sandbox.get(&good.endpoint, "model.safetensors").unwrap();
    let range = format!("bytes={received}-");
    assert!(good.requests().iter().any(|request| request.header("range") == Some(&range)));
}

#[test]
fn a_damaged_or_overlong_partial_file_is_discarded() {
    let tag = git_tag(CONFIG);
    for (behavior, beginning) in [
        (Behavior::Honest, &b"<html>"[..]),
        (Behavior::Honest, &[b'x'; 4000][..]),
        (Behavior::Honest, &[b'x'; 36][..]),
        (Behavior::RangeIgnored, &CONFIG[..10]),
    ] {
        let (sandbox, server) = (Sandbox::default(), serve(behavior));
        sandbox.plant(&incomplete(&tag), beginning);
        let path = sandbox.get(&server.endpoint, "config.json").unwrap();
        assert_eq!(fs::read(path).unwrap(), CONFIG, "{behavior:?}");
        assert!(!sandbox.entry(&incomplete(&tag)).exists());
    }
}

#[test]
fn wrong_content_is_not_kept() {
    let (sandbox, server) = (Sandbox::default(), serve(Behavior::WrongContent));
    sandbox.get(&server.endpoint, "config.json").unwrap_err();
    assert!(!sandbox.entry(&incomplete(&git_tag(CONFIG))).exists());
}

#[test]
fn a_request_that_fails_once_is_repeated() {
    for (behavior, least) in [(Behavior::ServerErrorOnce, 0), (Behavior::BusyForASecond, 1)] {
        let (sandbox, server) = (Sandbox::default(), serve(behavior));
        let start = Instant::now();
        sandbox.get(&server.endpoint, "config.json").unwrap();
        assert!(start.elapsed() >= Duration::from_secs(least) && start.elapsed() < Duration::from_secs(5));
        let notices = sandbox.notices.lock().unwrap().clone();
        assert!(notices.len() == 1 && notices[0].contains("trying again"), "{notices:?}");
    }
}

#[test]
fn connection_errors_name_the_host() {
    let refused = Sandbox::default().get("http://127.0.0.1:9", "config.json").unwrap_err().to_string();
    assert!(refused.contains("127.0.0.1:9") && refused.contains("HF_HUB_OFFLINE=1"), "{refused}");
}

#[test]
fn a_download_waits_for_another_process_and_says_so() {
    let (sandbox, server) = (Sandbox::default(), serve(Behavior::Honest));
    let path = sandbox.cache().join(format!(".locks/models--owner--model/{}.lock", git_tag(CONFIG)));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let held = fs::File::create(&path).unwrap();
    held.lock().unwrap();

    let mut config = sandbox.config(&server.endpoint);
    config.limits.lock = Duration::from_millis(300);
    let refused = server::get(config, "main", "config.json").unwrap_err();
    assert!(matches!(*refused.kind, HubErrorKind::Locked { .. }), "{refused}");
    let notices = sandbox.notices.lock().unwrap().clone();
    assert!(notices.len() == 1 && notices[0].contains(path.to_str().unwrap()), "{notices:?}");

    let release = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        drop(held);
    });
    sandbox.get(&server.endpoint, "config.json").unwrap();
    release.join().unwrap();
}

#[test]
fn many_threads_download_one_file_once() {
    let (sandbox, server) = (Sandbox::default(), serve(Behavior::Honest));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| sandbox.get(&server.endpoint, "model.safetensors").unwrap());
        }
    });
    let downloads = server.requests().into_iter().filter(|request| request.method == "GET").count();
    assert_eq!(downloads, 1);
}
