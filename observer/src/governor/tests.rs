use super::*;

const POLICY: Policy =
    Policy { budget: 0.02, interval: Duration::from_secs(60), restore_after: Duration::from_secs(300) };

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn governor() -> Governor {
    Governor::new(POLICY)
}

const fn verdict(action: Option<Action>, next: Next) -> Verdict {
    Verdict { action, next }
}

const NOTHING: Verdict = verdict(None, Next::Later);
const AGAIN: Verdict = verdict(None, Next::Now);

const fn shed(signal: Optional) -> Verdict {
    verdict(Some(Action::Shed(signal)), Next::Now)
}

const fn restore(signal: Optional) -> Verdict {
    verdict(Some(Action::Restore(signal)), Next::Now)
}

/// What is shed costs nothing.
fn costs(governor: &Governor, of_each: [f64; 4]) -> Costs {
    let mut costs = of_each.map(Some);
    for signal in Optional::ALL {
        if governor.is_shed(signal) {
            costs[signal as usize] = None;
        }
    }
    costs
}

#[test]
fn within_the_budget_nothing_happens() {
    let mut governor = governor();
    for second in 0..100 {
        assert_eq!(governor.sample(at(60 * second), &[Some(0.005); 4]), NOTHING);
        assert_eq!(governor.sample(at(60 * second + 30), &[None; 4]), NOTHING);
    }
}

#[test]
fn one_sample_above_is_no_reason() {
    let mut governor = governor();
    assert_eq!(governor.sample(at(0), &[Some(0.5), None, None, None]), AGAIN);
    assert_eq!(governor.sample(at(1), &[Some(0.01), None, None, None]), NOTHING);
    assert_eq!(governor.sample(at(61), &[Some(0.5), None, None, None]), AGAIN, "the first one is forgotten");
}

#[test]
fn signals_go_in_order_until_it_is_enough() {
    let mut governor = governor();
    let load = [0.03, 0.03, 0.03, 0.004];
    let mut now = 0;
    let mut next = |governor: &mut Governor| {
        now += 1;
        let costs = costs(governor, load);
        governor.sample(at(now), &costs)
    };
    for signal in [Optional::Io, Optional::Block, Optional::Scheduler] {
        assert_eq!(next(&mut governor), AGAIN);
        assert_eq!(next(&mut governor), shed(signal));
    }
    assert_eq!(next(&mut governor), NOTHING, "TCP alone is within it");
    assert!(governor.is_shed(Optional::Io) && !governor.is_shed(Optional::Tcp));
}

#[test]
fn what_hardly_costs_anything_stays() {
    let mut governor = governor();
    let load = [Some(0.0001), None, Some(0.05), Some(0.001)];
    assert_eq!(governor.sample(at(0), &load), AGAIN);
    assert_eq!(governor.sample(at(1), &load), shed(Optional::Scheduler));
    // Where many small ones are too much together, the largest goes.
    let mut governor = Governor::new(Policy { budget: 0.0, ..POLICY });
    let load = [Some(0.0), Some(0.002), Some(0.001), None];
    assert_eq!(governor.sample(at(0), &load), AGAIN);
    assert!(matches!(governor.sample(at(1), &load).action, Some(Action::Shed(_))));
}

#[test]
fn where_nothing_is_left_it_waits() {
    let mut governor = Governor::new(Policy { budget: 0.02, ..POLICY });
    let load = [None, None, None, Some(0.5)];
    assert_eq!(governor.sample(at(0), &load), AGAIN);
    assert_eq!(governor.sample(at(1), &load), shed(Optional::Tcp));
    // Measured for a moment longer, or by somebody else: it cannot be shed twice.
    assert_eq!(governor.sample(at(2), &load), AGAIN);
    assert_eq!(governor.sample(at(3), &load), NOTHING);
}

/// The load ended: the last that went comes back first, one by one, each looked at.
#[test]
fn signals_come_back_in_reverse_order() {
    let mut governor = governor();
    for (second, signal) in [(0, Optional::Io), (2, Optional::Block)] {
        let load = costs(&governor, [0.03, 0.03, 0.001, 0.001]);
        assert_eq!(governor.sample(at(second), &load), AGAIN);
        assert_eq!(governor.sample(at(second + 1), &load), shed(signal));
    }
    let mut quiet = |now| {
        let load = costs(&governor, [0.001; 4]);
        governor.sample(at(now), &load)
    };
    assert_eq!(quiet(60), NOTHING);
    assert_eq!(quiet(300), NOTHING, "io went at 1, block at 3");
    assert_eq!(quiet(303), restore(Optional::Block));
    assert_eq!(quiet(304), restore(Optional::Io));
    assert_eq!(quiet(305), NOTHING);
}

/// Between four fifths of the budget and all of it nothing goes and nothing comes.
#[test]
fn there_is_room_between_going_and_coming_back() {
    let mut governor = governor();
    assert_eq!(governor.sample(at(0), &[Some(0.03), None, Some(0.018), None]), AGAIN);
    assert_eq!(governor.sample(at(1), &[Some(0.03), None, Some(0.018), None]), shed(Optional::Io));
    for second in 0..100 {
        assert_eq!(governor.sample(at(400 + second), &[None, None, Some(0.018), None]), NOTHING);
    }
    assert_eq!(governor.sample(at(500), &[None, None, Some(0.015), None]), restore(Optional::Io));
}

/// A load that goes on: each time it is away for twice as long, and back for one sample only.
#[test]
fn what_is_too_much_again_goes_at_once_and_for_longer() {
    let mut governor = governor();
    let mut now = 0;
    let mut away = Vec::new();
    let mut gone = 0;
    let mut over = 0;
    while now < 40_000 {
        let load = costs(&governor, [0.05, 0.0, 0.001, 0.001]);
        over += u32::from(load.iter().flatten().sum::<f64>() > POLICY.budget);
        let verdict = governor.sample(at(now), &load);
        match verdict.action {
            Some(Action::Shed(Optional::Io)) => gone = now,
            Some(Action::Restore(Optional::Io)) => away.push(now - gone),
            None => {}
            other => panic!("{other:?}"),
        }
        now += if verdict.next == Next::Now { 1 } else { 60 };
    }
    // Rounded up to the next sample.
    for (seconds, least) in away.iter().zip([300, 600, 1200, 2400, 4800, 9600, 9600]) {
        assert!((least..least + 61).contains(seconds), "{away:?}");
    }
    assert!(away.len() >= 6, "{away:?}");
    assert_eq!(over as usize, 2 + away.len(), "two before it goes, and one each time that it is back");
}

#[test]
fn who_stayed_for_long_begins_anew() {
    let mut governor = governor();
    let load = [Some(0.05), None, None, None];
    let (idle, none) = ([Some(0.001), None, None, None], [None; 4]);
    assert_eq!((governor.sample(at(0), &load), governor.sample(at(1), &load)), (AGAIN, shed(Optional::Io)));
    assert_eq!(
        (governor.sample(at(301), &none), governor.sample(at(302), &load)),
        (restore(Optional::Io), shed(Optional::Io))
    );
    assert_eq!(governor.sample(at(901), &none), NOTHING, "twice as long");
    assert_eq!((governor.sample(at(902), &none), governor.sample(at(903), &idle)), (restore(Optional::Io), NOTHING));
    // It stayed for an hour.
    assert_eq!((governor.sample(at(4503), &load), governor.sample(at(4504), &load)), (AGAIN, shed(Optional::Io)));
    assert_eq!(governor.sample(at(4804), &none), restore(Optional::Io));
}

#[test]
fn what_cannot_be_restored_stays_away() {
    let mut governor = governor();
    let load = [None, Some(0.05), None, None];
    assert_eq!((governor.sample(at(0), &load), governor.sample(at(1), &load)), (AGAIN, shed(Optional::Block)));
    assert_eq!(governor.sample(at(301), &[None; 4]), restore(Optional::Block));
    governor.failed(Optional::Block, at(301));
    assert!(governor.is_shed(Optional::Block));
    assert_eq!(governor.sample(at(302), &[None; 4]), NOTHING);
    assert_eq!(governor.sample(at(901), &[None; 4]), restore(Optional::Block));
}
