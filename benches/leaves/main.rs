//! What each leaf costs a request.
//!
//!     cargo bench --bench leaves                # time, by criterion
//!     LEAVES_BINARY names                       # each leaf's name, a line each
//!     LEAVES_BINARY run NAME TIMES              # one of them, for `scripts/bench-gate` to count its instructions

mod list;

use std::env;

use criterion::Criterion;

use self::list::{LEAVES, Leaf};

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["names"] => LEAVES.iter().for_each(|leaf| println!("{}", leaf.name)),
        ["run", name, times] => run(leaf(name), times.parse().expect("a number of times")),
        _ => time_all(),
    }
}

fn leaf(name: &str) -> &'static Leaf {
    LEAVES.iter().find(|leaf| leaf.name == name).unwrap_or_else(|| panic!("no leaf is called {name}"))
}

fn time_all() {
    let mut criterion = Criterion::default().configure_from_args();
    for leaf in LEAVES {
        let mut once = (leaf.prepare)();
        criterion.bench_function(leaf.name, |bencher| bencher.iter(&mut once));
    }
    criterion.final_summary();
}

fn run(leaf: &Leaf, times: usize) {
    let mut once = (leaf.prepare)();
    // The first time grows what the others reuse.
    once();
    counted(&mut *once, times);
}

/// Callgrind collects within this function only, found by its name.
#[inline(never)]
fn counted(once: &mut dyn FnMut(), times: usize) {
    for _ in 0..times {
        once();
    }
}
