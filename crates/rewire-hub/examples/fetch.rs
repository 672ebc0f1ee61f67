//! Fetches files of a model and prints their paths: `fetch REPOSITORY REVISION FILE..`

use rewire_hub::{HubClient, HubConfig, Notice, Progress};

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [repository, revision, files @ ..] = arguments.as_slice() else {
        eprintln!("usage: fetch REPOSITORY REVISION FILE..");
        std::process::exit(2);
    };
    let mut config = HubConfig::from_env();
    config.progress = Progress::Bar;
    config.notice = Notice::new(|line| eprintln!("{line}"));
    let client = HubClient::new(config);
    let mut snapshot = client.snapshot(repository, revision);
    for file in files {
        match snapshot.get(file) {
            Ok(path) => println!("{}", path.display()),
            Err(refused) => {
                eprintln!("{refused}");
                std::process::exit(2);
            }
        }
    }
}
