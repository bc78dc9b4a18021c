//! Reasons of verdicts, as people read them.

use wardline_ebpf::abi::Reason;
use wardline_proto::v1;

/// A reason as people read it: `no_rule`.
pub fn reason_word(reason: Reason) -> String {
    let name = v1::Reason::try_from(i32::from(reason as u8)).map_or("", |r| r.as_str_name());
    name.trim_start_matches("REASON_").to_lowercase()
}
