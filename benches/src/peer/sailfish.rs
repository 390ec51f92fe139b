//! The client protocol of the gateway, and of the raw loops.

use std::borrow::Cow;

use gateway::{Claims, mint_hs256};
use wire::client::{Business, ClientFrame, Code, Encoding, HEADER_BYTES};
use wire::{AppId, BizCode, DeviceClass, RoomId, UserId};

use super::{Dialect, Item, Role};

const APP: AppId = AppId(1);
const ROOM: RoomId = RoomId(7);
/// Room chat.
const BIZ_CODE: BizCode = BizCode(5555);
const FIRST_USER: i64 = 5_000_000;
/// Tokens that outlast any run.
const EXPIRY_UNIX_SECS: u64 = 4_000_000_000;

/// A client that signs its own tokens.
#[derive(Debug)]
pub struct Sailfish {
    /// What the server checks tokens with; the raw loops check none.
    pub secret: Vec<u8>,
}

impl Dialect for Sailfish {
    fn hello(&self, _role: Role, index: usize, out: &mut Vec<u8>) {
        let user = UserId(FIRST_USER + index as i64);
        let claims = Claims { app: APP, user, device: DeviceClass::Phone, exp: EXPIRY_UNIX_SECS };
        let token = Cow::Owned(mint_hs256(&self.secret, &claims));
        ClientFrame::Login { token }.encode(Encoding::Binary, APP, user, out);
        ClientFrame::Join { room: ROOM, want: None }.encode(Encoding::Binary, APP, user, out);
    }

    fn publish(&self, number: u64, payload: &[u8], out: &mut Vec<u8>) {
        let business = Business {
            biz_code: BIZ_CODE,
            target: ROOM.0,
            // The process makes it unique: a server that saw an earlier run would take it for a repeat.
            client_msg_id: format!("{}-{number}", std::process::id()).into(),
            payload: payload.into(),
        };
        ClientFrame::Business(business).encode(Encoding::Binary, APP, UserId(0), out);
    }

    fn next(&self, input: &[u8]) -> Option<(usize, Item)> {
        let header = input.first_chunk::<HEADER_BYTES>()?;
        let code = i32::from_be_bytes([header[2], header[3], header[4], header[5]]);
        let body_bytes = i32::from_be_bytes([header[6], header[7], header[8], header[9]]);
        let total = HEADER_BYTES + usize::try_from(body_bytes).ok()?;
        if input.len() < total {
            return None;
        }
        let item = match Code::from_i32(code) {
            Some(Code::Business) => Item::Delivered,
            Some(Code::Join) => Item::Ready,
            Some(Code::Notice) => {
                Item::Refused(String::from_utf8_lossy(&input[HEADER_BYTES..total]).into_owned())
            }
            _ => Item::Other,
        };
        Some((total, item))
    }
}
