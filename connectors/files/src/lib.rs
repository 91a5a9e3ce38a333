//! Towpath's connector for files that a legacy system drops: COBOL records by copybook.

pub mod copybook;
