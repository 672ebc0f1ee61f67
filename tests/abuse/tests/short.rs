//! Some trials of every kind; `cargo xtask soak` runs more.

use rewire_abuse::{Counts, Kind, Program, Trials};

fn hold(kind: Kind, times: usize) {
    let mut trials = Trials::new(Program::beside_this().unwrap(), 0);
    let mut counts = Counts::default();
    (0..times).for_each(|_| trials.run(kind, &mut counts));
    assert!(counts.failures.is_empty(), "{counts}");
}

#[test]
fn a_command_that_is_killed_at_any_moment_finishes_with_the_same_bytes() {
    hold(Kind::Kill, 3);
}

#[test]
fn two_runs_in_one_directory_do_not_mix() {
    hold(Kind::Race, 2);
}

#[test]
fn a_run_with_wait_starts_after_the_other_ends() {
    hold(Kind::Wait, 1);
}

#[test]
fn a_damaged_record_gives_no_wrong_number() {
    hold(Kind::Damage, 9);
}

#[test]
fn a_full_disk_loses_nothing() {
    hold(Kind::Full, 4);
}

#[test]
fn a_full_standard_output_is_an_error_and_a_full_standard_error_is_ignored() {
    hold(Kind::FullTerminal, 1);
}

#[test]
fn an_output_directory_may_have_any_name() {
    hold(Kind::OddName, 1);
}

#[test]
fn the_users_files_and_symlinks_are_refused_and_kept() {
    hold(Kind::UsersFiles, 1);
}

#[test]
fn hostile_servers_cause_one_error_and_no_write_outside_the_cache() {
    hold(Kind::Server, 24);
}

#[test]
fn files_removed_during_a_run_cost_no_result() {
    hold(Kind::Removal, 3);
}

#[test]
fn shards_that_are_lost_are_computed_again_with_the_same_bytes() {
    hold(Kind::LostShards, 3);
}

#[test]
fn two_submissions_in_one_directory_do_not_mix() {
    hold(Kind::TwoSubmissions, 2);
}

#[test]
fn a_full_directory_costs_no_shard() {
    hold(Kind::FullShards, 2);
}

#[test]
fn a_slow_directory_and_a_clock_that_runs_backwards_change_no_number() {
    hold(Kind::SlowShards, 2);
}
