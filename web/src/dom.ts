/**
 * Makes elements. Texts become text nodes and nothing else, so that what others wrote is never read as HTML.
 */

type Child = Node | string | null | undefined | false;
type Attributes<Tag extends keyof HTMLElementTagNameMap> = {
  class?: string;
  on?: { [Name in keyof HTMLElementEventMap]?: (event: HTMLElementEventMap[Name]) => void };
  aria?: Record<string, string>;
  role?: string;
} & Partial<Omit<HTMLElementTagNameMap[Tag], "children" | "style" | "innerHTML" | "outerHTML">>;

export function make<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  attributes: Attributes<Tag> = {},
  ...children: Child[]
): HTMLElementTagNameMap[Tag] {
  const element = document.createElement(tag);
  const { class: className, on, aria, role, ...properties } = attributes;
  if (className !== undefined) element.className = className;
  if (role !== undefined) element.setAttribute("role", role);
  for (const [name, value] of Object.entries(aria ?? {})) element.setAttribute(`aria-${name}`, value);
  for (const [name, listener] of Object.entries(on ?? {}))
    element.addEventListener(name, listener as EventListener);
  Object.assign(element, properties);
  put(element, ...children);
  return element;
}

/** Adds children, without those that are none. */
export function put(element: Element, ...children: Child[]): void {
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
}

export function replace(element: Element, ...children: Child[]): void {
  element.replaceChildren();
  put(element, ...children);
}

/** A text of others: in a direction of its own, without control characters, and not endless. */
export function foreign(text: string, charsMax = 1_000): HTMLElement {
  const plain = text.replace(
    /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g,
    "\ufffd",
  );
  return make("bdi", {}, plain.length > charsMax ? `${plain.slice(0, charsMax)}…` : plain);
}
