use super::*;

fn judged(old: &str, new: &str) -> Result<(), Narrowed> {
    let parse = |text: &str| serde_json::from_str(text).unwrap();
    compare(&parse(old), &parse(new))
}

fn rule(old: &str, new: &str) -> Option<Narrowing> {
    judged(old, new).err().map(|narrowed| narrowed.rule)
}

/// The first may become the second; the second may not become the first, for this reason.
#[track_caller]
fn widens(narrow: &str, wide: &str, reason: Narrowing) {
    assert_eq!(rule(narrow, wide), None, "{narrow} → {wide}");
    assert_eq!(rule(wide, narrow), Some(reason), "{wide} → {narrow}");
}

#[track_caller]
fn both_ways(one: &str, other: &str) {
    assert_eq!(rule(one, other), None, "{one} → {other}");
    assert_eq!(rule(other, one), None, "{other} → {one}");
}

#[track_caller]
fn neither_way(one: &str, other: &str) {
    assert!(rule(one, other).is_some(), "{one} → {other}");
    assert!(rule(other, one).is_some(), "{other} → {one}");
}

#[test]
fn values() {
    use Narrowing::{Nothing, Type, Value};
    widens("false", r#"{"type":"string"}"#, Nothing);
    widens(r#"{"type":"integer"}"#, r#"{"type":"number"}"#, Type);
    widens(
        r#"{"type":"string"}"#,
        r#"{"type":["null","string"]}"#,
        Type,
    );
    widens(r#"{"type":"string"}"#, "{}", Type);
    widens(r#"{"type":"string"}"#, "true", Type);
    widens(r#"{"enum":["a"]}"#, r#"{"enum":["b","a"]}"#, Value);
    widens(r#"{"enum":["a"]}"#, "{}", Value);
    widens(r#"{"const":1}"#, r#"{"enum":[1,2]}"#, Value);
    widens(r#"{"const":1}"#, "{}", Value);
    both_ways(r#"{"const":1}"#, r#"{"enum":[1]}"#);
    neither_way(r#"{"const":1}"#, r#"{"const":2}"#);
}

#[test]
fn bounds() {
    use Narrowing::{Bound, Rule};
    for (narrow, wide) in [
        (r#"{"minimum":2}"#, r#"{"minimum":1}"#),
        (r#"{"minimum":2}"#, "{}"),
        (r#"{"maximum":1}"#, r#"{"maximum":1.5}"#),
        (r#"{"exclusiveMinimum":1}"#, r#"{"minimum":1}"#),
        (r#"{"exclusiveMaximum":1}"#, r#"{"maximum":1}"#),
        (
            r#"{"maximum":18446744073709551614}"#,
            r#"{"maximum":18446744073709551615}"#,
        ),
        (r#"{"minLength":2}"#, r#"{"minLength":1}"#),
        (r#"{"maxLength":1}"#, r#"{"maxLength":2}"#),
        (r#"{"minItems":1}"#, r#"{"minItems":0}"#),
        (r#"{"maxItems":1}"#, "{}"),
        (r#"{"minProperties":2}"#, r#"{"minProperties":1}"#),
        (r#"{"maxProperties":1}"#, r#"{"maxProperties":2}"#),
        (r#"{"multipleOf":6}"#, r#"{"multipleOf":3}"#),
        (r#"{"multipleOf":0.5}"#, "{}"),
    ] {
        widens(narrow, wide, Bound);
    }
    both_ways("{}", r#"{"minLength":0}"#);
    let shut = r#"{"minimum":1,"exclusiveMinimum":true}"#;
    neither_way(shut, r#"{"minimum":0,"exclusiveMinimum":true}"#);
    widens(r#"{"uniqueItems":true}"#, r#"{"uniqueItems":false}"#, Rule);
    widens(r#"{"pattern":"^a"}"#, "{}", Rule);
    neither_way(r#"{"pattern":"^a"}"#, r#"{"pattern":"^b"}"#);
    widens(r#"{"format":"date"}"#, "{}", Rule);
    neither_way(r#"{"format":"date"}"#, r#"{"format":"time"}"#);
}

#[test]
fn properties() {
    use Narrowing::{Nothing, Property, Required, Type};
    widens(
        r#"{"required":["a","b"]}"#,
        r#"{"required":["a"]}"#,
        Required,
    );
    widens(r#"{"required":["a"]}"#, "{}", Required);
    let needs = |names: &str| format!(r#"{{"dependentRequired":{{"a":[{names}]}}}}"#);
    widens(&needs(r#""b","c""#), &needs(r#""b""#), Required);
    widens(
        r#"{"properties":{"a":{"type":"string"}}}"#,
        r#"{"properties":{"a":{}}}"#,
        Type,
    );
    // A property that nobody spoke of could hold anything.
    widens(r#"{"properties":{"a":{"type":"string"}}}"#, "{}", Property);
    both_ways("{}", r#"{"properties":{"a":{"title":"A"}}}"#);
    widens(r#"{"additionalProperties":false}"#, "{}", Nothing);
    let closed = r#"{"additionalProperties":false,"properties":{"a":{}}}"#;
    let more = r#"{"additionalProperties":false,"properties":{"a":{},"b":{"type":"string"}}}"#;
    widens(closed, more, Nothing);
    widens(
        r#"{"additionalProperties":{"type":"integer"}}"#,
        r#"{"additionalProperties":{"type":"number"},"properties":{"a":{"type":"integer"}}}"#,
        Type,
    );
    assert!(rule(
        r#"{"patternProperties":{"^a":{"type":"number"}},"additionalProperties":{"type":"string"}}"#,
        r#"{"patternProperties":{"^a":{"type":"number"}},"additionalProperties":{"type":"string"},"properties":{"ab":{"type":"string"}}}"#,
    ).is_some());
    widens(
        r#"{"patternProperties":{"^a":{"type":"string"}}}"#,
        "{}",
        Type,
    );
    assert!(
        rule(
            r#"{"patternProperties":{"^a":{}},"additionalProperties":false}"#,
            r#"{"additionalProperties":false}"#,
        )
        .is_some()
    );
    widens(
        r#"{"propertyNames":{"maxLength":2}}"#,
        r#"{"propertyNames":{"maxLength":3}}"#,
        Narrowing::Bound,
    );
    widens(
        r#"{"dependentSchemas":{"a":{"required":["b"]}}}"#,
        "{}",
        Required,
    );
}

#[test]
fn items() {
    use Narrowing::{Bound, Nothing, Rule, Type};
    widens(
        r#"{"items":{"type":"integer"}}"#,
        r#"{"items":{"type":"number"}}"#,
        Type,
    );
    widens(r#"{"items":{"type":"integer"}}"#, "{}", Type);
    widens(
        r#"{"prefixItems":[{"const":1}]}"#,
        r#"{"prefixItems":[{}]}"#,
        Narrowing::Value,
    );
    widens(
        r#"{"prefixItems":[{}],"items":false}"#,
        r#"{"prefixItems":[{},{"type":"string"}],"items":false}"#,
        Nothing,
    );
    assert!(
        rule(
            r#"{"prefixItems":[{}]}"#,
            r#"{"prefixItems":[{},{"type":"string"}]}"#
        )
        .is_some()
    );
    widens(
        r#"{"items":[{"type":"string"}],"additionalItems":false}"#,
        r#"{"items":[{"type":"string"}]}"#,
        Nothing,
    );
    widens(
        r#"{"contains":{"type":"integer"}}"#,
        r#"{"contains":{"type":"number"}}"#,
        Type,
    );
    widens(
        r#"{"contains":{}}"#,
        r#"{"contains":{},"minContains":0}"#,
        Bound,
    );
    widens(r#"{"contains":{}}"#, "{}", Rule);
    let at_most = |of: &str| format!(r#"{{"contains":{{"type":"{of}"}},"maxContains":1}}"#);
    neither_way(&at_most("integer"), &at_most("number"));
}

#[test]
fn branches() {
    use Narrowing::{Branch, Type, Value};
    widens(r#"{"allOf":[{"type":"string"}]}"#, "{}", Type);
    both_ways(
        r#"{"allOf":[{"minLength":1},{"maxLength":3}]}"#,
        r#"{"allOf":[{"maxLength":3},{"minLength":1}]}"#,
    );
    assert_eq!(
        rule(r#"{"type":"string"}"#, r#"{"allOf":[{"type":"string"}]}"#),
        None
    );
    let strings = r#"{"anyOf":[{"type":"string"}]}"#;
    widens(
        strings,
        r#"{"anyOf":[{"type":"null"},{"type":"string"}]}"#,
        Branch,
    );
    assert_eq!(
        rule(
            r#"{"type":"string"}"#,
            r#"{"anyOf":[{"type":"null"},{"type":"string"}]}"#
        ),
        None
    );
    widens(
        r#"{"anyOf":[{"enum":[1]}]}"#,
        r#"{"anyOf":[{"enum":[1,2]}]}"#,
        Value,
    );
    // What two branches accept, `oneOf` refuses: they may grow only while they are apart.
    neither_way(
        r#"{"oneOf":[{"minimum":3},{"maximum":1}]}"#,
        r#"{"oneOf":[{"minimum":2},{"maximum":1}]}"#,
    );
    let kinds = |more: &str| {
        format!(
            r#"{{"oneOf":[{{"type":"object","required":["k"],"properties":{{"k":{{"const":"a"}}}}}}{more}]}}"#
        )
    };
    let second = r#",{"type":"object","required":["k"],"properties":{"k":{"const":"b"}}}"#;
    assert_eq!(rule(&kinds(""), &kinds(second)), None);
    assert!(rule(&kinds(second), &kinds("")).is_some());
    assert!(rule(&kinds(""), &kinds(r#",{"type":"object"}"#)).is_some());
    assert_eq!(rule(r#"{"oneOf":[{"type":"string"}]}"#, strings), None);
}

#[test]
fn what_cannot_be_judged_may_not_change() {
    widens(r#"{"not":{"type":"string"}}"#, "{}", Narrowing::Unknown);
    neither_way(
        r#"{"not":{"type":"integer"}}"#,
        r#"{"not":{"type":"number"}}"#,
    );
    let when = |then: &str| format!(r#"{{"if":{{"minimum":1}},"then":{{"maximum":{then}}}}}"#);
    neither_way(&when("2"), &when("3"));
    neither_way(r#"{"strange":1}"#, r#"{"strange":2}"#);
    neither_way(
        r#"{"$schema":"http://json-schema.org/draft-07/schema#"}"#,
        r#"{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"string"}"#,
    );
    let closed = |more: &str| {
        format!(r#"{{"properties":{{"a":{{}}{more}}},"unevaluatedProperties":false}}"#)
    };
    neither_way(&closed(""), &closed(r#","b":{}"#));
    assert_eq!(rule(&closed(""), "{}"), None);
}

#[test]
fn notes_may_change_but_a_property_is_no_note() {
    both_ways(
        r#"{"title":"a","type":"string","$id":"https://schemas.example/1"}"#,
        r#"{"description":"b","default":1,"examples":[],"deprecated":true,"x-order":1,"type":"string"}"#,
    );
    both_ways(
        r#"{"not":{"title":"a","type":"string"}}"#,
        r#"{"not":{"type":"string"}}"#,
    );
    let named = |of: &str| format!(r#"{{"not":{{"properties":{{"title":{{"type":"{of}"}}}}}}}}"#);
    neither_way(&named("string"), &named("number"));
}

#[test]
fn references_are_judged_by_what_they_lead_to() {
    let list = |of: &str, more: &str| {
        format!(r##"{{"$defs":{{"a":{{"type":"{of}"}}}},"items":{{"$ref":"#/$defs/a"}}{more}}}"##)
    };
    widens(&list("integer", ""), &list("number", ""), Narrowing::Type);
    let not = r##","not":{"contains":{"$ref":"#/$defs/a"}}"##;
    neither_way(&list("integer", not), &list("number", not));
    neither_way(
        r##"{"$defs":{"a":{},"b":{}},"$ref":"#/$defs/a"}"##,
        r##"{"$defs":{"a":{},"b":{}},"$ref":"#/$defs/b"}"##,
    );
    let tree =
        |of: &str| format!(r##"{{"properties":{{"v":{{"type":"{of}"}},"next":{{"$ref":"#"}}}}}}"##);
    widens(&tree("integer"), &tree("number"), Narrowing::Type);
    let by_index =
        |of: &str| format!(r##"{{"anyOf":[{{"type":"{of}"}}],"items":{{"$ref":"#/anyOf/0"}}}}"##);
    neither_way(&by_index("integer"), &by_index("number"));
}

#[test]
fn pointer_names_the_place_in_the_new_text() {
    let pointer = |old: &str, new: &str| judged(old, new).err().map(|narrowed| narrowed.pointer);
    let deep = |most: u32| {
        format!(
            r#"{{"properties":{{"a/b":{{"items":{{"anyOf":[{{}},{{"maxLength":{most}}}]}}}}}}}}"#
        )
    };
    assert_eq!(
        pointer(&deep(2), &deep(1)),
        None,
        "another branch accepts everything"
    );
    let deep = |most: u32| {
        format!(r#"{{"properties":{{"a/b":{{"items":{{"anyOf":[{{"maxLength":{most}}}]}}}}}}}}"#)
    };
    let found = pointer(&deep(2), &deep(1));
    assert_eq!(
        found.as_deref(),
        Some("/properties/a~1b/items/anyOf/0/maxLength")
    );
}

#[test]
fn comparison_ends_whatever_the_branches() {
    let nested = |depth: usize, last: u32| {
        let mut text = format!(r#"{{"maximum":{last}}}"#);
        for _ in 0..depth {
            text = format!(r#"{{"anyOf":[{}]}}"#, vec![text; 4].join(","));
        }
        text
    };
    let rule = rule(&nested(6, 2), &nested(6, 1));
    assert!(rule.is_some());
}

const SAMPLES: [&str; 14] = [
    "{}",
    "false",
    r#"{"type":"integer"}"#,
    r#"{"type":["number","object"]}"#,
    r#"{"minimum":2}"#,
    r#"{"exclusiveMinimum":2,"maximum":9}"#,
    r#"{"enum":[1,2,"a"]}"#,
    r#"{"const":2}"#,
    r#"{"properties":{"a":{"type":"integer"}},"additionalProperties":false}"#,
    r#"{"properties":{"a":{"type":"number"}},"required":["a"]}"#,
    r#"{"patternProperties":{"^a":{"minimum":2}},"additionalProperties":{"type":"string"}}"#,
    r#"{"oneOf":[{"type":"integer"},{"minimum":5}]}"#,
    r#"{"anyOf":[{"type":"integer"},{"minProperties":1}]}"#,
    r#"{"not":{"required":["b"]}}"#,
];

const PAYLOADS: [&str; 14] = [
    "1",
    "2",
    "2.5",
    "9",
    "12",
    "null",
    r#""a""#,
    "{}",
    r#"{"a":1}"#,
    r#"{"a":2.5}"#,
    r#"{"a":"x"}"#,
    r#"{"b":"x"}"#,
    r#"{"ab":3,"b":1}"#,
    "[1,2]",
];

fn nests(a: &str, b: &str) -> [String; 8] {
    [
        a.to_owned(),
        format!(r#"{{"allOf":[{a},{b}]}}"#),
        format!(r#"{{"anyOf":[{a},{b}]}}"#),
        format!(r#"{{"oneOf":[{a},{b}]}}"#),
        format!(r#"{{"properties":{{"a":{a}}},"additionalProperties":{b}}}"#),
        format!(r#"{{"patternProperties":{{"^a":{a}}},"additionalProperties":{b}}}"#),
        format!(r#"{{"prefixItems":[{a}],"items":{b}}}"#),
        format!(r#"{{"if":{a},"then":{b}}}"#),
    ]
}

proptest::proptest! {
    /// The validator is the judge of the judge: what may change loses no payload.
    #[test]
    fn compatible_change_loses_no_payload(
        picks in proptest::array::uniform4(0..SAMPLES.len()), shapes in proptest::array::uniform2(0..8usize),
    ) {
        let [a, b, c, d] = picks.map(|pick| SAMPLES[pick]);
        let (old, new) = (&nests(a, b)[shapes[0]], &nests(c, d)[shapes[1]]);
        if judged(old, new).is_ok() {
            let validator = |text: &str| {
                jsonschema::validator_for(&serde_json::from_str(text).unwrap()).unwrap()
            };
            let (before, now) = (validator(old), validator(new));
            for payload in PAYLOADS {
                let payload = serde_json::from_str(payload).unwrap();
                proptest::prop_assert!(!before.is_valid(&payload) || now.is_valid(&payload),
                    "{} → {} loses {}", old, new, payload);
            }
        }
    }
}
