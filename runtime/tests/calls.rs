//! The syntax of calls, found in templates in the manner of the published families.

#[path = "../../grammar/tests/support/mod.rs"]
mod support;

use serde_json::json;
use sterna_runtime::ChatTemplate;
use sterna_runtime::calls::{CallSyntax, Part, Place};
use support::tokenizer_with;

const SPECIALS: [&str; 5] = ["<s>", "</s>", "<call>", "</call>", "<|python_tag|>"];

/// A template that writes these texts around the calls of a message. In it `c` is a call.
fn template(before: &str, call: &str, between: &str, after: &str) -> String {
    format!(
        "{{% if tools %}}{{{{ tools | tojson }}}}{{% endif %}}{{% for m in messages %}}\
         {{{{ '<' + m.role + '>' }}}}{{% if m.tool_calls %}}{before}{{% for t in m.tool_calls %}}\
         {{% set c = t.function %}}{call}{{% if not loop.last %}}{between}{{% endif %}}\
         {{% endfor %}}{after}{{% else %}}{{{{ m.content }}}}{{% endif %}}\
         {{% if m.role == 'assistant' %}}</s>{{% endif %}}\n{{% endfor %}}\
         {{% if add_generation_prompt %}}<assistant>{{% endif %}}"
    )
}

fn found(source: &str) -> Option<CallSyntax> {
    let settings = json!({"bos_token": "<s>", "eos_token": "</s>"});
    let template = ChatTemplate::from_files(Some(source.as_bytes()), &settings).unwrap();
    CallSyntax::of(&template, &tokenizer_with(&SPECIALS, &[]).0)
}

fn text(text: &str) -> Vec<Part> {
    vec![Part::Text(text.to_owned())]
}

fn texts(open: &str, middle: &str, separator: Option<&str>, close: &str) -> CallSyntax {
    let close = match close {
        "" => Vec::new(),
        close => text(close),
    };
    CallSyntax {
        open: text(open),
        middle: text(middle),
        separator: separator.map(text),
        close,
        takes_text: false,
    }
}

const NAME_FIRST: &str = "{{ '{\"name\": \"' + c.name + '\", \"arguments\": ' + \
                          c.arguments | tojson + '}' }}";
const NAME_LAST: &str = "{{ '{ \"arguments\": ' + c.arguments | tojson + ', \"name\": \"' + \
                         c.name + '\"}' }}";

#[test]
fn calls_between_tags() {
    let call = format!("{{{{ '<tool_call>\\n' }}}}{NAME_FIRST}{{{{ '\\n</tool_call>' }}}}");
    let expected = texts(
        "<tool_call>\n{\"name\": \"",
        "\", \"arguments\": ",
        Some("}\n</tool_call>\n<tool_call>\n{\"name\": \""),
        "}\n</tool_call>",
    );
    assert_eq!(
        found(&template("", &call, "{{ '\\n' }}", "")),
        Some(expected.clone())
    );
    // The order of members means nothing.
    let last = call.replace(NAME_FIRST, NAME_LAST);
    assert_eq!(
        found(&template("", &last, "{{ '\\n' }}", "")),
        Some(expected.clone())
    );
    // With a tag that only the first call has, two calls cannot be written.
    let (before, after) = ("{{ '<tool_call>\\n' }}", "{{ '\\n</tool_call>' }}");
    let once = found(&template(before, NAME_LAST, "", after)).unwrap();
    assert_eq!((once.separator, once.open), (None, expected.open.clone()));
    let list = template("<calls>[", NAME_FIRST, ", ", "]</calls>");
    let list = found(&list).unwrap();
    assert_eq!(list.separator, Some(text("}, {\"name\": \"")));
    assert_eq!(list.close, text("}]</calls>"));
}

#[test]
fn calls_of_json_alone() {
    let single = "{% if m.tool_calls | length > 1 %}{{ raise_exception('one') }}{% endif %}";
    let call = NAME_FIRST.replace("arguments\\\"", "parameters\\\"");
    let call = call.replace("\"arguments\"", "\"parameters\"");
    let expected = texts("{\"name\": \"", "\", \"parameters\": ", None, "}");
    assert_eq!(found(&template(single, &call, "", "")), Some(expected));
}

#[test]
fn special_tokens_and_arguments_as_text() {
    let call =
        "{{ '<call>function\\n' + c.name + '\\n```json\\n' + c.arguments + '\\n```</call>' }}";
    let expected = CallSyntax {
        open: [vec![Part::Special(2)], text("function\n")].concat(),
        middle: text("\n```json\n"),
        separator: Some(
            [
                text("\n```"),
                vec![Part::Special(3), Part::Special(2)],
                text("function\n"),
            ]
            .concat(),
        ),
        close: [text("\n```"), vec![Part::Special(3)]].concat(),
        takes_text: true,
    };
    let found = found(&template("", call, "", "")).unwrap();
    assert_eq!(found, expected);
    assert_eq!(found.special(), [2, 3, 3, 2]);
}

#[test]
fn a_last_turn_may_look_different() {
    // Qwen3 shows thoughts in the last turn only; Mistral shows tools beside the last user.
    let call = format!("<tool_call>{NAME_FIRST}</tool_call>");
    let thoughts = "{% if loop.last %}<think>\n\n</think>\n\n{% endif %}";
    let thoughtful = found(&template(thoughts, &call, "", "")).unwrap();
    assert_eq!(thoughtful.open, text("<tool_call>{\"name\": \""));
    let beside = template("", &call, "", "").replace(
        "{% for m in messages %}",
        "{% set last = messages | selectattr('role', 'equalto', 'user') | list | length %}\
         {% set seen = namespace(users=0) %}{% for m in messages %}{% if m.role == 'user' %}\
         {% set seen.users = seen.users + 1 %}{% if seen.users == last %}TOOLS{% endif %}\
         {% endif %}",
    );
    assert_eq!(found(&beside), Some(thoughtful));
}

#[test]
fn other_forms_are_not_understood() {
    let with_id = NAME_FIRST.replace("'}' }}", "', \"id\": \"' + t.id + '\"}' }}");
    for call in [
        "",
        "{{ c.name }}({% for k, v in c.arguments.items() %}{{ k }}={{ v }}{% endfor %})",
        "<{{ c.name }}>{% for k, v in c.arguments.items() %}<{{ k }}>{{ v }}</{{ k }}>{% endfor %}",
        "{{ t | tojson }}",
        "{{ raise_exception('no tools') }}",
        "{{ c.arguments | tojson }}",
        &with_id,
    ] {
        assert_eq!(found(&template("", call, "", "")), None, "{call}");
    }
}

#[test]
fn places_are_tags_or_the_start() {
    let (tokenizer, _) = tokenizer_with(&SPECIALS, &[]);
    let place = |open: Vec<Part>| {
        let syntax = CallSyntax {
            open,
            ..CallSyntax::plain()
        };
        syntax.trimmed().place(&tokenizer)
    };
    let tag = |tag: &str| Some(Place::Tag(Part::Text(tag.to_owned())));
    assert_eq!(
        place(text("\n <tool_call>\n{\"name\": \"")),
        tag("<tool_call>")
    );
    assert_eq!(
        place(text("[TOOL_CALLS] [{\"name\": \"")),
        tag("[TOOL_CALLS]")
    );
    assert_eq!(
        place([text(" "), vec![Part::Special(2)]].concat()),
        Some(Place::Tag(Part::Special(2)))
    );
    assert_eq!(place(text("{\"name\": \"")), Some(Place::Start(vec![4])));
    assert_eq!(place(text("[{\"name\": \"")), Some(Place::Start(vec![4])));
    // What a text may contain by chance.
    for open in [
        "Call: {\"name\": \"",
        "<a>{\"name\": \"",
        "all\n<|recipient|>",
    ] {
        assert_eq!(place(text(open)), None, "{open}");
    }
}

#[test]
fn tools_have_a_template_of_their_own() {
    let call = format!("<tool_call>{NAME_FIRST}</tool_call>");
    let with_tools = template("", &call, "", "");
    let settings = json!({"chat_template": [
        {"name": "default", "template": "{% for m in messages %}{{ m.content }}{% endfor %}"},
        {"name": "tool_use", "template": with_tools}], "eos_token": "</s>"});
    let template = ChatTemplate::from_files(None, &settings).unwrap();
    assert!(template.names("tools"));
    let syntax = CallSyntax::of(&template, &tokenizer_with(&SPECIALS, &[]).0).unwrap();
    assert_eq!(syntax.open, text("<tool_call>{\"name\": \""));
    let messages = json!({"messages": [{"role": "user", "content": "Hi"}]});
    let mut variables = messages.as_object().unwrap().clone();
    assert_eq!(template.render_with(&variables, true).unwrap(), "Hi");
    variables.insert("tools".into(), json!([{}]));
    assert_eq!(
        template.render_with(&variables, true).unwrap(),
        "[{}]<user>Hi<assistant>"
    );
    // One that cannot be used is an error where it is needed.
    let mut settings = settings;
    settings["chat_template"][1]["template"] = "{% if %}".into();
    let template = ChatTemplate::from_files(None, &settings).unwrap();
    let error = template.render_with(&variables, true).unwrap_err();
    assert!(error.to_string().contains("tool_use"), "{error}");
}
