//! `towpath resume`

use super::pause::{Arguments, tell};
use super::{Call, Failure};

pub(super) fn resume(call: &Call<'_>, arguments: &Arguments) -> Result<(), Failure> {
    tell(call, arguments, "resume")
}
