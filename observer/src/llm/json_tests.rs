use proptest::prelude::*;

use super::*;

const ANCHORS: &[Anchor] =
    &[Anchor { path: &["usage"] }, Anchor { path: &["model"] }, Anchor { path: &["choices", "*", "finish_reason"] }];

enum Piece<'a> {
    Bytes(&'a [u8]),
    Gap,
}

fn scan(pieces: &[Piece<'_>]) -> Vec<String> {
    let mut scanner = Scanner::default();
    let mut out = Vec::new();
    let mut visit = |path: &Path<'_>, value: Value<'_>| {
        let mut text = String::new();
        for depth in 0..path.depth() {
            match path.index(depth) {
                Some(index) => text.push_str(&format!("[{index}]")),
                None => text.push_str(&format!(".{}", String::from_utf8_lossy(path.key_at(depth)))),
            }
        }
        out.push(match value {
            Value::String { text: t, whole, some } => {
                let cut = if whole { "" } else { "~" };
                assert!(some || t.is_empty());
                format!("{text}={}{cut}", String::from_utf8_lossy(t))
            }
            Value::Number(digits) => format!("{text}#{}", String::from_utf8_lossy(digits)),
            other => format!("{text} {other:?}"),
        });
    };
    for piece in pieces {
        match piece {
            Piece::Bytes(bytes) => scanner.feed(bytes, &mut visit),
            Piece::Gap => scanner.gap(ANCHORS, &mut visit),
        }
    }
    scanner.end(&mut visit);
    out
}

fn whole(text: &str) -> Vec<String> {
    scan(&[Piece::Bytes(text.as_bytes())])
}

#[test]
fn paths_and_values() {
    let text = r#" {"a":{"b":[1,"x",{"c":null}],"d":-1.5e3},"e":true,"f":"","g":[]} "#;
    assert_eq!(
        whole(text),
        [
            " Object",
            ".a Object",
            ".a.b Array",
            ".a.b[0]#1",
            ".a.b[1]=x",
            ".a.b[2] Object",
            ".a.b[2].c Null",
            ".a.d#-1.5e3",
            ".e Bool(true)",
            ".f=",
            ".g Array"
        ]
    );
    assert_eq!(whole("12"), ["#12"]);
}

#[test]
fn escapes_are_decoded() {
    assert_eq!(whole(r#"{"\u006dodel":"a\"\\\/\n\u00e9\ud83d\ude00"}"#)[1], ".model=a\"\\/\n\u{e9}\u{1f600}");
    assert_eq!(whole(r#"["\ud83d"]"#)[1], "[0]=~", "half a pair is no text, but not empty");
}

#[test]
fn text_is_never_structure() {
    let text =
        r#"{"messages":[{"content":"\"model\":\"evil\",\"stream\":true,{\"model\":\"evil\"}\\"}],"model":"good"}"#;
    let values = whole(text);
    assert_eq!(values.last().unwrap(), ".model=good");
    assert_eq!(values.iter().filter(|value| value.starts_with(".model")).count(), 1);
}

#[test]
fn a_cut_string_says_so() {
    assert_eq!(whole(r#"{"a":"xy"#)[1], ".a=xy~");
    assert_eq!(whole(r#"{"a":1"#), [" Object"], "more digits may follow");
    let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(TEXT_MAX + 1));
    assert!(whole(&long)[1].ends_with("x~"));
}

#[test]
fn what_is_not_json_stops_it() {
    for text in ["[DONE]", "{\"a\" 1}", "{,}", "]", "nul", "{\"a\":\"\\x\"}", "{\"a\":\"\n\"}"] {
        assert!(whole(text).len() <= 1, "{text}: {:?}", whole(text));
    }
}

#[test]
fn depth_is_bounded() {
    let deep = format!("{{\"x\":{}1{},\"a\":2}}", "[".repeat(100), "]".repeat(100));
    assert_eq!(whole(&deep).last().unwrap(), ".a#2");
    let deeper = format!("{{\"x\":{}1{},\"a\":2}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(whole(&deeper).len() <= DEPTH_MAX + 2);
    let objects = format!("{{\"x\":{}1{},\"a\":2}}", "{\"y\":".repeat(60), "}".repeat(60));
    assert_eq!(whole(&objects).last().unwrap(), ".a#2");
}

#[test]
fn reading_is_taken_up_at_an_anchor() {
    let tail = br#"def\\"}}],"x":1},"finish_reason" : "stop"}],"model":"m","usage":{"prompt_tokens":3}}"#;
    assert_eq!(
        scan(&[Piece::Bytes(br#"{"choices":[{"message":{"content":"abc"#), Piece::Gap, Piece::Bytes(tail)])[4..],
        [
            ".choices[0].message.content=abc~",
            ".choices[0].finish_reason=stop",
            ".model=m",
            ".usage Object",
            ".usage.prompt_tokens#3"
        ]
    );
}

#[test]
fn an_anchor_in_text_is_none() {
    for tail in [
        r#"\"usage\":{\"prompt_tokens\":3}"}"#,
        // The gap may have swallowed a backslash.
        r#""usage":{"prompt_tokens":3}"}"#,
        r#"\"usage":{"prompt_tokens":3}"}"#,
        r#"x\\\"usage\":{"}"#,
        r#"x "usage", "y""#,
    ] {
        let values = scan(&[Piece::Bytes(br#"{"a":"b"#), Piece::Gap, Piece::Bytes(tail.as_bytes())]);
        assert_eq!(values, [" Object", ".a=b~"], "{tail}");
    }
}

const TEXT: &str = r#"{"a\u00e9":[{"b":"x\ud83d\ude00\"y","c":12.5},null,true],"long":"0123456789","z":{"":-1}}"#;

fn any_json() -> impl Strategy<Value = String> {
    let key = r#"(a|b||x{63,66}|\\u0061|a\\ud83d)"#;
    let leaf = r#"(null|true|-?[0-9]{1,4}|1e5|nul|"[a-z é]{0,9}"|"z{254,258}"|"(\\n|\\u00e9|\\ud83d|\\\\|\\")x?")"#;
    leaf.prop_recursive(30, 60, 4, move |inner| {
        prop_oneof![
            (prop::collection::vec(inner.clone(), 0..4), "[ \n]?")
                .prop_map(|(values, blank)| format!("[{}{blank}]", values.join(&format!(",{blank}")))),
            (prop::collection::vec((key, inner), 0..5), "[ \t]?").prop_map(|(members, blank)| {
                let members: Vec<_> = members.iter().map(|(key, value)| format!("\"{key}\":{blank}{value}")).collect();
                format!("{{{}{blank}}}", members.join(&format!("{blank},")))
            }),
        ]
    })
}

proptest! {
    // A single byte at a time never goes the short way.
    #[test]
    fn the_short_way_and_the_long_one_say_the_same(text in any_json(), change in any::<(prop::sample::Index, u8)>()) {
        let mut bytes = text.into_bytes();
        if change.1 < 64 {
            let at = change.0.index(bytes.len());
            bytes[at] ^= change.1;
        }
        let single: Vec<_> = bytes.chunks(1).map(Piece::Bytes).collect();
        prop_assert_eq!(scan(&single), scan(&[Piece::Bytes(&bytes)]));
    }

    #[test]
    fn every_split_gives_the_same(cuts in proptest::collection::vec(0..TEXT.len(), 0..12)) {
        let mut cuts = cuts;
        cuts.extend([0, TEXT.len()]);
        cuts.sort_unstable();
        let pieces: Vec<_> = cuts.windows(2).map(|w| Piece::Bytes(&TEXT.as_bytes()[w[0]..w[1]])).collect();
        prop_assert_eq!(scan(&pieces), whole(TEXT));
    }

    #[test]
    fn any_bytes_are_survived(
        a in "[\\[\\]{}\",:0-9a-z\\\\ ]{0,80}", b in proptest::collection::vec(any::<u8>(), 0..80)
    ) {
        scan(&[Piece::Bytes(a.as_bytes()), Piece::Bytes(&b), Piece::Gap, Piece::Bytes(a.as_bytes())]);
    }
}
