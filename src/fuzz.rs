//! Property tests of what anybody may send: archives, options, tokens. Few cases in the fast tests; as many as `PROPTEST_CASES` says in the long ones,
//! which find them by their names (`whatever_is_thrown_at_...`) and count what ran by what is printed here.

use std::cell::Cell;

use proptest::{
    strategy::Strategy,
    test_runner::{Config, TestCaseResult, TestRunner},
};

/// Tries `property` on `few` inputs, or on `PROPTEST_CASES`. Fails with the smallest input that it does not hold for.
pub fn check<S: Strategy>(what: &str, few: u32, inputs: &S, property: impl Fn(S::Value) -> TestCaseResult) {
    let cases = cases(few, std::env::var("PROPTEST_CASES").ok().as_deref());
    let ran = Cell::new(0_u64);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(inputs, |input| {
        ran.set(ran.get() + 1);
        property(input)
    });
    println!("fuzzed {what}: {} cases", ran.get());
    if let Err(error) = outcome {
        panic!("{what}: {error}");
    }
}

/// # Panics
/// On what is no number: a long run that was mistyped would be a short one.
fn cases(few: u32, asked: Option<&str>) -> u32 {
    asked.map_or(few, |asked| asked.parse().unwrap_or_else(|_| panic!("PROPTEST_CASES is no number: {asked}")))
}

#[test]
fn a_long_run_is_as_long_as_it_was_asked_for() {
    assert_eq!((cases(7, None), cases(7, Some("1000000"))), (7, 1_000_000));
    let ran = Cell::new(0);
    check("nothing", 5, &proptest::bool::ANY, |_| {
        ran.set(ran.get() + 1);
        Ok(())
    });
    assert_eq!(ran.get(), cases(5, std::env::var("PROPTEST_CASES").ok().as_deref()));
}
