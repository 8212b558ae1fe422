//! For tests of doors: a whole sample, and each of its members once `null` and once left out.

use serde_json::Value;

use super::Object;

/// One member of a sample.
pub(crate) struct Case {
    /// Which.
    pub(crate) path: String,
    /// The sample in which it is `null`.
    pub(crate) with_null: String,
    /// The sample without it.
    pub(crate) without: String,
}

/// The sample has a value for each known member, so that a new one is not forgotten.
pub(crate) fn covers(sample: &Value, known: &[&str]) {
    let mut has: Vec<&str> = sample
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    let mut known = known.to_vec();
    has.sort_unstable();
    known.sort_unstable();
    assert_eq!(has, known, "the sample has every member");
}

/// Names of the members that an object reads.
pub(crate) fn names<'de, T: Object<'de>>() -> Vec<&'static str> {
    let mut names = Vec::new();
    T::names(&mut names);
    names
}

/// A door reads the same, whether a member is `null` or left out.
pub(crate) fn same(sample: &Value, data: &[&str], read: impl Fn(&str) -> String) {
    for case in cases(sample, data) {
        assert_eq!(read(&case.with_null), read(&case.without), "{}", case.path);
    }
}

/// Every member of a sample at every level; the entries of the members in `data` are left alone, as their names are data.
pub(crate) fn cases(sample: &Value, data: &[&str]) -> Vec<Case> {
    let mut paths = Vec::new();
    walk(sample, "", data, &mut paths);
    let case = |path: String| {
        let (parent, name) = path.rsplit_once('/').expect("a pointer");
        let changed = |value: Option<Value>| {
            let mut whole = sample.clone();
            let object = whole.pointer_mut(parent).and_then(Value::as_object_mut);
            let object = object.expect("an object");
            let name = name.replace("~1", "/").replace("~0", "~");
            match value {
                Some(value) => object.insert(name, value),
                None => object.remove(&name),
            };
            whole.to_string()
        };
        Case {
            with_null: changed(Some(Value::Null)),
            without: changed(None),
            path: path.clone(),
        }
    };
    paths.into_iter().map(case).collect()
}

fn walk(value: &Value, at: &str, data: &[&str], paths: &mut Vec<String>) {
    let name = at.rsplit('/').next().unwrap_or("");
    let is_data = data.contains(&name);
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let path = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                if !is_data {
                    paths.push(path.clone());
                }
                walk(member, &path, data, paths);
            }
        }
        Value::Array(list) => {
            for (index, item) in list.iter().enumerate() {
                walk(item, &format!("{at}/{index}"), data, paths);
            }
        }
        _ => {}
    }
}
