//! The API as OpenAPI 3.1 describes it.

/// The description, JSON.
pub const OPENAPI: &str = include_str!("openapi.json");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::super::decode::{decode, decode_legacy, methods};
    use super::super::error::ApiError;
    use super::OPENAPI;
    use crate::mesh::durable::LogMethod;

    fn document() -> Value {
        serde_json::from_str(OPENAPI).unwrap()
    }

    fn resolved<'v>(document: &'v Value, schema: &'v Value) -> &'v Value {
        match schema["$ref"].as_str() {
            Some(path) => document.pointer(path.strip_prefix('#').unwrap()).unwrap(),
            None => schema,
        }
    }

    fn properties(schema: &Value) -> BTreeSet<&str> {
        let properties = schema["properties"].as_object().unwrap();
        properties.keys().map(String::as_str).collect()
    }

    fn request(document: &Value, path: &str) -> Value {
        document["paths"][path]["post"]["requestBody"]["content"]["application/json"].clone()
    }

    #[test]
    fn every_method_of_the_decoder_has_a_path_and_every_path_a_method() {
        let document = document();
        let mut known: BTreeSet<String> = methods()
            .iter()
            .map(|method| format!("/api/{}", method.name))
            .collect();
        known.insert("/api".to_owned());
        let of_log = LogMethod::API
            .iter()
            .map(|(path, _)| format!("/api/{path}"));
        known.extend(of_log);
        let paths = document["paths"].as_object().unwrap();
        assert_eq!(paths.keys().cloned().collect::<BTreeSet<_>>(), known);
    }

    #[test]
    fn fields_of_a_request_are_those_that_the_decoder_reads() {
        let document = document();
        for method in methods() {
            let path = format!("/api/{}", method.name);
            let content = request(&document, &path);
            let schema = resolved(&document, &content["schema"]);
            let read: BTreeSet<&str> = method.fields.into_iter().collect();
            assert_eq!(properties(schema), read, "{path}");
        }
        let commands = &document["components"]["schemas"]["Command"];
        let named: BTreeSet<&str> = methods()
            .iter()
            .map(|method| method.name)
            .filter(|name| *name != "batch")
            .collect();
        assert_eq!(properties(commands), named);
    }

    #[test]
    fn every_example_decodes() {
        let document = document();
        for method in methods() {
            let path = format!("/api/{}", method.name);
            let example = request(&document, &path)["example"].to_string();
            let decoded = decode(method.name, example.as_bytes()).unwrap();
            // No method is registered, so the call of one can only be refused.
            let is_rpc = method.name == "rpc" && matches!(decoded, Err(ApiError::NotFound));
            assert!(decoded.is_ok() || is_rpc, "{path}: {decoded:?}");
        }
        let example = request(&document, "/api")["example"].to_string();
        let commands = decode_legacy(example.as_bytes()).unwrap();
        assert!(commands.iter().all(|command| command.request.is_ok()));
    }

    #[test]
    fn every_error_stands_in_the_description() {
        let document = document();
        let codes = &document["components"]["schemas"]["Error"]["properties"]["code"];
        let listed: Vec<u64> = codes["enum"]
            .as_array()
            .unwrap()
            .iter()
            .map(|code| code.as_u64().unwrap())
            .collect();
        let errors: Vec<u64> = ApiError::ALL
            .iter()
            .map(|error| u64::from(error.code()))
            .collect();
        assert_eq!(listed, errors);
        let text = codes["description"].as_str().unwrap();
        for error in ApiError::ALL {
            assert!(text.contains(&format!("{} {}", error.code(), error.message())));
        }
    }

    #[test]
    fn references_lead_somewhere() {
        fn walk(document: &Value, value: &Value) {
            match value {
                Value::Object(map) => {
                    if let Some(path) = map.get("$ref").and_then(Value::as_str) {
                        let at = path.strip_prefix('#').unwrap();
                        assert!(document.pointer(at).is_some(), "{path}");
                    }
                    map.values().for_each(|value| walk(document, value));
                }
                Value::Array(list) => list.iter().for_each(|value| walk(document, value)),
                _ => {}
            }
        }
        let document = document();
        walk(&document, &document);
    }
}
