//! Every operator over every kind of field, agreeing and refusing; then what Marathon's own tests (`ConstraintsTest`) say.

use proptest::prelude::*;

use super::*;

/// A node with one fact, written as an administrator writes it.
#[derive(Clone)]
struct Node {
    field: &'static str,
    value: String,
    attributes: Vec<Attribute>,
}

fn node(field: &'static str, value: &str) -> Node {
    let attributes = vec![Attribute { name: "other".into(), text: "x".into() }, Attribute::read(field, value).unwrap()];
    Node { field, value: value.into(), attributes }
}

impl Node {
    fn facts(&self) -> NodeFacts<'_> {
        let is = |field: &str| (self.field == field).then_some(self.value.as_str());
        let host = is("hostname").or(is("@hostname")).unwrap_or("some-host");
        NodeFacts { host, region: is("@region"), zone: is("@zone"), attributes: &self.attributes }
    }
}

fn meets(field: &str, operator: Operator, argument: Option<&str>, placed: &[Node], instances: u32, offered: &Node) -> bool {
    let constraint = Constraint { field: field.into(), operator, value: argument.map(Into::into) };
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for value in placed.iter().filter_map(|node| node.facts().value(field).map(str::to_owned)) {
        *counts.entry(value).or_default() += 1;
    }
    is_satisfied(&constraint, offered.facts().value(field), &counts, instances, &mut Patterns::default())
}

/// What is compared: the field, two ways to write one value of it, how constraints write that, and another value.
const FIELDS: [(&str, [&str; 2], &str, &str); 9] = [
    ("hostname", ["node-1.local", "node-1.local"], "node-1.local", "node-2.local"),
    ("@hostname", ["node-1", "node-1"], "node-1", "node-2"),
    ("@region", ["eu-west", "eu-west"], "eu-west", "eu-east"),
    ("@zone", ["eu-west-a", "eu-west-a"], "eu-west-a", "eu-west-b"),
    ("rack", ["rack-1", "rack-1"], "rack-1", "rack-2"),
    ("jdk", ["1.5", "1.50"], "1.5", "1.6"),
    ("level", ["8", "8.0001"], "8", "9"),
    ("ports", ["[5-7,9-9]", "[9-9, 5-7]"], "[5-7,9-9]", "[5-7]"),
    ("cards", ["{a,b}", "{b, a}"], "{a,b}", "{a,c}"),
];

#[test]
fn every_operator_decides_over_every_kind_of_field() {
    use Operator::*;
    for (field, [one, same], text, other) in FIELDS {
        let (here, same, elsewhere) = (node(field, one), node(field, same), node(field, other));
        let nowhere = node("unlike-any", "x");
        let literal = regex::escape(text);
        let check = |operator, argument: Option<&str>, placed: &[&Node], instances, expected: bool| {
            let placed: Vec<Node> = placed.iter().map(|node| (*node).clone()).collect();
            let found = meets(field, operator, argument, &placed, instances, &here);
            assert_eq!(found, expected, "{field} {operator:?} {argument:?} with {} placed of {instances}", placed.len());
            // What the node does not say is met by UNLIKE alone; a host name it always has.
            if !field.ends_with("hostname") {
                let found = meets(field, operator, argument, &placed, instances, &nowhere);
                assert_eq!(found, operator == Unlike, "{field} {operator:?} {argument:?} on a node without it");
            }
        };
        check(Unique, None, &[], 3, true);
        check(Unique, None, &[&elsewhere], 3, true);
        check(Unique, None, &[&elsewhere, &same], 3, false);

        check(Cluster, None, &[], 3, true);
        check(Cluster, None, &[&same], 3, true);
        check(Cluster, None, &[&elsewhere], 3, false);
        check(Cluster, Some(""), &[&elsewhere], 3, false);
        check(Cluster, Some(text), &[&elsewhere], 3, true);
        check(Cluster, Some("nothing"), &[], 3, false);

        check(Like, Some(&literal), &[], 3, true);
        check(Like, Some(".*"), &[], 3, true);
        check(Like, Some(&format!("x{literal}")), &[], 3, false);
        check(Like, Some(&format!("{literal}x")), &[], 3, false);
        check(Like, Some(&format!("x|{literal}")), &[&same, &same], 3, true);
        check(Like, Some(""), &[], 3, false);

        check(Unlike, Some(&literal), &[], 3, false);
        check(Unlike, Some(&format!("x{literal}")), &[], 3, true);
        check(Unlike, Some(".*"), &[], 3, false);

        check(MaxPer, Some("2"), &[], 9, true);
        check(MaxPer, Some("2"), &[&same], 9, true);
        check(MaxPer, Some("2"), &[&elsewhere, &elsewhere], 9, true);
        check(MaxPer, Some("2"), &[&same, &here], 9, false);
        check(MaxPer, Some("0"), &[], 9, false);
        check(MaxPer, Some("-1"), &[], 9, false);

        check(Is, Some(text), &[], 3, true);
        check(Is, Some(&format!("{text}0")), &[], 3, text == "1.5");
        check(Is, Some("nothing"), &[], 3, false);
        check(Is, None, &[], 3, false);

        // Three expected groups for five: two, two and one.
        check(GroupBy, Some("3"), &[], 5, true);
        check(GroupBy, Some("3"), &[&same], 5, true);
        check(GroupBy, Some("3"), &[&same, &here], 5, false);
        check(GroupBy, Some("3"), &[&elsewhere, &elsewhere], 5, true);
        check(GroupBy, Some("1"), &[&elsewhere], 5, false);
        // As many as are known: the least filled ones take the next.
        check(GroupBy, None, &[], 5, true);
        check(GroupBy, None, &[&same], 5, true);
        check(GroupBy, None, &[&elsewhere], 5, true);
        check(GroupBy, None, &[&elsewhere, &same], 5, true);
        check(GroupBy, None, &[&elsewhere, &same, &here], 5, false);
        check(GroupBy, Some("0"), &[&elsewhere, &same, &here], 5, false);
    }
}

#[test]
fn groups_are_filled_as_in_marathons_tests() {
    let racks = |text: &str| text.split_whitespace().map(|rack| node("rackid", rack)).collect::<Vec<_>>();
    let check = |groups: &str, placed: &str, offered: &str, expected: bool| {
        let found = meets("rackid", Operator::GroupBy, Some(groups), &racks(placed), 5, &node("rackid", offered));
        assert_eq!(found, expected, "{groups}: {placed} + {offered}");
    };
    check("2", "", "r1", true);
    check("2", "r1 r1", "r1", true);
    check("4", "r1", "r1", true);
    check("2", "r1 r1 r1", "r1", false);
    check("4", "r1 r1", "r1", false);
    check("2", "r1", "r2", true);
    check("4", "r1 r1 r2", "r2", false);
    check("2", "r1 r1 r1 r2", "r2", true);
    check("2", "r1 r2", "r3", false);
    check("3", "1.0 2.0", "3", true);
    check("3", "1.0", "1", true);
}

#[test]
fn numbers_are_equal_to_the_nearest_thousandth() {
    let check = |offered: &str, wanted: &str, expected: bool| {
        let found = meets("level", Operator::Is, Some(wanted), &[], 1, &node("level", offered));
        assert_eq!(found, expected, "{offered} IS {wanted}");
    };
    check("1", "1.0", true);
    check("1.0", "1", true);
    check("1.0", "1.0001", true);
    check("1.0", "1.0005", true);
    check("1.0", "1.00051", false);
    check("1.0", "1.001", false);
    check("0.8", "0.80", true);
    check("0.8", "0.8001", true);
    check("rack-1", "rack-1", true);
    check("rack-1", "rack", false);
    check("1.5", ".5", false);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the order of offers: no group is ever two ahead of another that is known, and with as many racks as are expected all find a place.
    #[test]
    fn groups_are_even_whatever_is_offered(racks in 1_u32..6, instances in 1_u32..30, order in prop::collection::vec(0_u32..6, 400)) {
        let constraint = Constraint { field: "rack".into(), operator: Operator::GroupBy, value: Some(racks.to_string()) };
        let open = Constraint { value: None, ..constraint.clone() };
        for constraint in [constraint, open] {
            let mut counts: BTreeMap<String, u32> = BTreeMap::new();
            let offers = order.iter().map(|rack| rack % racks).chain((0..instances).flat_map(|_| 0..racks));
            for rack in offers.map(|rack| format!("r{rack}")) {
                let placed: u32 = counts.values().sum();
                if placed < instances && is_satisfied(&constraint, Some(&rack), &counts, instances, &mut Patterns::default()) {
                    *counts.entry(rack).or_default() += 1;
                }
            }
            prop_assert_eq!(counts.values().sum::<u32>(), instances);
            if constraint.value.is_some() {
                let (least, most) = (instances / racks, instances.div_ceil(racks));
                prop_assert!(counts.values().all(|count| (least..=most).contains(count)), "{:?}", counts);
            }
        }
    }
}
