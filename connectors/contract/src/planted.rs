//! Bugs that a test plants, to see that the checker catches them. None exists in a build without the feature `failpoints`.

/// Whether the bug is planted: `TOWPATH_PLANTED` names it. A name stands in the code only once.
#[cfg(feature = "failpoints")]
pub fn planted(bug: &str) -> bool {
    static PLANTED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    PLANTED.get_or_init(|| std::env::var("TOWPATH_PLANTED").ok()).as_deref() == Some(bug)
}

#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub const fn planted(_: &str) -> bool {
    false
}
