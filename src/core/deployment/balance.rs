//! Which instances go when there are too many, so that they stay, or become, evenly spread over what GROUP_BY names.
//!
//! Facts (Marathon 1.11, `Constraints.selectInstancesToKill`): one after the other, from the fullest groups of the least even field first; none whose
//! end would leave a field with a difference of more than one between its groups, unless that is less than it was at the beginning. (Here: no more
//! than it was, because otherwise nobody could go where two groups are equally full.) It may find fewer than are asked for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The value that an instance has in each field; one without a value is in a group of its own.
type Values = Vec<Option<String>>;

/// `values`: of each instance that may go, in the order in which they would go otherwise; `others`: of those that stay. Returns the places of up to
/// `count` of the former.
pub(super) fn choose(values: &[Values], others: &[Values], count: usize) -> BTreeSet<usize> {
    let mut together: BTreeMap<&[Option<String>], VecDeque<usize>> = BTreeMap::new();
    values.iter().enumerate().for_each(|(at, values)| together.entry(values).or_default().push_back(at));
    let mut fields: Vec<Field<'_>> = (0..values.first().map_or(0, Vec::len)).map(|field| Field::of(values, others, field)).collect();
    let mut chosen = BTreeSet::new();
    while chosen.len() < count {
        let Some(values) = next(&together, &fields) else { break };
        let Some(at) = together.get_mut(values).and_then(VecDeque::pop_front) else { break };
        if together[values].is_empty() {
            together.remove(values);
        }
        fields.iter_mut().zip(values).for_each(|(field, value)| field.lose(value));
        chosen.insert(at);
    }
    chosen
}

/// What the next one to go has in each field.
fn next<'a>(together: &BTreeMap<&'a [Option<String>], VecDeque<usize>>, fields: &[Field<'_>]) -> Option<&'a [Option<String>]> {
    let mut order: Vec<usize> = (0..fields.len()).collect();
    order.sort_by_key(|field| std::cmp::Reverse(fields[*field].difference()));
    let is_fine = |values: &[Option<String>]| fields.iter().zip(values).all(|(field, value)| field.is_more_even_without(value));
    let first = |from_fullest_of: Option<usize>| {
        let is_wanted = |values: &[Option<String>]| from_fullest_of.is_none_or(|field| fields[field].is_fullest(&values[field]));
        let found = together.iter().filter(|(values, _)| is_wanted(values) && is_fine(values));
        found.min_by_key(|(_, waiting)| waiting.front()).map(|(values, _)| *values)
    };
    let uneven = order.into_iter().filter(|field| fields[*field].difference() > 0);
    uneven.map(Some).chain([None]).find_map(first)
}

/// How many are in each group of one field; a group that has become empty stays one.
struct Field<'a> {
    groups: BTreeMap<&'a Option<String>, u32>,
    /// How many groups there are of each size.
    sizes: BTreeMap<u32, u32>,
    difference_before: u32,
}

impl<'a> Field<'a> {
    fn of(values: &'a [Values], others: &'a [Values], field: usize) -> Self {
        let mut groups: BTreeMap<&Option<String>, u32> = BTreeMap::new();
        values.iter().chain(others).for_each(|values| *groups.entry(&values[field]).or_default() += 1);
        let mut sizes: BTreeMap<u32, u32> = BTreeMap::new();
        groups.values().for_each(|size| *sizes.entry(*size).or_default() += 1);
        let mut field = Self { groups, sizes, difference_before: 0 };
        field.difference_before = field.difference();
        field
    }

    fn smallest(&self) -> u32 {
        self.sizes.first_key_value().map_or(0, |(size, _)| *size)
    }

    fn largest(&self) -> u32 {
        self.sizes.last_key_value().map_or(0, |(size, _)| *size)
    }

    fn difference(&self) -> u32 {
        self.largest() - self.smallest()
    }

    fn size(&self, value: &Option<String>) -> u32 {
        self.groups.get(value).copied().unwrap_or(0)
    }

    fn is_fullest(&self, value: &Option<String>) -> bool {
        self.size(value) == self.largest()
    }

    fn is_more_even_without(&self, value: &Option<String>) -> bool {
        let size = self.size(value);
        let alone = |size: u32| self.sizes.get(&size) == Some(&1);
        let largest = if size == self.largest() && alone(size) {
            // The next smaller size, or its own without one.
            self.sizes.range(..size).next_back().map_or(size - 1, |(next, _)| (*next).max(size - 1))
        } else {
            self.largest()
        };
        let difference = largest - self.smallest().min(size - 1);
        difference <= self.difference_before.max(1)
    }

    fn lose(&mut self, value: &Option<String>) {
        let Some(size) = self.groups.get_mut(value) else { return };
        if let Some(count) = self.sizes.get_mut(size) {
            *count -= 1;
            if *count == 0 {
                self.sizes.remove(size);
            }
        }
        *size -= 1;
        *self.sizes.entry(*size).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Vec<Values> {
        let one = |one: &str| one.split('/').map(|value| (value != "-").then(|| value.to_owned())).collect();
        text.split_whitespace().map(one).collect()
    }

    /// Instances as `value of the first field/value of the second`; how many go; who, by their places.
    fn check(instances: &str, count: usize, expected: &[usize]) {
        check_among(instances, "", count, expected);
    }

    /// The same where `others` stay.
    fn check_among(instances: &str, others: &str, count: usize, expected: &[usize]) {
        assert_eq!(choose(&of(instances), &of(others), count).into_iter().collect::<Vec<_>>(), expected, "{instances} among {others}");
    }

    #[test]
    fn the_fullest_group_loses_first() {
        check("a a b b", 2, &[0, 2]);
        check("a a a a b b", 2, &[0, 1]);
        check("b a a a a b", 3, &[0, 1, 2]);
        check("a a a b", 1, &[0]);
        check("a b c", 2, &[0, 1]);
        check("- - a", 1, &[0]);
        check("a a a b b b c", 2, &[0, 3]);
        check("a", 1, &[0]);
        check("", 1, &[]);
        check("a/x a/y b/x b/y", 2, &[0, 3]);
        check("a/x a/y b/x b/y", 4, &[0, 1, 2, 3]);
    }

    #[test]
    fn those_that_stay_count_in_their_groups() {
        check_among("a b", "b b", 1, &[1]);
        check_among("a b b", "", 1, &[1]);
        check_among("a a b", "a b b b", 2, &[0, 2]);
        check_among("a a", "b", 1, &[0]);
        check_among("a b", "a b", 2, &[0, 1]);
        check_among("a", "", 1, &[0]);
        check_among("", "a b", 1, &[]);
    }

    /// Marathon's test: two racks and two colours, ten of each pair; half of them go.
    #[test]
    fn two_fields_stay_even() {
        let pairs: Vec<&str> = ["1/blue", "1/green", "2/blue", "2/green"].into_iter().flat_map(|pair| [pair; 10]).collect();
        let values = of(&pairs.join(" "));
        let chosen = choose(&values, &[], 20);
        let count = |field: usize, value: &str| chosen.iter().filter(|at| values[**at][field].as_deref() == Some(value)).count();
        assert_eq!((chosen.len(), count(0, "1"), count(0, "2"), count(1, "blue"), count(1, "green")), (20, 10, 10, 10, 10));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn one_field_ends_even_or_as_even_as_can_be(groups in prop::collection::vec(0_usize..6, 1..60), part in 0.0..1.0_f64) {
            let values: Vec<Vec<Option<String>>> = groups.iter().map(|group| vec![Some(group.to_string())]).collect();
            let count = (groups.len() as f64 * part) as usize;
            let chosen = choose(&values, &[], count);
            prop_assert_eq!(chosen.len(), count);
            let mut left: BTreeMap<usize, i64> = BTreeMap::new();
            groups.iter().enumerate().for_each(|(at, group)| *left.entry(*group).or_default() += i64::from(!chosen.contains(&at)));
            // What could be taken away at the top has been: no group that lost one is smaller than another that lost none, by more than one.
            let lost = |group: usize| chosen.iter().any(|at| groups[*at] == group);
            let most = left.values().max().copied().unwrap_or(0);
            for (group, size) in &left {
                prop_assert!(!lost(*group) || most - size <= 1, "{:?} of {:?}", left, groups);
            }
        }
    }
}
