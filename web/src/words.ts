/** What went wrong, in words for a viewer. */

import type { FailReason, Status } from "../../clients/typescript/src/index.js";
import { ApiError } from "./api.js";

const API: Record<string, string> = {
  offline: "The server cannot be reached. Is it running, and are you online?",
  no_sender: "This server has no way to send codes. Start it with --set backend.mock=true to try it out.",
  sms_unavailable: "The code could not be sent. Try again in a moment.",
  wrong_code: "That is not the code.",
  room_closed: "The room is closed.",
  orders_open: "You have too many unpaid orders. Pay one, or wait until they expire.",
  payment_off: "This server sells no coins.",
  no_im_secret: "This server cannot let anybody into chat: its secret for it is not set.",
};

export function ofError(error: unknown): string {
  if (!(error instanceof ApiError)) return `Something went wrong: ${String(error)}`;
  if (error.status === 429) {
    const wait = error.retryAfterS === undefined ? "a while" : `${error.retryAfterS} seconds`;
    return `That was too often. Wait ${wait}, then try again.`;
  }
  if (error.status === 401 && error.code !== "wrong_code") return "Your login has ended. Log in again.";
  return API[error.code] ?? error.message;
}

const FAILURES: Partial<Record<FailReason, string>> = {
  not_member: "you are not in the room",
  no_route: "this server takes no such messages",
  too_long: "it is too long",
  store_full: "too many messages wait already",
  stopped: "you left before it was sent",
  overflow: "the server is full",
};

export function ofFailure(reason: FailReason): string {
  return FAILURES[reason] ?? reason.replaceAll("_", " ");
}

const GIFTS: Record<string, string> = {
  insufficient_balance: "You do not have enough coins.",
  price_changed: "Its price has changed.",
  no_such_gift: "This gift is not there any more.",
  not_on_sale: "This gift is not on sale any more.",
  no_such_receiver: "The receiver is not there any more.",
  room_closed: "The room is closed.",
  no_such_room: "The room is closed.",
  not_member: "You are not in the room.",
  rate_limited: "That was too fast. Wait a moment.",
};

export function ofGift(reason: string): string {
  return `${GIFTS[reason] ?? `The gift was refused (${reason}).`} Nothing was paid.`;
}

const LOSSES: Record<string, string> = {
  draining: "The server restarts",
  server_full: "The server is full",
  silent: "The server is silent",
  token_failed: "The server gives no ticket to chat",
};

/** What the connection does; undefined if all is well. */
export function ofStatus(status: Status, unsent: number): string | undefined {
  const waiting = unsent === 0 ? "" : unsent === 1 ? " 1 message waits." : ` ${unsent} messages wait.`;
  switch (status.name) {
    case "online":
      return undefined;
    case "connecting":
      return `Connecting…${waiting}`;
    case "waiting": {
      const seconds = Math.max(1, Math.round(status.retryInMs / 1_000));
      return `${LOSSES[status.reason] ?? "The connection is lost"}. Next try in ${seconds} s.${waiting}`;
    }
    case "stopped":
      if (status.reason === "kicked") return "You are in this room elsewhere, or were sent away.";
      if (status.reason === "refused") return "The server refused this page. Reload it.";
      return "You are not connected.";
  }
}
