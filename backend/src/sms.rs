//! Text messages. A sender's contract is the operator's; what is here writes to the log what it would send.

use logs::info;

use crate::phone::Phone;

/// Tells a phone its login code.
pub fn send_code(phone: &Phone, code: &str) {
    info!(%phone, code, "mock SMS: a login code");
}
