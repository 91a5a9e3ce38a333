use std::path::{Path, PathBuf};

use super::*;

/// Real copybooks; `None`, and a word about it, where they are not there.
fn carddemo() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/carddemo/copybook");
    if !folder.is_dir() {
        eprintln!("skipped: {} is not there", folder.display());
        return None;
    }
    Some(folder)
}

fn one(text: &str) -> Layout {
    let mut records = parse(text, Form::Auto, &(), &[]).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(records.len(), 1);
    records.remove(0)
}

/// Every field as `name@offset+length`, `*n` for OCCURS, fields of a table in brackets.
fn shape(items: &[Item]) -> String {
    let item = |item: &Item| {
        let times = item.occurs.as_ref().map_or(String::new(), |occurs| match &occurs.depending_on {
            Some(on) => format!("*{}..{}/{on}", occurs.min, occurs.max),
            None => format!("*{}", occurs.max),
        });
        let own = format!("{}@{}+{}{times}", item.title(), item.offset, item.length);
        match &item.kind {
            ItemKind::Group(items) => format!("{own}[{}]", shape(items)),
            ItemKind::Field { .. } => own,
        }
    };
    items.iter().map(item).collect::<Vec<_>>().join(" ")
}

fn error(text: &str) -> String {
    parse(text, Form::Auto, &(), &[]).map(|_| ()).expect_err("this must be refused").to_string()
}

#[test]
fn every_real_copybook_has_the_record_length_that_its_comment_states() {
    let Some(folder) = carddemo() else { return };
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let (_, stated) = text.split_once("RECLN").expect("a record length");
        let stated: String =
            stated.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
        for form in [Form::Auto, Form::Fixed] {
            let records = parse(&text, form, &(), &[]).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert_eq!(records.len(), 1);
            assert_eq!(records[0].length.to_string(), stated, "{}", path.display());
        }
        seen += 1;
    }
    assert!(seen >= 10);
}

#[test]
fn usages_have_their_lengths() {
    let layout = one("
       01  R.
           05  A  PIC S9(4) COMP.
           05  B  PIC S9(9) BINARY.
           05  C  PIC 9(10) USAGE IS COMPUTATIONAL-4.
           05  D  COMP-1.
           05  E  USAGE COMP-2.
           05  F  PIC S9(7)V99 COMP-3.
           05  G  PIC 9(4) PACKED-DECIMAL.
           05  H  PIC S9(5) SIGN IS LEADING SEPARATE CHARACTER.
           05  I  PIC S9(5) TRAILING.
           05  J  PIC N(3).
           05  K  PIC S9(4) COMP-5 VALUE -12.
           05  L  PIC ZZ,ZZ9.99-.
           05     PIC X VALUE 'it''s. PIC'.
           05  M  PIC 9V9(3), VALUE 1.5.
    ");
    assert_eq!(
        shape(&layout.items),
        "A@0+2 B@2+4 C@6+8 D@14+4 E@18+8 F@26+5 G@31+3 H@34+6 I@40+5 J@45+6 K@51+2 L@53+10 FILLER@63+1 M@64+4"
    );
    assert_eq!((layout.name.as_str(), layout.length), ("R", 68));
}

#[test]
fn groups_hand_usage_and_sign_down() {
    let layout =
        one("01 R.\n 05 G COMP-3.\n 10 A PIC 9(3).\n 10 B PIC 9(5).\n 05 H SIGN LEADING SEPARATE.\n 10 C PIC S99.");
    assert_eq!(shape(&layout.items), "G@0+5[A@0+2 B@2+3] H@5+3[C@5+3]");
    let layout = one("01 R COMP-3.\n 05 A PIC 9(3).");
    assert_eq!(shape(&layout.items), "A@0+2");
}

#[test]
fn redefinitions_share_their_place_and_the_longest_counts() {
    let layout = one("
       01  R.
           05  A           PIC X(4).
           05  B REDEFINES A PIC 9(4).
           05  C REDEFINES A.
               10  D       PIC X(2).
               10  E       PIC X(4).
           05  F           PIC X.
       66  X RENAMES A THRU F.
       88  NEVER VALUE 'A' THRU 'C', 'X'.
    ");
    assert_eq!(shape(&layout.items), "A@0+4 B@0+4 C@0+6[D@0+2 E@2+4] F@6+1");
    assert_eq!(layout.items[2].redefines, Some(0));
}

#[test]
fn tables_are_scopes_of_their_own() {
    let layout = one("
       01  R.
           05  N           PIC 99.
           05  T OCCURS 3 TIMES ASCENDING KEY IS K INDEXED BY I1, I2.
               10  K       PIC X(2).
               10  U OCCURS 2 PIC 9(3).
           05  V OCCURS 0 TO 5 TIMES DEPENDING ON N PIC X(4).
    ");
    assert_eq!(shape(&layout.items), "N@0+2 T@2+8*3[K@0+2 U@2+3*2] V@26+4*0..5/N");
    assert_eq!((layout.length, layout.varies), (46, true));
}

#[test]
fn sync_puts_slack_bytes_where_ibm_does() {
    // The example of IBM's manual, "Slack bytes within records": 21 bytes, 3 of slack, a fullword.
    let layout =
        one("01 R.\n 05 A PIC X(5).\n 05 B PIC X(2).\n 05 C PIC S9(9) COMP SYNC.\n 05 D PIC X.\n 05 E COMP-2 SYNC.");
    assert_eq!(shape(&layout.items), "A@0+5 B@5+2 C@8+4 D@12+1 E@16+8");
    let layout = one("01 R.\n 05 A PIC X.\n 05 T OCCURS 2.\n 10 B PIC X.\n 10 C PIC S9(4) COMP SYNC.\n 10 D PIC X.");
    // Entries of the table are padded so that the second is aligned as the first.
    assert_eq!(shape(&layout.items), "A@0+1 T@1+4*2[B@0+1 C@1+2 D@3+1]");
}

#[test]
fn fixed_form_continues_words_and_literals() {
    let text = "000100 01  REC.
000200     05  LONG-
000300-        NAME PIC X(3) VALUE 'abcdefghijklmnopqrstuvwxyzabcdefghijk
000400-        'rest'.                                                  IGNORED
000500*    05  COMMENT PIC X(100).
000600D    05  DEBUG PIC X(100).
000700     05  NEXT-ONE PIC X(2). *> a comment";
    assert_eq!(shape(&one(text).items), "LONG-NAME@0+3 NEXT-ONE@3+2");
}

#[test]
fn free_form_and_tabs_are_read() {
    let text = "01 rec.\n*> nothing\n\t03 a pic x(2).\n03 b pic 9(3) comp-3. *> PIC X\n";
    assert_eq!(shape(&one(text).items), "A@0+2 B@2+2");
    let below = one("05 A PIC X.\n05 B.\n10 C PIC X(2).\n05 D PIC X.");
    assert_eq!(shape(&below.items), "A@0+1 B@1+2[C@1+2] D@3+1");
}

struct Members(&'static [(&'static str, &'static str)]);

impl Library for Members {
    fn member(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, text)| text.to_string())
    }
}

#[test]
fn copy_replaces_words_parts_and_text() {
    let members = Members(&[
        (
            "ADDR",
            "           10 :TAG:-STREET PIC X(LEN).\n           10 OLD-CITY PIC X(5).\n           10 X-OLD PIC 9(3).",
        ),
        ("LOOP", "           COPY LOOP."),
    ]);
    let text = "
       01  R.
           05  HOME.
               COPY ADDR REPLACING ==:TAG:== BY ==HOME==
                   ==LEN== BY ==7== LEADING ==OLD-== BY ==NEW-==
                   TRAILING ==OLD== BY ==Y==
                   ==PIC 9(3)== BY ==PIC S9(3) COMP-3==.
           05  LAST PIC X.
    ";
    let layout = parse(text, Form::Fixed, &members, &[]).unwrap().remove(0);
    assert_eq!(shape(&layout.items), "HOME@0+14[HOME-STREET@0+7 NEW-CITY@7+5 X-Y@12+2] LAST@14+1");
    let from_config = [Replacement::new(":TAG:", "CUST").unwrap(), Replacement::new("LEN", "2").unwrap()];
    let layout = parse(members.0[0].1, Form::Auto, &(), &from_config).unwrap().remove(0);
    assert_eq!(shape(&layout.items), "CUST-STREET@0+2 OLD-CITY@2+5 X-OLD@7+3");
    let looped = parse("       COPY LOOP.", Form::Fixed, &members, &[]).unwrap_err().to_string();
    assert!(looped.contains("more than 16 times"), "{looped}");
}

#[test]
fn errors_name_line_column_and_what_was_expected() {
    for (text, says) in [
        ("       01  R.\n           05  A PIC X(3\n", "line 2, column 22: PICTURE X(3"),
        ("       01  R.\n           05  A PIC X(3) COMP-3.", "line 2, column 12: this USAGE needs a numeric PICTURE"),
        ("       01  R.\n           05  A.", "line 2, column 12: A has neither a PICTURE nor items below it"),
        ("       01  R.\n           05  A PIC X POINTER.", "line 2, column 24: USAGE POINTER is not supported"),
        ("       01  R.\n           05  A PIC X REDEFINES B.", "A redefines B, which does not stand before it"),
        (
            "       01  R.\n           05  A PIC X.\n             07  B PIC X.\n",
            "line 2, column 12: A has a PICTURE and items",
        ),
        (
            "       01  R.\n           05  A.\n             10  B PIC X.\n           07  C PIC X.\n",
            "line 4, column 12: level 07 fits no group",
        ),
        ("       01  R.\n           05  A PIC X OCCURS 2 TO 5.", "has no DEPENDING ON"),
        ("       01  R.\n           05  A PIC X VALUE 'a.\n", "line 2, column 30: this literal has no closing '"),
        ("       01  R.\n      x    05  A PIC X.", "line 2, column 7: found 'x' in the indicator column"),
        ("       01  R.\n           05  A PIC X WIBBLE.", "line 2, column 24: found WIBBLE, which is no clause"),
        (
            "       01  R.\n           05  A PIC X",
            "line 2, column 22: the text ends where a clause or a period is expected",
        ),
        ("       01  R.\n           COPY NOWHERE.", "line 2, column 12: COPY NOWHERE: there is no such file"),
        ("       01  R.\n           05  A PIC S9(20) COMP.", "a binary number of 20 digits is not supported"),
        ("", "there is no data description in it"),
        ("       66  X RENAMES Y.", "there is no Y in the record"),
        ("       51  X PIC X.", "expected a level number"),
    ] {
        let form = if text.contains("      x ") { Form::Fixed } else { Form::Auto };
        let error = parse(text, form, &(), &[]).map(|_| ()).expect_err(text).to_string();
        assert!(error.contains(says), "{error}\nexpected: {says}");
    }
    assert!(error("01 R.\n 05 T OCCURS 2 PIC X.\n 05 U REDEFINES T PIC XX.").contains("has an OCCURS"));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "[ 0-9A-Z.'=():\\-\n]{0,200}") {
        let _ = parse(&text, Form::Free, &(), &[]);
        let _ = parse(&text, Form::Fixed, &(), &[]);
    }
}
