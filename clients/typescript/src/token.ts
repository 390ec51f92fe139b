/**
 * How long a JSON Web Token is good, by its `exp`; undefined if that cannot be read. Its signature is the
 * server's business.
 */
export function lifeOfToken(token: string | null, wallMs: number): number | undefined {
  const claims = token?.split(".")[1];
  if (claims === undefined) return undefined;
  try {
    const { exp } = JSON.parse(atob(claims.replaceAll("-", "+").replaceAll("_", "/"))) as { exp?: unknown };
    return typeof exp === "number" && Number.isFinite(exp) ? exp * 1_000 - wallMs : undefined;
  } catch {
    return undefined;
  }
}
