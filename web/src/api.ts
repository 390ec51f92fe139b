/**
 * The backend's HTTP API, as docs/BACKEND.md and /openapi.json have it. It is on the port that served this
 * page.
 */

export interface Room {
  id: number;
  owner_id: number;
  title: string;
  is_open: boolean;
}

export interface Gift {
  id: number;
  name: string;
  icon: string;
  price: number;
}

export interface Product {
  id: number;
  name: string;
  price_cents: number;
  coins: number;
}

export interface Order {
  order_id: string;
  pay_url: string;
  qr_url: string;
}

export interface User {
  id: number;
  name: string;
}

export interface ImToken {
  token: string;
  websocket: string;
}

/** What the backend refused, or that it was not reached (`offline`). */
export class ApiError extends Error {
  constructor(
    readonly code: string,
    readonly status: number,
    message: string,
    readonly retryAfterS: number | undefined,
  ) {
    super(message);
  }
}

const TIMEOUT_MS = 15_000;
const KEY = "sailfish.login";

/**
 * Of a tab, so that two tabs may be two users. A strict Content-Security-Policy keeps scripts of others from
 * it.
 */
interface Login {
  token: string;
  userId: number;
}

export class Api {
  private login: Login | undefined = read();
  /** Called when the backend does not know the login any more. */
  onLoggedOut: () => void = () => {};

  get userId(): number | undefined {
    return this.login?.userId;
  }

  async sendCode(phone: string): Promise<void> {
    await this.ask("POST", "/login/code", { phone });
  }

  /** The code that a phone was sent, where phones are mocks; undefined where they are not. */
  async mockCode(phone: string): Promise<string | undefined> {
    try {
      const { code } = await this.ask<{ code: string }>("GET", `/mock/sms/${encodeURIComponent(phone)}`);
      return code;
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) return undefined;
      throw error;
    }
  }

  async logIn(phone: string, code: string): Promise<void> {
    const { user_id, token } = await this.ask<{ user_id: number; token: string }>("POST", "/login", {
      phone,
      code,
    });
    this.login = { token, userId: user_id };
    sessionStorage.setItem(KEY, JSON.stringify(this.login));
  }

  async logOut(): Promise<void> {
    const done = this.ask("POST", "/logout", {}).catch(() => {});
    this.forget();
    await done;
  }

  imToken = () => this.ask<ImToken>("POST", "/im/token", { device: "web" });
  me = () => this.ask<User>("GET", "/users/me");
  rename = (name: string) => this.ask<User>("PUT", "/users/me", { name });
  users = async (ids: number[]) => (await this.ask<{ users: User[] }>("POST", "/users/batch", { ids })).users;
  rooms = async () => (await this.ask<{ rooms: Room[] }>("GET", "/rooms?limit=50")).rooms;
  room = (id: number) => this.ask<Room>("GET", `/rooms/${id}`);
  openRoom = (title: string) => this.ask<Room>("POST", "/rooms", { title });
  members = async (room: number) =>
    (await this.ask<{ user_ids: number[] }>("GET", `/rooms/${room}/members?limit=100`)).user_ids;
  gifts = async () => (await this.ask<{ gifts: Gift[] }>("GET", "/gifts")).gifts;
  balance = async () => (await this.ask<{ balance: number }>("GET", "/wallet")).balance;
  products = async () => (await this.ask<{ products: Product[] }>("GET", "/products")).products;
  order = (id: string, productId: number) =>
    this.ask<Order>("POST", "/orders", { id, product_id: productId });
  orderStatus = async (id: string) => (await this.ask<{ status: string }>("GET", `/orders/${id}`)).status;

  private async ask<Answer>(method: string, path: string, body?: object): Promise<Answer> {
    const headers: Record<string, string> = {};
    if (this.login !== undefined) headers["Authorization"] = `Bearer ${this.login.token}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const signal = AbortSignal.timeout(TIMEOUT_MS);
    // Without the cookie of the login, which is one for all tabs.
    const request: RequestInit = { method, headers, signal, credentials: "omit", cache: "no-store" };
    if (body !== undefined) request.body = JSON.stringify(body);
    const response = await fetch(path, request).catch((error: unknown) => {
      throw new ApiError("offline", 0, String(error), undefined);
    });
    const answer: unknown = await response.json().catch(() => ({}));
    if (response.ok) return answer as Answer;
    const { code = "unknown", message = response.statusText } = answer as { code?: string; message?: string };
    const after = response.headers.get("Retry-After");
    if (response.status === 401 && this.login !== undefined) {
      this.forget();
      this.onLoggedOut();
    }
    throw new ApiError(code, response.status, message, after === null ? undefined : Number(after));
  }

  private forget(): void {
    this.login = undefined;
    sessionStorage.removeItem(KEY);
  }
}

function read(): Login | undefined {
  try {
    const login = JSON.parse(sessionStorage.getItem(KEY) ?? "null") as Login | null;
    return typeof login?.token === "string" && Number.isSafeInteger(login.userId) ? login : undefined;
  } catch {
    return undefined;
  }
}
