//! Faults that random frames once found stay fixed in the kernel, at XDP and at TC.

use wardline_host_tests::{
    bench::INTERFACES,
    regressions::{self, ROUTERS, ROUTERS_6},
};

use super::{fuzz, judge};

#[test]
fn what_was_wrong_once_is_right() {
    none_of(|| regressions::wrong(&mut fuzz::bench(&ROUTERS)));
}

#[test]
fn the_failsafe_does_not_admit_who_has_no_address() {
    none_of(|| regressions::wrong_of_the_failsafe(&mut fuzz::bench(&ROUTERS_6)));
}

fn none_of(wrong: impl FnOnce() -> Vec<String> + Send) {
    let wrong = judge::in_namespace("regressions", &INTERFACES, wrong);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
