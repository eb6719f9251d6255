//! Which of several equal endpoints takes the next request.

use crate::config::model::Balance;

/// What the choice depends on, endpoint by endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Exchanges in flight from this worker.
    pub(super) active: usize,
    /// May be chosen: not tried already and not cooling.
    pub(super) usable: bool,
}

/// The index chosen among `count` candidates, `None` if none is usable. `draw` is a random number
/// and, for round robin, `turn` the number of choices made before.
pub(super) fn choose(
    balance: Balance,
    count: usize,
    candidate: impl Fn(usize) -> Candidate,
    turn: usize,
    draw: u64,
) -> Option<usize> {
    if count == 1 {
        return candidate(0).usable.then_some(0);
    }
    if count == 0 {
        return None;
    }
    let from = |start: usize| (0..count).map(move |step| (start + step) % count).find(|index| candidate(*index).usable);
    match balance {
        Balance::RoundRobin => from(turn % count),
        // Two draws and the less loaded one: near the best of all, at the cost of two look-ups
        // (Mitzenmacher, "The power of two choices in randomized load balancing", 2001).
        Balance::LeastRequests => {
            let first = from(draw as usize % count)?;
            let second = from((first + 1 + (draw >> 32) as usize % (count - 1)) % count)?;
            Some(if candidate(second).active < candidate(first).active { second } else { first })
        }
    }
}

/// What requests have in common that should meet one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity(u64);

impl Affinity {
    /// Of what names it; the same in every process.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        // FNV-1a.
        Self(
            name.iter()
                .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)),
        )
    }

    /// The usable endpoint that scores highest: when one goes, only what met it moves (rendezvous
    /// hashing, Thaler and Ravishankar, 1998).
    pub(super) fn choose(
        self,
        count: usize,
        candidate: impl Fn(usize) -> Candidate,
        identity: impl Fn(usize) -> u64,
    ) -> Option<usize> {
        (0..count).filter(|index| candidate(*index).usable).max_by_key(|index| self.score(identity(*index)))
    }

    /// The finaliser of splitmix64 over both.
    fn score(self, identity: u64) -> u64 {
        let mixed = self.0 ^ identity;
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_085_an_affinity_keeps_its_endpoint_while_that_is_usable() {
        let identity = |index: usize| [11, 22, 33, 44][index];
        let chosen = |name: &str, unusable: Option<usize>| {
            let candidate = |index| Candidate { active: 0, usable: Some(index) != unusable };
            Affinity::of(name.as_bytes()).choose(4, candidate, identity).expect("one is usable")
        };
        let names: Vec<String> = (0..400).map(|number| format!("task-{number}")).collect();
        let mut counts = [0; 4];
        for name in &names {
            let home = chosen(name, None);
            counts[home] += 1;
            for unusable in 0..4 {
                // What another endpoint's loss does not concern stays.
                assert_eq!(chosen(name, Some(unusable)) == home, unusable != home, "{name}");
            }
        }
        assert!(counts.iter().all(|count| *count > 50), "{counts:?}");
        let none = Affinity::of(b"x").choose(2, |_| Candidate { active: 0, usable: false }, identity);
        assert_eq!(none, None);
    }

    fn candidates(list: &[(usize, bool)]) -> impl Fn(usize) -> Candidate + '_ {
        |index| Candidate { active: list[index].0, usable: list[index].1 }
    }

    #[test]
    fn round_robin_visits_all_and_passes_over_the_unusable() {
        let list = [(0, true), (0, false), (0, true)];
        let chosen: Vec<_> =
            (0..6).map(|turn| choose(Balance::RoundRobin, 3, candidates(&list), turn, 0).unwrap()).collect();
        assert_eq!(chosen, [0, 2, 2, 0, 2, 2]);
    }

    #[test]
    fn of_two_the_less_loaded_is_taken() {
        let list = [(5, true), (1, true)];
        for draw in 0..64u64 {
            assert_eq!(choose(Balance::LeastRequests, 2, candidates(&list), 0, draw << 31 | draw), Some(1));
        }
    }

    #[test]
    fn the_most_loaded_of_many_is_never_taken_and_none_is_left_out() {
        let list = [(9, true), (0, true), (0, true), (0, true)];
        let mut seen = [0; 4];
        for draw in 0..4096u64 {
            let draw = draw.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            seen[choose(Balance::LeastRequests, 4, candidates(&list), 0, draw).unwrap()] += 1;
        }
        assert_eq!(seen[0], 0);
        assert!(seen[1..].iter().all(|count| *count > 500), "{seen:?}");
    }

    #[test]
    fn nothing_usable_is_nothing_chosen() {
        for balance in [Balance::RoundRobin, Balance::LeastRequests] {
            assert_eq!(choose(balance, 0, candidates(&[]), 0, 1), None);
            assert_eq!(choose(balance, 1, candidates(&[(0, false)]), 0, 1), None);
            assert_eq!(choose(balance, 2, candidates(&[(0, false), (0, false)]), 0, 1), None);
        }
    }
}
