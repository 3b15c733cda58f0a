//! Templates against what Go's package and Docker print.

use super::{Map, MissingKey, Mode, Template, Value};

fn render(template: &str, json: &str) -> String {
    let value: Value = serde_json::from_str(json).unwrap();
    Template::parse(template, MissingKey::NoValue)
        .and_then(|t| t.run(&value, Mode::Row))
        .unwrap_or_else(|e| format!("ERR {e}"))
}

const SAMPLE: &str = r#"{"Id":"abc","Name":"/web","State":{"Status":"running","Running":true,"Pid":42},
 "Config":{"Env":["A=1","B=2"],"Labels":{"z":"26","a":"1"},"Cmd":null},"Size":1.5,
 "NetworkSettings":{"Networks":{"bridge":{"IPAddress":"172.17.0.2"}},"Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"}]}}}"#;

#[test]
fn field_paths_print_values() {
    assert_eq!(
        render(
            "{{.State.Status}} {{.State.Pid}} {{.State.Running}} {{.Size}}",
            SAMPLE
        ),
        "running 42 true 1.5"
    );
    assert_eq!(render("{{.ID}}", SAMPLE), "abc");
    assert_eq!(render("{{.Config.Env}}", SAMPLE), "[A=1 B=2]");
    assert_eq!(render("{{.Config.Labels}}", SAMPLE), "map[a:1 z:26]");
}

#[test]
fn json_keeps_order_and_does_not_escape_html() {
    assert_eq!(
        render("{{json .Config.Labels}}", SAMPLE),
        r#"{"z":"26","a":"1"}"#
    );
    assert_eq!(render("{{json .}}", r#""a<b>""#), r#""a<b>""#);
    assert_eq!(
        render("{{.State | json}}", SAMPLE),
        r#"{"Status":"running","Running":true,"Pid":42}"#
    );
}

#[test]
fn range_over_list_map_and_else() {
    assert_eq!(
        render("{{range .Config.Env}}{{.}};{{end}}", SAMPLE),
        "A=1;B=2;"
    );
    assert_eq!(
        render(
            "{{range $k, $v := .Config.Labels}}{{$k}}={{$v}} {{end}}",
            SAMPLE
        ),
        "a=1 z=26 "
    );
    assert_eq!(
        render("{{range $i, $e := .Config.Env}}{{$i}}{{$e}}{{end}}", SAMPLE),
        "0A=11B=2"
    );
    assert_eq!(
        render("{{range .Config.Cmd}}x{{else}}none{{end}}", SAMPLE),
        "none"
    );
    assert_eq!(
        render(
            "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
            SAMPLE
        ),
        "172.17.0.2"
    );
    assert_eq!(
        render(
            "{{range $p, $c := .NetworkSettings.Ports}}{{$p}} -> {{(index $c 0).HostPort}}{{end}}",
            SAMPLE
        ),
        "80/tcp -> 8080"
    );
    assert_eq!(
        render(
            r#"{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}"#,
            SAMPLE
        ),
        "8080"
    );
    assert_eq!(
        render(
            "{{range .Config.Env}}{{if eq . \"A=1\"}}{{continue}}{{end}}{{.}}{{end}}",
            SAMPLE
        ),
        "B=2"
    );
    assert_eq!(
        render("{{range .Config.Env}}{{.}}{{break}}{{end}}", SAMPLE),
        "A=1"
    );
}

#[test]
fn conditions_follow_go_truth() {
    assert_eq!(
        render("{{if .State.Running}}up{{else}}down{{end}}", SAMPLE),
        "up"
    );
    assert_eq!(
        render(
            "{{if .Config.Cmd}}a{{else if .Config.Env}}b{{else}}c{{end}}",
            SAMPLE
        ),
        "b"
    );
    assert_eq!(
        render(
            "{{if and .State.Running (eq .State.Pid 42)}}y{{end}}",
            SAMPLE
        ),
        "y"
    );
    assert_eq!(
        render("{{or .Config.Cmd \"fallback\"}}", SAMPLE),
        "fallback"
    );
    assert_eq!(render("{{if not .Missing}}no{{end}}", SAMPLE), "no");
    assert_eq!(
        render("{{if ne .Name \"/x\"}}{{lt 1 2}}{{ge 1 2}}{{end}}", SAMPLE),
        "truefalse"
    );
    assert_eq!(render("{{eq .Name \"/a\" \"/web\"}}", SAMPLE), "true");
    assert_eq!(
        render(
            "{{with .State}}{{.Pid}}{{end}}{{with .Nope}}x{{else}}e{{end}}",
            SAMPLE
        ),
        "42e"
    );
}

#[test]
fn dockers_functions() {
    assert_eq!(render("{{join .Config.Env \",\"}}", SAMPLE), "A=1,B=2");
    assert_eq!(
        render("{{upper .Id}} {{lower \"ABC\"}} {{title \"a bc\"}}", SAMPLE),
        "ABC abc A Bc"
    );
    assert_eq!(
        render("{{truncate .Name 2}}|{{pad .Id 1 2}}|", SAMPLE),
        "/w| abc  |"
    );
    assert_eq!(render("{{index (split \"a:b\" \":\") 1}}", SAMPLE), "b");
    assert_eq!(render("{{len .Config.Env}} {{len .Name}}", SAMPLE), "2 4");
    assert_eq!(
        render(
            "{{index .Config.Labels \"z\"}}|{{index .Config.Labels \"none\"}}|",
            SAMPLE
        ),
        "26||"
    );
    assert_eq!(render("{{slice .Name 1}}", SAMPLE), "web");
    assert_eq!(render("{{println .Id}}", SAMPLE), "abc\n");
}

#[test]
fn printf_verbs() {
    assert_eq!(
        render(
            r#"{{printf "%s %d %v %q" .Id .State.Pid .State.Running .Name}}"#,
            SAMPLE
        ),
        r#"abc 42 true "/web""#
    );
    assert_eq!(
        render(
            r#"{{printf "%-6s|%6s|%04d|%.2f%%" .Id .Id .State.Pid .Size}}"#,
            SAMPLE
        ),
        "abc   |   abc|0042|1.50%"
    );
    assert_eq!(render(r#"{{printf "%.2s" .Id}}"#, SAMPLE), "ab");
    assert_eq!(render(r#"{{printf "%s"}}"#, SAMPLE), "%!s(MISSING)");
    assert_eq!(render(r#"{{.Id | printf "%s-%s" "x"}}"#, SAMPLE), "x-abc");
}

#[test]
fn variables_and_trim_markers() {
    assert_eq!(
        render("{{$x := .Id}}{{$x}}{{$x = \"new\"}}{{$x}}", SAMPLE),
        "abcnew"
    );
    assert_eq!(render("a {{- /* c */ -}} b", SAMPLE), "ab");
    assert_eq!(
        render("{{range .Config.Env}}{{$.Id}} {{end}}", SAMPLE),
        "abc abc "
    );
    assert_eq!(render("{{ .Id }}\n{{- .Id }}", SAMPLE), "abcabc");
}

#[test]
fn missing_keys_and_fields_as_go_says() {
    assert_eq!(render("{{.Nope}}", SAMPLE), "<no value>");
    let value: Value = serde_json::from_str(SAMPLE).unwrap();
    let error = Template::parse("{{.Nope}}", MissingKey::Error)
        .unwrap()
        .run(&value, Mode::Row)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "template: :1:2: executing \"\" at <.Nope>: map has no entry for key \"Nope\""
    );
    let context = Value::Map(Map::of_type("*formatter.ContainerContext"));
    let error = Template::parse("{{.Foo}}", MissingKey::NoValue)
        .unwrap()
        .run(&context, Mode::Row)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "template: :1:2: executing \"\" at <.Foo>: can't evaluate field Foo in type *formatter.ContainerContext"
    );
    assert!(render("{{.Id.X}}", SAMPLE).contains("can't evaluate field X in type string"));
}

#[test]
fn label_method_reads_labels() {
    let mut map = Map::of_type("*formatter.ContainerContext");
    map.labels.push(("com.x".into(), "1".into()));
    let value = Value::Map(map);
    let run = |t: &str| {
        Template::parse(t, MissingKey::NoValue)
            .unwrap()
            .run(&value, Mode::Row)
            .unwrap()
    };
    assert_eq!(run(r#"{{.Label "com.x"}}|{{.Label "none"}}"#), "1|");
}

#[test]
fn malformed_templates_are_errors() {
    for source in [
        "{{",
        "{{.X",
        "{{if}}",
        "{{if .X}}",
        "{{end}}",
        "{{else}}",
        "{{range .X}}{{else}}{{else}}{{end}}",
        "{{nofunc .}}",
        "{{.X | }}",
        "{{(.X}}",
        "{{.X)}}",
        "{{}}",
        "{{break}}",
        "{{$x}}",
        "{{\"a}}",
    ] {
        assert!(render(source, "{}").starts_with("ERR "), "{source}");
    }
    assert_eq!(
        render("{{nofunc .}}", "{}"),
        "ERR template: :1: function \"nofunc\" not defined"
    );
}

#[test]
fn deep_nesting_is_refused_without_overflow() {
    let deep = format!(
        "{}1{}",
        "{{(".to_owned() + &"(".repeat(5000),
        ")".repeat(5001) + "}}"
    );
    assert!(render(&deep, "{}").starts_with("ERR "));
    let blocks = "{{if 1}}".repeat(2000) + &"{{end}}".repeat(2000);
    assert!(render(&blocks, "{}").starts_with("ERR "));
}

#[test]
fn random_templates_never_panic() {
    // A small linear congruential generator over fragments that matter to the grammar.
    let parts = [
        "{{",
        "}}",
        "{{-",
        "-}}",
        ".",
        ".X",
        "$",
        "$a",
        ":=",
        "=",
        "|",
        "(",
        ")",
        "if ",
        "range ",
        "end",
        "else",
        "with ",
        "1",
        "-",
        "\"",
        "`",
        "'",
        " ",
        "é",
        "json ",
        "index ",
        "printf \"%*d\" ",
        "/*",
        "*/",
        ",",
        "\\",
        "slice ",
        "len ",
    ];
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..20_000 {
        let mut source = String::new();
        for _ in 0..12 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            source.push_str(parts[(seed >> 33) as usize % parts.len()]);
        }
        let _ = render(&source, r#"{"X":[1,"a",{"X":null}]}"#);
    }
}

#[test]
fn header_mode_leaves_titles_alone() {
    let mut map = Map::default();
    map.push("ID", "CONTAINER ID");
    let value = Value::Map(map);
    let run = |t: &str| {
        Template::parse(t, MissingKey::NoValue)
            .unwrap()
            .run(&value, Mode::Header)
            .unwrap()
    };
    assert_eq!(
        run("{{truncate .ID 2}} {{lower .ID}} {{json .ID}}"),
        "CONTAINER ID CONTAINER ID CONTAINER ID"
    );
}
