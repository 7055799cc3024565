//! The best ways to choose one option of each group: a knapsack problem with a choice in each class, solved exactly.
//!
//! Bytes and costs add up, so that a sum which another beats or equals in both is of no use, whatever is chosen of further groups. The sums of others are the
//! frontier; it is built group after group (Nemhauser and Ullmann, "Discrete dynamic programming and capital allocation", 1969). Layers of one shape have
//! one size, so that there are few different sums.

/// Points that a frontier has at most: beyond them, of points that differ by less than a 65536th of the range of bytes the cheapest is kept. The choice respects
/// its limit then, too, but another may be better by that little.
const MOST_POINTS: usize = 1 << 16;

/// One way to store the weights of a group.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Choice {
    pub(super) bytes: u64,
    /// What it adds to the loss; below zero where it happens to make good another's error.
    pub(super) cost: f64,
}

/// Sums that no other sum beats, of a choice in each group.
#[derive(Debug, Clone)]
pub(super) struct Frontier {
    /// For each number of groups its points: bytes rise, costs fall.
    points: Vec<Vec<Point>>,
}

#[derive(Debug, Clone, Copy)]
struct Point {
    bytes: u64,
    cost: f64,
    /// Number of the point of one group less.
    before: usize,
    /// What is chosen of the last group.
    choice: usize,
}

/// A choice of each group, and what it amounts to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Selected {
    pub(super) choices: Vec<usize>,
    pub(super) bytes: u64,
    pub(super) cost: f64,
}

impl Frontier {
    /// Of groups that have at least one choice each, all with finite costs.
    pub(super) fn new(groups: &[Vec<Choice>]) -> Self {
        let nothing = Point {
            bytes: 0,
            cost: 0.0,
            before: 0,
            choice: 0,
        };
        let mut points = vec![vec![nothing]];
        for group in groups {
            let last = points.last().expect("one was put in");
            let mut sums = Vec::with_capacity(last.len() * group.len());
            for (before, point) in last.iter().enumerate() {
                for (choice, Choice { bytes, cost }) in group.iter().enumerate() {
                    sums.push(Point {
                        bytes: point.bytes + bytes,
                        cost: point.cost + cost,
                        before,
                        choice,
                    });
                }
            }
            points.push(thinned(without_beaten(sums)));
        }
        Self { points }
    }

    /// The least cost of at most so many bytes; none where every choice has more.
    pub(super) fn cheapest_within(&self, bytes: u64) -> Option<Selected> {
        let last = self.last();
        let end = last.partition_point(|point| point.bytes <= bytes);
        Some(self.selected(end.checked_sub(1)?))
    }

    /// The fewest bytes at no more than this cost; none where every choice costs more.
    pub(super) fn smallest_within(&self, cost: f64) -> Option<Selected> {
        let last = self.last();
        let first = last.partition_point(|point| point.cost > cost);
        (first < last.len()).then(|| self.selected(first))
    }

    /// The fewest bytes.
    pub(super) fn smallest(&self) -> Selected {
        self.selected(0)
    }

    /// The least cost.
    pub(super) fn cheapest(&self) -> Selected {
        self.selected(self.last().len() - 1)
    }

    fn last(&self) -> &[Point] {
        self.points.last().expect("one was put in")
    }

    fn selected(&self, number: usize) -> Selected {
        let Point { bytes, cost, .. } = self.last()[number];
        let mut choices = Vec::with_capacity(self.points.len() - 1);
        let mut number = number;
        for points in self.points[1..].iter().rev() {
            choices.push(points[number].choice);
            number = points[number].before;
        }
        choices.reverse();
        Selected {
            choices,
            bytes,
            cost,
        }
    }
}

/// Those that no other has at most as many bytes and at most the cost of, by bytes.
fn without_beaten(mut points: Vec<Point>) -> Vec<Point> {
    points.sort_by(|a, b| a.bytes.cmp(&b.bytes).then(a.cost.total_cmp(&b.cost)));
    let mut least = f64::INFINITY;
    points.retain(|point| {
        let is_better = point.cost < least;
        least = least.min(point.cost);
        is_better
    });
    points
}

/// At most [`MOST_POINTS`] of them and one, the first and the last among them.
fn thinned(points: Vec<Point>) -> Vec<Point> {
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return points;
    };
    if points.len() <= MOST_POINTS {
        return points;
    }
    let start = first.bytes;
    let width = (last.bytes - start) / MOST_POINTS as u64 + 1;
    let mut kept: Vec<Point> = vec![*first];
    for point in &points[1..] {
        let is_of_the_same =
            |other: &Point| (other.bytes - start) / width == (point.bytes - start) / width;
        // The last of a class is its cheapest.
        if kept.len() > 1 && kept.last().is_some_and(is_of_the_same) {
            kept.pop();
        }
        kept.push(*point);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reproducible numbers in 0..1.
    fn random(state: &mut u64) -> f64 {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*state >> 40) as f64 / (1u64 << 24) as f64
    }

    fn random_groups(state: &mut u64, groups: usize, choices: usize) -> Vec<Vec<Choice>> {
        let choice = |state: &mut u64| Choice {
            bytes: (random(state) * 20.0) as u64,
            // Some are below zero, and some are equal.
            cost: (random(state) * 16.0).floor() / 8.0 - 0.25,
        };
        let mut group = || (0..choices).map(|_| choice(state)).collect();
        (0..groups).map(|_| group()).collect()
    }

    /// Every way to choose: bytes and cost.
    fn every_sum(groups: &[Vec<Choice>]) -> Vec<(u64, f64)> {
        let mut sums = vec![(0, 0.0)];
        for group in groups {
            let with = |&(bytes, cost): &(u64, f64)| {
                let sums = group.iter();
                let sums = sums.map(move |choice| (bytes + choice.bytes, cost + choice.cost));
                sums.collect::<Vec<_>>()
            };
            sums = sums.iter().flat_map(with).collect();
        }
        sums
    }

    fn sum_of(groups: &[Vec<Choice>], selected: &Selected) -> (u64, f64) {
        let chosen = groups.iter().zip(&selected.choices);
        chosen.fold((0, 0.0), |(bytes, cost), (group, choice)| {
            (bytes + group[*choice].bytes, cost + group[*choice].cost)
        })
    }

    #[test]
    fn no_choice_is_better_than_the_one_that_is_found() {
        let mut state = 1;
        for round in 0..60 {
            let (groups, choices) = (1 + round % 6, 1 + round % 4);
            let groups = random_groups(&mut state, groups, choices);
            let every = every_sum(&groups);
            let frontier = Frontier::new(&groups);
            for limit in 0..=120 {
                let within = every.iter().filter(|(bytes, _)| *bytes <= limit);
                let least = within.map(|(_, cost)| *cost).min_by(f64::total_cmp);
                let found = frontier.cheapest_within(limit);
                // Sums of eighths are exact.
                assert_eq!(found.as_ref().map(|found| found.cost), least);
                if let Some(found) = found {
                    assert_eq!(sum_of(&groups, &found), (found.bytes, found.cost));
                    assert!(found.bytes <= limit);
                }
                let limit = limit as f64 / 8.0 - 2.0;
                let within = every.iter().filter(|(_, cost)| *cost <= limit);
                let least = within.map(|(bytes, _)| *bytes).min();
                let found = frontier.smallest_within(limit);
                assert_eq!(found.as_ref().map(|found| found.bytes), least);
                assert!(found.is_none_or(|found| sum_of(&groups, &found).1 <= limit));
            }
            let bytes = every.iter().map(|(bytes, _)| *bytes).min();
            assert_eq!(Some(frontier.smallest().bytes), bytes);
            let cost = every.iter().map(|(_, cost)| *cost).min_by(f64::total_cmp);
            assert_eq!(Some(frontier.cheapest().cost), cost);
        }
    }

    #[test]
    fn a_long_frontier_is_thinned_to_its_ends_and_the_cheapest_between() {
        let points: Vec<Point> = (0..3 * MOST_POINTS)
            .map(|number| Point {
                bytes: number as u64,
                cost: -(number as f64),
                before: 0,
                choice: number,
            })
            .collect();
        let kept = thinned(points.clone());
        assert!(kept.len() <= MOST_POINTS + 1, "{}", kept.len());
        assert_eq!(kept[0].choice, 0);
        assert_eq!(kept.last().unwrap().choice, points.len() - 1);
        // Classes of three: the last of each.
        assert!(kept[1..].iter().all(|point| point.choice % 3 == 2));
        assert!(kept.is_sorted_by_key(|point| point.bytes));
        let short = thinned(points[..MOST_POINTS].to_vec());
        assert_eq!(short.len(), MOST_POINTS);
    }

    #[test]
    fn where_there_is_nothing_to_choose_nothing_is_chosen() {
        let frontier = Frontier::new(&[]);
        assert_eq!(frontier.cheapest_within(0).unwrap().choices, [0; 0]);
    }
}
