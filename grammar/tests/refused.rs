//! Rules that cannot be enforced are refused, with the place and what to do.

mod support;

use serde_json::json;
use sterna_grammar::{Error, Grammars, Rule};
use support::tokenizer;

#[test]
fn what_cannot_be_enforced_is_refused_by_its_place() {
    let (tokenizer, vocab_size) = tokenizer(&[]);
    let grammars = Grammars::new(&tokenizer, vocab_size).unwrap();
    let cases = [
        // As a user would meet them.
        (
            json!({"type": "object", "properties": {"a/b": {"not": {"pattern": "x"}}}}),
            "#/properties/a~1b/not/pattern",
            "the negation of pattern",
        ),
        (
            json!({"$defs": {"x": {"uniqueItems": true, "type": "array"}}, "type": "object",
            "properties": {"y": {"$ref": "#/$defs/x"}}}),
            "#/$defs/x/uniqueItems",
            "leave it out",
        ),
        (
            json!({"properties": {"p": {"type": "string", "pattern": "(?=a)b"}}}),
            "#/properties/p/pattern",
            "lookahead",
        ),
        (
            json!({"type": "string", "pattern": r"\bword\b"}),
            "#/pattern",
            r"\b cannot be enforced",
        ),
        (
            json!({"type": "string", "pattern": r"(a)\1"}),
            "#/pattern",
            "write the group again",
        ),
        (
            json!({"type": "string", "pattern": "a$b"}),
            "#",
            "at the ends",
        ),
        (
            json!({"type": "string", "pattern": 3}),
            "#/pattern",
            "expected a regular expression",
        ),
        (
            json!({"items": {"type": "string", "format": "regex"}}),
            "#/items/format",
            "cannot be enforced",
        ),
        (
            json!({"type": "object", "nullable": true}),
            "#/nullable",
            "add \"null\" to the type",
        ),
        (
            json!({"items": {"x-guidance": {"lenient": true}}}),
            "#/items/x-guidance",
            "x-guidance",
        ),
        (
            json!({"$ref": "https://example.org/s.json"}),
            "#/$ref",
            "copy what it names into $defs",
        ),
        (
            json!({"items": {"$ref": "#/$defs/none"}}),
            "#/items/$ref",
            "names nothing",
        ),
        (
            json!({"type": "string", "minLength": 3, "maxLength": 2}),
            "#",
            "nothing is valid",
        ),
        (
            json!({"type": "string", "minLength": -1}),
            "#/minLength",
            "a whole number",
        ),
        (
            json!({"type": "array", "contains": {"type": "null"}}),
            "#/contains",
            "prefixItems",
        ),
        (json!({"type": "any"}), "#/type", "one of null, boolean"),
        (
            json!({"properties": {"a": {"type": "string", "required": true}}}),
            "#/properties/a/required",
            "list the names",
        ),
        (
            json!({"$schema": "http://json-schema.org/draft-03/schema#"}),
            "#/$schema",
            "old draft",
        ),
        (
            json!({"oneOf": [{"properties": {"a": {"pattern": "x"}}}, {"required": ["b"]}]}),
            "#/oneOf",
            "branches 0 and 1 can both hold",
        ),
        (
            json!({"unevaluatedProperties": false, "allOf": [{"type": "object"}]}),
            "#/unevaluatedProperties",
            "additionalProperties",
        ),
        (
            json!({"type": "integer", "multipleOf": 1e6}),
            "#",
            "at most 10000",
        ),
        (
            json!({"const": 9007199254740993u64}),
            "#/const",
            "below 2^53",
        ),
        (
            json!({"minProperties": 3, "type": "object"}),
            "#/minProperties",
            "at most one more",
        ),
        (
            json!({"patternProperties": {"a": {"type": "null"}, "b": {"type": "string"}}}),
            "#",
            "the same name",
        ),
        (
            json!({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
            "#/$defs/a",
            "no text keeps to it",
        ),
        (json!(false), "#", "nothing is valid"),
        (
            json!({"items": {"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}}),
            "#/items",
            "without 0 cannot be enforced",
        ),
        (
            json!({"type": "number", "minimum": -0.5, "exclusiveMaximum": 0}),
            "#",
            "without 0 cannot be enforced",
        ),
        (
            json!({"$defs": {"a": {"exclusiveMinimum": 1}}, "type": "number",
                "allOf": [{"$ref": "#/$defs/a"}, {"maximum": 1.5}]}),
            "#",
            "without 1 cannot be enforced",
        ),
        (
            json!({"type": "number", "not": {"enum": [2, 2.5]}}),
            "#",
            "without 2 cannot be enforced",
        ),
        (
            json!({"type": "integer", "exclusiveMinimum": 9007199254740992u64}),
            "#/exclusiveMinimum",
            "below 2^53",
        ),
        (
            json!({"const": 9007199254740992u64}),
            "#/const",
            "below 2^53",
        ),
        (
            json!({"$defs": {"a": {"$id": "x:a", "$dynamicAnchor": "t"}}, "$dynamicAnchor": "t",
                "items": {"$dynamicRef": "#t"}}),
            "#/items/$dynamicRef",
            "several ids",
        ),
        (
            json!({"patternProperties": {"\\0": {"type": "null"}, "\\x00": {"type": "string"}}}),
            "#/patternProperties",
            "two patterns are the same",
        ),
        (
            json!({"type": "string", "pattern": "[^+--]"}),
            "#/pattern",
            "-- in a class",
        ),
        (
            json!({"$schema": "http://json-schema.org/draft-07/schema#", "type": "array",
                "contains": {"type": "null"}, "minContains": 0}),
            "#/contains",
            "prefixItems",
        ),
        (
            json!({"type": "number", "allOf": [{"multipleOf": 0.00000001}, {"multipleOf": 50}]}),
            "#",
            "digits after the point",
        ),
        (
            json!({"propertyNames": {"not": {"const": "a".repeat(90)}}}),
            "#/propertyNames/not",
            "expected at most 4000 bytes",
        ),
        (
            json!({"$defs": {"a": {"$id": "x:a"}, "b": {"$id": "x:a"}}}),
            "#/$defs/b",
            "occurs twice",
        ),
        (
            json!({"$defs": {"a": {"$anchor": "x"}, "b": {"$anchor": "x"}}, "$ref": "#x"}),
            "#/$defs/b",
            "the anchor \"x\" occurs twice",
        ),
        (json!(["not a schema"]), "#", "expected a schema"),
    ];
    for (schema, place, word) in cases {
        let error = grammars
            .compile(&Rule::JsonSchema(schema.clone()))
            .unwrap_err();
        let Error::Schema { pointer, why } = &error else {
            panic!("{schema}: {error}");
        };
        assert!(pointer == place && why.contains(word), "{schema}: {error}");
        let has_form = !why.contains("Unimplemented") && !why.ends_with('.');
        assert!(has_form, "{error}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
    for rule in [
        Rule::Regex("a(".into()),
        Rule::Regex("(?=a)b".into()),
        Rule::Lark("start: missing".into()),
        Rule::Lark(String::new()),
    ] {
        let error = grammars.compile(&rule).unwrap_err();
        assert!(matches!(error, Error::Text { .. }), "{rule:?}: {error}");
    }
}
