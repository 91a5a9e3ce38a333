//! The keys of a source of `type: files`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use towpath_contract::{ByteSize, Span};

use crate::copybook::Form;
use crate::record::{Blank, ByteOrder, DependingOn, Floats, Overpunch, Variant};

/// Files that a legacy system drops into a folder, each taken whole once it is complete.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilesConfig {
    /// The folder. Files below it in other folders, symbolic links, and names that begin with a dot are not looked at.
    pub folder: PathBuf,

    /// Which files are which table.
    pub tables: Vec<TableConfig>,

    /// Where a file goes once all of it is recorded: a folder within `folder`, or an absolute path on the same file system. Default
    /// `archive`. It is made if it is not there.
    #[serde(default = "default_archive")]
    pub archive: PathBuf,

    /// Where a file goes that was refused, with the reason beside it in `<name>.reason`. Default `errors`.
    #[serde(default = "default_errors")]
    pub errors: PathBuf,

    /// How often the folder is looked at. Default `1s`, at least `100ms`.
    #[serde(default = "default_scan_every")]
    pub scan_every: Span,

    /// The longest record. Default `64MiB`, at most `1GiB`. A file with a longer one is refused.
    #[serde(default = "default_record_max")]
    pub record_max: ByteSize,

    /// How many files are remembered by their content, to know one that is delivered again. Default 10000, 1 to 100000.
    #[serde(default = "default_remember")]
    pub remember: u32,
}

fn default_archive() -> PathBuf {
    "archive".into()
}

fn default_errors() -> PathBuf {
    "errors".into()
}

fn default_scan_every() -> Span {
    Span(Duration::from_secs(1))
}

fn default_record_max() -> ByteSize {
    ByteSize(64 << 20)
}

fn default_remember() -> u32 {
    10_000
}

fn default_true() -> bool {
    true
}

/// The files of one table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TableConfig {
    /// The table's name in events. Its schema is `files`.
    pub name: String,

    /// The files' names, with `*` for any run of characters: `customers_*.csv`. A file belongs to the first table whose pattern fits.
    pub files: String,

    pub format: FormatConfig,

    /// The columns that identify a row. Default: none.
    #[serde(default)]
    pub key: Vec<String>,

    /// When a file is complete. Default: as soon as it is there, for systems that rename a finished file into the folder.
    #[serde(default)]
    pub complete: Complete,

    /// Every file is a full extract of the table, and is compared with the one before it. Default: every file holds changes.
    #[serde(default)]
    pub extract: Option<ExtractConfig>,

    /// Where each record says whether it was inserted, updated or deleted. Without it, every record is an insert.
    #[serde(default)]
    pub operation: Option<OperationConfig>,

    /// What happens with a record that cannot be read. `refuse_file` (default): nothing of the file is captured, it goes to `errors`.
    /// `deliver`: it comes as a row of the table `<name>.bad`, with file, record, bytes and reason; the other records come as they are.
    #[serde(default)]
    pub bad_records: BadRecords,

    /// What must hold of a file before anything of it is captured.
    #[serde(default)]
    pub checks: ChecksConfig,
}

/// Full extracts. The first one gives an insert for every record. The keys and hashes of the last one are kept in the outbox's spool folder.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExtractConfig {
    /// A file in which more than this share of the earlier rows is missing, in percent, is refused. Default 20, 0 to 100.
    #[serde(default = "default_deletes_max")]
    pub deletes_max_percent: u8,
}

fn default_deletes_max() -> u8 {
    20
}

/// When a file is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Complete {
    /// When it is there: for files that are renamed into the folder, or linked.
    #[default]
    Renamed,
    /// When a file of its name and this suffix is there, for example `.done`. That file is removed with it.
    Marker(String),
    /// When its size and time of change stayed the same for this long. At least `1s`.
    Stable(Span),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BadRecords {
    #[default]
    RefuseFile,
    Deliver,
}

/// A column of operation codes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OperationConfig {
    /// The column. It is not part of the row.
    pub column: String,
    /// The codes of each operation. A record with another code cannot be read.
    #[serde(default)]
    pub insert: Vec<String>,
    #[serde(default)]
    pub update: Vec<String>,
    #[serde(default)]
    pub delete: Vec<String>,
}

/// What is checked before the first change of a file.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ChecksConfig {
    /// A last record that counts and sums the others. Only for `delimited`, `fixed_width` and `copybook`.
    pub trailer: Option<TrailerConfig>,
    /// The number that the `*` of `files` stands for, held against the one of the last file: a generation, or a business date.
    pub numbers: Numbers,
    /// No two records of a file have the same key. Kept in memory: at most ten million records.
    pub unique_key: bool,
    /// Fewer records than this are refused: an empty file is more often a fault than a fact.
    pub records_min: u64,
}

/// What the numbers in files' names must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Numbers {
    /// The files have none, or none that matters.
    #[default]
    Any,
    /// Greater than the last one: `20260131` is not taken after `20260201`.
    Ascending,
    /// The last one and one more: a file is refused while the one before it is missing.
    Consecutive,
}

/// The last record of a file.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrailerConfig {
    /// What it begins with: for `delimited`, the whole of its first field.
    pub starts_with: String,
    /// How many records there are before it.
    #[serde(default)]
    pub count: Option<Part>,
    /// Sums of columns, by name.
    #[serde(default)]
    pub sums: BTreeMap<String, Part>,
}

/// A part of the trailer.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Counted from 1: the field of a delimited trailer; the first byte of another.
    pub at: usize,
    /// How many bytes it has. Not for a delimited trailer.
    #[serde(default)]
    pub length: Option<usize>,
    /// Digits after a point that is not written. Default 0.
    #[serde(default)]
    pub scale: u32,
}

/// How a file is read.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FormatConfig {
    /// Fields between delimiters: CSV and its kin.
    Delimited(DelimitedConfig),
    /// Fields at fixed places of text lines.
    FixedWidth(FixedWidthConfig),
    /// One JSON object in each line.
    JsonLines(JsonLinesConfig),
    /// COBOL records by their copybook.
    Copybook(CopybookConfig),
    /// dBase III and IV, FoxPro 2, Visual FoxPro, without memo fields.
    Dbf(DbfConfig),
}

/// A column of a text file.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ColumnConfig {
    pub name: String,
    #[serde(default, rename = "type")]
    pub kind: ColumnType,
    /// For `fixed_width`: how many characters it has.
    #[serde(default)]
    pub width: Option<usize>,
}

/// What a column's text must be. What is not, makes the record unreadable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    #[default]
    Text,
    /// Digits with an optional sign, before or after them.
    Int,
    /// Digits with an optional point (or comma, by `decimal_comma`) and sign. Exact.
    Decimal,
    /// `YYYY-MM-DD`.
    Date,
    /// `YYYY-MM-DDTHH:MM:SS[.ffffff]`, or with a space for the `T`.
    Timestamp,
    /// JSON text. Only for `json_lines`: objects and arrays.
    Json,
}

/// Text with delimiters.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DelimitedConfig {
    /// Between fields: one ASCII character. Default `,`.
    #[serde(default = "default_delimiter")]
    pub delimiter: char,
    /// Around fields that hold delimiters or line ends: one ASCII character. Default `"`. `null` for files that quote nothing.
    #[serde(default = "default_quote")]
    pub quote: Option<char>,
    /// Before a quote that is part of the text. Default: a quote is doubled.
    #[serde(default)]
    pub escape: Option<char>,
    /// The charset: a label of the WHATWG encoding standard, or an EBCDIC code page such as `ibm1140`. Default `utf-8`.
    #[serde(default = "default_encoding")]
    pub encoding: String,
    /// The first record names the columns. Default true.
    #[serde(default = "default_true")]
    pub header: bool,
    /// The columns: all of the header's, in any order; without a header, all of a record's, in its order. Default, with a header: those
    /// that it names, as text.
    #[serde(default)]
    pub columns: Vec<ColumnConfig>,
    /// Decimals are written with a comma.
    #[serde(default)]
    pub decimal_comma: bool,
    /// Fields with this text are null.
    #[serde(default)]
    pub null: Option<String>,
    /// A number that is empty or blank.
    #[serde(default)]
    pub blank_numbers: Blank,
    /// A record with fewer fields than columns. `error` (default), or `null`: those that are missing are null.
    #[serde(default)]
    pub short_records: Blank,
}

fn default_delimiter() -> char {
    ','
}

fn default_quote() -> Option<char> {
    Some('"')
}

fn default_encoding() -> String {
    "utf-8".into()
}

/// Text lines with fields at fixed places.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FixedWidthConfig {
    /// All columns of a line, in its order, each with its `width` in bytes. Those named `-` are passed over.
    pub columns: Vec<ColumnConfig>,
    /// As for `delimited`; one byte for each character.
    #[serde(default = "default_encoding")]
    pub encoding: String,
    /// Decimals are written with a comma.
    #[serde(default)]
    pub decimal_comma: bool,
    /// A number that is blank.
    #[serde(default)]
    pub blank_numbers: Blank,
}

/// Lines of JSON objects.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JsonLinesConfig {
    /// The columns, by the objects' keys. A key that is not there is null; one that no column names makes the record unreadable.
    pub columns: Vec<ColumnConfig>,
}

/// A DBF file. It names its columns itself; `deleted` comes after them: whether the record is marked as deleted.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DbfConfig {
    /// The charset. Default: as the file's code page mark says; a file without one is refused.
    #[serde(default)]
    pub encoding: Option<String>,
}

/// Records by copybook.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CopybookConfig {
    /// The copybook. What it names by COPY is looked for beside it.
    pub file: PathBuf,
    /// The level 01 that describes the records, where the copybook has several.
    #[serde(default)]
    pub record: Option<String>,
    #[serde(default)]
    pub form: Form,
    /// Text that is replaced in the copybook, as by COPY REPLACING: `{ ":TAG:": "CUST" }`.
    #[serde(default)]
    pub replacing: BTreeMap<String, String>,
    /// Default `f`.
    #[serde(default)]
    pub framing: Framing,
    /// The charset: `ibm037` (default), `ibm273`, `ibm500`, `ibm1047`, `ibm1140`, or, for files in ASCII, a label such as `windows-1252`.
    #[serde(default = "default_page")]
    pub charset: String,
    /// By a field's name in the copybook, where its charset is another.
    #[serde(default)]
    pub charsets: BTreeMap<String, String>,
    #[serde(default)]
    pub overpunch: Overpunch,
    /// Of COMP, COMP-4 and BINARY.
    #[serde(default)]
    pub binary: ByteOrder,
    /// Of COMP-5.
    #[serde(default)]
    pub native: ByteOrder,
    #[serde(default)]
    pub floats: Floats,
    #[serde(default)]
    pub blank_numbers: Blank,
    /// Spaces at the end of texts are cut off. Default true.
    #[serde(default = "default_true")]
    pub trim: bool,
    #[serde(default)]
    pub depending_on: DependingOn,
    /// For REDEFINES: which description of the bytes holds when. The first that holds counts; the columns of the others are null.
    #[serde(default)]
    pub variants: Vec<Variant>,
}

impl CopybookConfig {
    /// With everything else as it is by default.
    pub(crate) fn plain(file: PathBuf, record: Option<String>, framing: Framing, charset: &str) -> CopybookConfig {
        CopybookConfig {
            file,
            record,
            framing,
            charset: charset.to_owned(),
            form: Form::Auto,
            replacing: BTreeMap::new(),
            charsets: BTreeMap::new(),
            overpunch: Overpunch::default(),
            binary: ByteOrder::default(),
            native: ByteOrder::default(),
            floats: Floats::default(),
            blank_numbers: Blank::default(),
            trim: true,
            depending_on: DependingOn::default(),
            variants: Vec::new(),
        }
    }
}

fn default_page() -> String {
    "ibm037".into()
}

/// How records are told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// Fixed length, one after the other, blocked or not (RECFM F, FB).
    #[default]
    F,
    /// Each with a record descriptor word of four bytes (RECFM V).
    V,
    /// Blocks with a block descriptor word, of records with theirs (RECFM VB).
    Vb,
    /// Text lines; those that are too short are filled up with spaces.
    Lines,
}
