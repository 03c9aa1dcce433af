//! Every case, natively. Each file has to hold as many cases as it is known to.
//!
//! The vectors' KeyPackages were good for three months from December 2023, and the library reads
//! the system's clock: this program has one of its own.

#![expect(unsafe_code, reason = "the C library's clock has a C function's shape")]

use sealcast_vectors::run;

/// When the vectors' KeyPackages were good: 11 January 2024, in seconds since the Unix epoch.
const WHEN: libc::time_t = 1_705_000_000;

/// Takes the place of the C library's function in this program: the time of day stands still.
///
/// # Safety
/// As the C library's: `time` points to a `timespec`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(
    clock: libc::clockid_t,
    time: *mut libc::timespec,
) -> libc::c_int {
    // SAFETY: the system call has the same contract as this function.
    let result = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
    if clock == libc::CLOCK_REALTIME && result == 0 {
        // SAFETY: the system call has just written it.
        unsafe { (*time).tv_sec = WHEN };
    }
    result as libc::c_int
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "it is the clock that is looked at"
)]
fn the_clock_stands_where_it_should() {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH);
    assert_eq!(since.expect("after 1970").as_secs(), WHEN as u64);
}

fn all(name: &str, file: &str, count: usize) {
    let cases: Vec<serde_json::Value> = serde_json::from_str(file).expect("a list");
    assert_eq!(cases.len(), count, "{name}");
    for (number, case) in cases.iter().enumerate() {
        if let Err(error) = run(name, &case.to_string()) {
            panic!("{name} {number}: {error}");
        }
    }
}

macro_rules! vectors {
    ($($test:ident $name:literal $count:literal;)*) => {$(
        #[test]
        fn $test() {
            all($name, include_str!(concat!("../data/", $name, ".json")), $count);
        }
    )*};
}

vectors! {
    crypto_basics "crypto-basics" 2;
    key_schedule "key-schedule" 2;
    messages "messages" 8;
    passive_client_welcome "passive-client-welcome" 8;
    passive_client_handling_commit "passive-client-handling-commit" 26;
    passive_client_random "passive-client-random" 1;
}

#[test]
fn a_changed_vector_fails() {
    let file = include_str!("../data/passive-client-handling-commit.json");
    let mut cases: Vec<serde_json::Value> = serde_json::from_str(file).expect("a list");
    let case = &mut cases[0];
    let authenticator = &mut case["epochs"][1]["epoch_authenticator"];
    *authenticator = "00".repeat(32).into();
    let error = run("passive-client-handling-commit", &case.to_string());
    assert!(error.is_err_and(|error| error.contains("epoch 1: epoch_authenticator")));
}
