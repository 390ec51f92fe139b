//! stub
#![allow(unused, missing_docs)]
use super::*;
pub(super) fn decode_client<'a>(code: Code, body: &'a [u8]) -> Result<ClientFrame<'a>, DecodeError> {
    Err(DecodeError::BadBody)
}
pub(super) fn decode_server<'a>(code: Code, body: &'a [u8]) -> Result<ServerFrame<'a>, DecodeError> {
    Err(DecodeError::BadBody)
}
pub(super) fn encode_client(
    frame: &ClientFrame<'_>,
    encoding: Encoding,
    app: AppId,
    user: UserId,
    out: &mut Vec<u8>,
) {
}
pub(super) fn encode_server(
    frame: &ServerFrame<'_>,
    encoding: Encoding,
    app: AppId,
    user: UserId,
    out: &mut Vec<u8>,
) {
}
