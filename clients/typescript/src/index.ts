export {
  Client,
  type ClientOptions,
  type Events,
  type Gap,
  type Id,
  type JoinResult,
  type Joined,
  type Outgoing,
  type TokenAnswer,
  type WebSocketConstructor,
  type WebSocketLike,
} from "./client.js";
export type { FailReason, LossReason, Outcome, Status, StopReason, TokenReason } from "./core.js";
export type { Message, Notice, NoticeName, Reason, Recovery } from "./wire.js";
