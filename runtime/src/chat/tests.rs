//! Templates in the manner of the published families against the text that transformers renders
//! from them (templates/expected.json, transformers 5.23), and templates that mean harm.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::*;

fn parse(source: &str) -> Result<ChatTemplate> {
    let settings = json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}});
    ChatTemplate::parse(TEMPLATE, source, &settings)
}

fn conversation() -> Vec<Message> {
    vec![
        Message::new("system", "You are brief. "),
        Message::new("user", " where's the \"tern\"? {{ x }}\n"),
        Message::new("assistant", "<think>\nhm\n</think>\n\nSouth.\n"),
        Message::new("user", "Näive <b>&amp;"),
    ]
}

#[test]
fn templates_of_the_families_give_the_text_of_transformers() {
    let expected: Value = serde_json::from_str(include_str!("templates/expected.json")).unwrap();
    let messages = conversation();
    for (name, source) in [
        ("llama3", include_str!("templates/llama3.jinja")),
        ("bitnet", include_str!("templates/bitnet.jinja")),
        ("falcon3", include_str!("templates/falcon3.jinja")),
        ("qwen3", include_str!("templates/qwen3.jinja")),
        ("features", include_str!("templates/features.jinja")),
    ] {
        let template = parse(source).unwrap();
        let prompt = template.render(&messages, true).unwrap();
        assert_eq!(prompt, expected[format!("{name}.prompt")], "{name}");
        let whole = template.render(&messages[1..3], false).unwrap();
        assert_eq!(whole, expected[format!("{name}.whole")], "{name}");
    }
}

#[test]
fn any_key_of_messages_and_any_variable_reaches_the_template() {
    let source = "{{ bos_token }}{% if tools %}{{ tools | tojson }}\n{% endif %}\
        {% for m in messages %}{{ m.role }}:{% if m.content %}{{ m.content }}{% endif %}\
        {% if m.name is defined %} by {{ m.name }}{% endif %}\
        {% for c in m.tool_calls or [] %}<call>{{ c.function.arguments | tojson }}</call>\
        {% endfor %}{{ eos_token }}{% endfor %}{% if style is defined %}{{ style }}{% endif %}";
    let arguments = json!({"z": 1.0, "a": null, "deep": [true, "é"]});
    let variables = json!({
        "messages": [
            {"role": "user", "content": "Tide?", "name": "Ann"},
            {"role": "assistant", "content": null,
                "tool_calls": [{"function": {"name": "tide", "arguments": arguments}}]},
        ],
        "tools": [{"type": "function",
            "function": {"name": "tide", "parameters": {"properties": {"z": {}, "a": {}}}}}],
        "style": "brief",
    });
    let template = parse(source).unwrap();
    let text = template.render_with(variables.as_object().unwrap(), false);
    // By transformers 5.24.
    let expected = "<s>[{\"type\": \"function\", \"function\": {\"name\": \"tide\", \
        \"parameters\": {\"properties\": {\"z\": {}, \"a\": {}}}}}]\n\
        user:Tide? by Ann</s>assistant:<call>{\"z\": 1.0, \"a\": null, \"deep\": \
        [true, \"é\"]}</call></s>brief";
    assert_eq!(text.unwrap(), expected);
    assert!(template.names("tool_calls") && template.names("style"));
    assert!(!template.names("tool") && !template.names("thinking"));
}

#[test]
fn integers_beyond_64_bits_keep_their_digits() {
    let template = parse("{{ n | tojson }} {{ n + 1 }} {{ n is integer }}").unwrap();
    let render = |digits: &str| {
        let variables = json!({"n": {sterna_ternary::json::LARGE_INTEGER: digits}});
        template.render_with(variables.as_object().unwrap(), false)
    };
    assert_eq!(
        render("1180591620717411303424").unwrap(),
        "1180591620717411303424 1180591620717411303425 True"
    );
    let message = render(&"9".repeat(40)).unwrap_err().to_string();
    assert!(message.contains("more than 128 bits"), "{message}");
}

#[test]
fn every_rendering_of_a_template_has_limits_of_its_own() {
    let template = parse("{{ 'ab' * n }}").unwrap();
    let render = |n: usize| {
        let variables = json!({ "n": n });
        let text = template.render_with(variables.as_object().unwrap(), false);
        text.map(|text| text.len()).map_err(|e| e.to_string())
    };
    for n in [1_500_000, 1_400_000, 1, 1_500_000] {
        assert_eq!(render(n), Ok(2 * n));
    }
    assert!(render(2_500_000).unwrap_err().contains("4 MiB"));
    std::thread::scope(|scope| {
        let render = &render;
        let all = [1_500_000, 2, 1_200_000].map(|n| scope.spawn(move || (n, render(n))));
        for (n, length) in all.map(|one| one.join().unwrap()) {
            assert_eq!(length, Ok(2 * n));
        }
    });
}

#[test]
fn line_ends_of_a_template_are_of_one_kind() {
    let template = parse("a\r\n{% if true %}\r\n{{ 'b\r\nc' }}\r{% endif %}\rd").unwrap();
    // By transformers 5.24.
    assert_eq!(template.render(&[], false).unwrap(), "a\nb\nc\nd");
}

#[test]
fn what_a_model_thought_has_both_names_that_templates_know() {
    let source = "{% for m in messages %}{{ m | tojson }}{% endfor %}";
    let check = |message: Value, expected: &str| {
        let variables = json!({"messages": [message]});
        let text = parse(source).unwrap();
        let text = text.render_with(variables.as_object().unwrap(), false);
        assert_eq!(text.unwrap(), expected);
    };
    // By transformers 5.24.
    check(
        json!({"role": "a", "content": null, "reasoning": "why"}),
        r#"{"thinking": "why", "role": "a", "reasoning": "why", "reasoning_content": "why"}"#,
    );
    check(
        json!({"role": "a", "reasoning_content": "x", "thinking": "y"}),
        r#"{"thinking": "y", "role": "a", "reasoning_content": "x"}"#,
    );
    let names = |source: &str| parse(source).unwrap().names("reasoning");
    assert!(names("{{ messages[0].thinking }}") && names("{{ messages[0].reasoning_content }}"));
    assert!(!names("{{ messages[0].reasoning }}"));
}

#[test]
fn the_text_after_an_answer_is_that_of_the_template() {
    let after = |source: &str| parse(source).unwrap().after_answer();
    let last = "{% for m in messages %}[{{ m.role }}]{{ m.content }}\
        {% if loop.last %}<|return|>{% else %}<|end|>{% endif %}{% endfor %}";
    assert_eq!(
        after(last).unwrap(),
        ["<|return|>", "<|end|>[user]Thank you.<|return|>"]
    );
    let dropped = after("{{ messages[0].content }}").unwrap_err().to_string();
    assert!(
        dropped.contains("drops the message of the assistant"),
        "{dropped}"
    );
}

/// The text of a template with these values, as [`ChatTemplate::rendered`] computes it.
fn computed(source: &str, values: &Value) -> std::result::Result<String, String> {
    let source = guard::guard(source)?;
    let environment = environment(&Arc::new(RenderUsage::new(&source)));
    let template = environment.template_from_str(&source);
    let rendered =
        template.and_then(|t| t.render(minijinja::Value::from(minijinja::value::Serde(values))));
    rendered.map_err(|e| describe(&e))
}

#[test]
fn everything_that_jinja2_allows_gives_its_text() {
    let table: Value = serde_json::from_str(include_str!("templates/jinja2.json")).unwrap();
    let values = &table["context"];
    let mut wrong = Vec::new();
    for row in table["rendered"].as_array().unwrap() {
        let (source, expected) = (row[0].as_str().unwrap(), row[1].as_str().unwrap());
        let found = computed(source, values);
        if found.as_deref() != Ok(expected) {
            wrong.push(format!(
                "{source}\n  expected {expected:?}\n  found    {found:?}"
            ));
        }
    }
    for source in table["refused"].as_array().unwrap() {
        let source = source.as_str().unwrap();
        if let Ok(text) = computed(source, values) {
            wrong.push(format!(
                "{source}\n  expected an error\n  found    {text:?}"
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// The error of a template that must be refused, at once.
fn refused(source: &str) -> String {
    let start = Instant::now();
    let result = parse(source).and_then(|t| t.render(&conversation(), true));
    let length = source.len().min(60);
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{}",
        &source[..length]
    );
    result.expect_err(&source[..length]).to_string()
}

#[test]
fn errors_say_what_is_wrong_and_where() {
    let check = |source: &str, expected: &[&str]| {
        let message = refused(source);
        let all = expected.iter().all(|part| message.contains(part));
        assert!(all && message.contains(TEMPLATE), "{message}");
    };
    check(
        "a\n{{ raise_exception('roles must alternate') }}",
        &["roles must alternate", ":2"],
    );
    check("{% for m in %}", &["in"]);
    check("{{ messages[0].nothing.deeper }}", &["undefined"]);
    check("{{ open('/etc/passwd') }}", &["open"]);
    check("{% include '/etc/passwd' %}", &["/etc/passwd"]);
    check(
        "{{ 'a'.__class__ }}{{ ''.__class__.mro() }}",
        &["undefined"],
    );
    check("{{ strftime_now('%Q') }}", &["%Q"]);
    check("{{ messages | tojson(indent=1000000000) }}", &["4 MiB"]);
    check("a\n  {{ 1 +* 2 }}", &["line 2, column 9", "found `*`"]);
    check("{{ '%d' % 'a' }}", &["a number is required, not str"]);
    check(
        "{{ none | length }}",
        &["filter `length`", "'NoneType' has no len()"],
    );
    check(
        "{{ messages[0].content.index('zz') }}",
        &["`index`", "substring not found"],
    );
}

#[test]
fn hostile_templates_end() {
    let check = |source: &str, expected: &str| {
        let message = refused(source);
        assert!(message.contains(expected), "{message}");
    };
    let large = "4 MiB";
    let loops = "{% for i in range(100000) %}";
    let ends = "{% endfor %}";
    check(&format!("{}{}", loops.repeat(3), ends.repeat(3)), "");
    check(&format!("{loops}{}{ends}", "long text ".repeat(1000)), "");
    check(
        &format!(
            "{{% set x %}}{loops}{}{ends}{{% endset %}}",
            "a".repeat(10_000)
        ),
        "",
    );
    // Doubling, forty times: with each way to bind a name.
    check(
        &format!("{{% set x = 'ab' %}}{}", "{% set x = x + x %}".repeat(40)),
        large,
    );
    check(
        &format!("{{% set x = 'ab' %}}{}", "{% set x = x ~ x %}".repeat(40)),
        large,
    );
    let capture = "{% set x %}{{ x }}{{ x }}{% endset %}".repeat(40);
    check(&format!("{{% set x = 'ab' %}}{capture}"), large);
    let nested = "{% for x in [x + x] %}".repeat(40);
    check(
        &format!("{{% set x = 'ab' %}}{nested}{}", ends.repeat(40)),
        large,
    );
    let namespace = "{% set n.x = n.x + n.x %}".repeat(40);
    check(
        &format!("{{% set n = namespace(x='ab') %}}{namespace}"),
        large,
    );
    let lists = "{% set x = [x, x] %}".repeat(40);
    check(&format!("{{% set x = 'ab' %}}{lists}{{{{ x }}}}"), large);
    check(
        "{% macro m(x) %}{{ m(x + x) }}{% endmacro %}{{ m('ab') }}",
        "",
    );
    check(
        "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
        "recursion",
    );
    let replace = "{% set x = x | replace('a', x) %}{% set x = x.replace('b', x) %}".repeat(9);
    check(&format!("{{% set x = 'aabb' %}}{replace}"), large);
    let join = "{% set x = x.join([x, x, x]) %}".repeat(30);
    check(&format!("{{% set x = 'aabb' %}}{join}"), large);
    check("{{ 'a\nb' | indent(1000000000) }}", large);
    // Ways to make much from little.
    for expression in [
        "'a' * 1000000000",
        "[0] * 1000000000",
        "10 ** 1000000",
        "'%1000000000d' % 1",
        "'%.1000000000f' % 1.5",
        "'%*d' % (1000000000, 1)",
        "'%1000000000d' | format(1)",
        "'{:1000000000}'.format(1)",
        "'{:{}}'.format(1, 1000000000)",
        "'{:.1000000000f}'.format(1.5)",
        "'a'.ljust(1000000000)",
        "'a'.center(1000000000)",
        "'a'.zfill(1000000000)",
        "'\t'.expandtabs(1000000000)",
        "'a' | center(1000000000)",
        "[1] | batch(1000000000, 'x') | list",
        "[1] | slice(1000000000) | list",
        "messages | tojson(indent=1000000000)",
        "strftime_now('%1000000000d')",
        "range(99999) | list | join('long text long text long text long text long')",
    ] {
        refused(&format!("{{{{ {expression} }}}}"));
    }
    // Large values beside one another in one tag, and slow work on them.
    let megabyte = "{% set s = 'abcdefgh' * 131072 %}";
    check(
        &format!("{megabyte}{{{{ [{}] }}}}", "s + s, ".repeat(200)),
        "64 MiB",
    );
    check(
        &format!("{megabyte}{loops}{{% if s.split('a') %}}{{% endif %}}{ends}"),
        "",
    );
    check("{{ range(1000000000) | list }}", "range");
    // Depth: of values, of expressions, of tags.
    let deep = format!("{{% set n = namespace(x=[]) %}}{loops}{{% set n.x = [n.x] %}}{ends}");
    check(&deep, "deeper than 64");
    check(
        &format!("{{{{ {}1{} }}}}", "(".repeat(50_000), ")".repeat(50_000)),
        "",
    );
    check(&format!("{{{{ {}1 }}}}", "not ".repeat(50_000)), "");
    check(&format!("{{{{ {}1 }}}}", "-".repeat(50_000)), "");
    check(&"{% if 1 %}".repeat(20_000), "");
    check(
        &format!("{{% if 1 %}}{}", "{% elif 1 %}".repeat(20_000)),
        "`elif`",
    );
    check(&format!("{{{{ x{} }}}}", ".a".repeat(50_000)), "");
    check(&format!("{{{{ 'a'{} }}}}", "|upper".repeat(30_000)), "");
}

#[test]
fn the_default_of_several_templates_is_taken() {
    let check = |templates: Value| named_default(&templates).map(str::to_owned);
    let list = json!([{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}]);
    assert_eq!(check(list).unwrap(), "b");
    assert_eq!(check(json!("c")).unwrap(), "c");
    let message = check(json!([{"name": "rag", "template": "a"}])).unwrap_err();
    assert!(message.to_string().contains("\"rag\": expected one named"));
    assert!(check(json!(3)).is_err());
    let none = check(Value::Null).unwrap_err().to_string();
    assert!(none.contains("base model"), "{none}");
}

#[test]
fn a_trial_finds_what_only_a_conversation_shows() {
    let check = |source: &str, expected: &str| {
        let why = parse(source).unwrap().trial().unwrap_err().to_string();
        assert!(why.contains(expected), "{why}");
    };
    check("a\n{{ messages | nofilter }}", "nofilter");
    check("{% for m in messages %}\n{{ m.a.b }}{% endfor %}", ":2");
    parse("{{ messages[0].content }}").unwrap().trial().unwrap();
    // Some templates insist on a message of the system.
    let strict = "{% if messages[0].role != 'system' %}{{ raise_exception('system first') }}\
                  {% endif %}";
    parse(strict).unwrap().trial().unwrap();
}
