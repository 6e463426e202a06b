use super::*;

#[test]
fn expressions_become_calls() {
    let check = |source: &str, expected: &str| {
        let none = Variadic::new();
        let mut parser = Parser::new(source, &none).unwrap();
        let found = parser.tuple(true).unwrap();
        parser.end().unwrap();
        assert_eq!(found, expected, "{source}");
    };
    check(
        "a + b - 1 * c",
        r#"__arith(a, "+", b, "-", __arith(1, "*", c))"#,
    );
    check("a ~ 'x' 'y'", r#"__concat(a, "xy")"#);
    check("not a in b", r#"(not __compare(a, "in", b))"#);
    check("a not in b and c", r#"(__compare(a, "not in", b) and c)"#);
    check("0 < x <= 9", r#"__compare(0, "<", x, "<=", 9)"#);
    check("-1", "(-1)");
    check("-x | abs", r#"__sign("-", x) | abs"#);
    check("m.items()", r#"__method(m, "items")"#);
    check("m.items", r#"__attr(m, "items")"#);
    check("m.role.x(1, b=2)", "m.role.x(1, b=2)");
    check("m['a'][1:]", r#"__slice(__item(m, "a"), 1, none)"#);
    check("m[::-1]", "__slice(m, none, none, (-1))");
    check("a if b else c if d", "(a if b else (c if d))");
    check("x is divisibleby 3 or y", "((x is divisibleby(3)) or y)");
    check("x is not none", "(x is not none)");
    check("1, 2", "(1, 2)");
    check("(1,)", "(1,)");
    check("{'a': [1, 2,]}", r#"{"a": [1, 2]}"#);
    check("f(*a, **b)", "f(*a, **b)");
    check(r"'\x41\u00e9\'\d\n'", r#""Aé'\\d\n""#);
    check("a\n+\nb", r#"__arith(a, "+", b)"#);
    check("1.5e-3", "1.5e-3");
}

#[test]
fn mistakes_have_a_place() {
    let check = |source: &str, at: usize, why: &str| {
        let none = Variadic::new();
        let parsed = Parser::new(source, &none).and_then(|mut p| {
            p.tuple(true)?;
            p.end()
        });
        let error = parsed.unwrap_err();
        assert!(error.at == at && error.why.contains(why), "{error:?}");
    };
    check("a + ", 4, "expected a value, found the end of the tag");
    check("a b", 2, "expected the end of the tag, found `b`");
    check("f(a", 3, "`,`");
    check("'a", 0, "string without its end");
    check("a $ b", 2, "'$'");
    check("__bound(x)", 0, "taken");
    check("x[]", 3, "subscript");
    check(
        &format!("{}1{}", "(".repeat(50), ")".repeat(50)),
        30,
        "deeper than 60",
    );
    check(
        &format!("x{}", ".a".repeat(300)),
        514,
        "more than 256 operators",
    );
}
