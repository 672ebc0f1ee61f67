//! Hostile servers: each fetch ends in an error, in bounded time, with nothing outside the cache
//! and no file that counts as cached.

use std::time::{Duration, Instant};

use crate::server::{Behavior, CONFIG, Sandbox, TOKEN, git_tag, serve};

/// Asserts that a fetch ends in an error with this text, and leaves no file that counts as cached.
fn refuses(behavior: Behavior, file: &str, message: &str) {
    refuses_in(&Sandbox::default(), behavior, file, message);
}

fn refuses_in(sandbox: &Sandbox, behavior: Behavior, file: &str, message: &str) {
    let server = serve(behavior);
    let before = sandbox.outside();
    let start = Instant::now();
    let refused = sandbox.get(&server.endpoint, file).expect_err("the server was believed").to_string();
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}: {refused}", start.elapsed());
    assert!(refused.contains(message), "{refused}");
    assert!(refused.starts_with(&format!("cannot fetch {file} of owner/model (revision main): ")), "{refused}");
    assert!(refused.len() < 900 && !refused.contains(char::is_control), "{refused:?}");
    assert_eq!(sandbox.outside(), before, "something was written outside the cache");
    assert!(sandbox.counted().is_empty(), "{:?}", sandbox.counted());
    assert!(server.requests().len() <= 40, "{} requests", server.requests().len());
    let requests = server.requests_of_stranger();
    assert!(requests.iter().all(|request| !format!("{request:?}").contains(TOKEN)), "{requests:?}");
}

/// One test per behavior: its name, the behavior, the requested file, and a part of the error.
macro_rules! refused {
    ($($name:ident: $behavior:ident, $file:literal, $message:literal;)+) => {
        $(#[test] fn $name() { refuses(Behavior::$behavior, $file, $message) })+
    };
}

refused! {
    a_redirect_to_itself_ends: RedirectToItself, "config.json", "redirects more than 10 times";
    redirects_in_a_circle_end: RedirectInCircles, "config.json", "redirects more than 10 times";
    a_redirect_without_location_is_an_error: RedirectWithoutLocation, "config.json", "gives no Location";
    a_redirect_to_a_local_file_is_refused: RedirectToFileScheme, "config.json", "which is not http";
    a_redirect_to_no_address_is_refused: RedirectToNoAddress, "config.json", "which is not a URL";
    a_redirect_that_is_not_text_is_refused: RedirectToBytes, "config.json", "location that is not text";
    a_redirect_with_a_password_is_refused: RedirectWithPassword, "config.json", "contains a user name";
    another_host_does_not_describe_a_file: RedirectElsewhereUndescribed, "config.json", "without describing the file";
    a_web_page_from_the_storage_is_refused: WebPageElsewhere, "model.safetensors", "bytes instead of";
    a_stall_before_the_headers_ends: StallBeforeHeaders, "config.json", "nothing was received for too long";
    trickled_headers_end: TrickleHeaders, "config.json", "no whole answer in time";
    endless_headers_end: EndlessHeaders, "config.json", "cannot be used";
    endless_informational_answers_end: EndlessInformational, "config.json", "no whole answer in time";
    a_stall_in_the_body_ends: StallInBody, "config.json", "nothing was received for too long";
    a_trickled_body_ends: TrickleBody, "model.safetensors", "sends less than 1000 bytes a second";
    an_endless_body_ends: EndlessBody, "model.safetensors", "is longer than the file's";
    a_body_that_is_too_long_is_refused: BodyTooLong, "config.json", "bytes instead of 36";
    a_body_that_always_ends_early_is_an_error: BodyEndsEarly, "model.safetensors", "of 20069 bytes; fetch again to continue";
    broken_chunks_are_an_error: BrokenChunks, "config.json", "cannot be used";
    a_server_that_speaks_no_http_is_an_error: NoHttp, "config.json", "cannot be used";
    a_connection_closed_at_once_is_an_error: CloseAtOnce, "config.json", "the connection to 127.0.0.1";
    an_etag_with_a_path_is_refused: EtagWithPath, "config.json", "is not a valid ETag";
    an_etag_that_names_an_incomplete_file_is_refused: EtagOfIncompleteFile, "config.json", "is not a valid ETag";
    a_long_etag_is_refused_and_cut: LongEtag, "config.json", "is not a valid ETag";
    a_commit_with_a_path_is_refused: CommitWithPath, "config.json", "is not a valid commit";
    a_commit_that_is_a_name_is_refused: CommitNotHexadecimal, "config.json", "is not a valid commit";
    an_answer_without_commit_is_refused: NoCommit, "config.json", "lacks X-Repo-Commit";
    an_answer_without_etag_is_refused: NoEtag, "config.json", "lacks ETag";
    an_answer_without_length_is_refused: NoLength, "config.json", "lacks Content-Length";
    a_negative_length_is_refused: NegativeLength, "config.json", "the answer from";
    a_length_beyond_numbers_is_refused: LengthBeyondNumbers, "config.json", "the answer from";
    two_lengths_are_refused: TwoLengths, "config.json", "the answer from";
    a_config_of_gigabytes_is_refused: HugeConfig, "config.json", "more than the 67108864 bytes allowed";
    weights_beyond_any_disk_are_refused: HugeWeights, "model.safetensors", "bytes allowed for such a file";
    content_with_another_hash_is_refused: WrongContent, "model.safetensors", "its hash is";
    a_web_page_is_refused: WebPage, "config.json", "is a web page instead of the file";
    a_web_page_without_hash_is_no_json: WebPageAsJsonWithoutHash, "config.json", "it is not JSON";
    a_web_page_without_hash_is_no_safetensors: WebPageAsJsonWithoutHash, "model.safetensors", "no safetensors header";
    cut_weights_without_hash_are_refused: CutSafetensorsWithoutHash, "model.safetensors", "its safetensors header says";
    a_range_that_is_never_satisfiable_is_an_error: RangeNeverSatisfiable, "config.json", "HTTP 416";
    compressed_content_is_refused: Compressed, "config.json", "is encoded as `br`";
    a_server_that_always_fails_is_an_error: ServerError, "config.json", "answered HTTP 500";
    a_server_that_asks_to_wait_an_hour_is_not_waited_for: BusyForAnHour, "config.json", "asks to wait 3600 s";
    denied_access_names_the_token: Denied, "config.json", "a gated model needs HF_TOKEN";
    a_status_line_of_control_characters_is_an_error: StrangeStatus, "config.json", "cannot be used";
}

#[test]
fn a_range_with_another_start_is_refused() {
    for (behavior, message) in [
        (Behavior::RangeBeginsElsewhere, "begins at byte 1 instead of 10"),
        (Behavior::RangeOfAnotherSize, "of a file of 36 bytes"),
    ] {
        let sandbox = Sandbox::default();
        sandbox.plant(&format!("blobs/{}.incomplete", git_tag(CONFIG)), &CONFIG[..10]);
        refuses_in(&sandbox, behavior, "config.json", message);
    }
}

#[test]
fn every_behavior_ends_without_a_panic_for_every_file() {
    for behavior in Behavior::ALL {
        let slow = matches!(
            behavior,
            Behavior::StallBeforeHeaders | Behavior::TrickleHeaders | Behavior::StallInBody | Behavior::TrickleBody
        );
        if slow {
            continue;
        }
        let (sandbox, server) = (Sandbox::default(), serve(behavior));
        let before = sandbox.outside();
        for file in ["config.json", "model.safetensors", "nested/folder/config.json", "absent.json"] {
            let _ = sandbox.get(&server.endpoint, file);
        }
        assert_eq!(sandbox.outside(), before, "{behavior:?}");
    }
}

#[test]
fn mangled_answers_end_without_a_panic_and_give_the_file_or_nothing() {
    let sandbox = Sandbox::default();
    let before = sandbox.outside();
    let mut refused = 0;
    for seed in 0..400 {
        let server = serve(Behavior::Mangled(seed * 100));
        let _ = std::fs::remove_dir_all(sandbox.entry(""));
        match sandbox.get(&server.endpoint, "config.json") {
            Ok(path) => assert_eq!(std::fs::read(path).unwrap(), CONFIG, "seed {seed}"),
            Err(_) => refused += 1,
        }
        assert_eq!(sandbox.outside(), before, "seed {seed}");
    }
    assert!((20..380).contains(&refused), "{refused} of 400 were refused");
}
