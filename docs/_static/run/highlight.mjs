// Colours for Python code that the reader changes, with the class names of Pygments.

const KEYWORDS =
  "and as assert async await break case class continue def del elif else except finally for from " +
  "global if import in is lambda match nonlocal not or pass raise return try while with yield";
const TOKENS = [
  ["c1", /#[^\n]*/],
  ["s", /(?:[rbfu]{0,2})(?:"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$))/i],
  ["s2", /(?:[rbfu]{0,2})(?:"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?)/i],
  ["mf", /\b\d[\w.]*/],
  ["kc", /\b(?:True|False|None)\b/],
  ["k", new RegExp(`\\b(?:${KEYWORDS.replaceAll(" ", "|")})\\b`)],
  ["", /[A-Za-z_]\w*/],
];
const ALL = new RegExp(TOKENS.map(([, pattern]) => `(${pattern.source})`).join("|"), "gi");

// The nodes that show a text.
export function highlighted(text) {
  const fragment = document.createDocumentFragment();
  let end = 0;
  for (const match of text.matchAll(ALL)) {
    const index = match.slice(1).findIndex((group) => group !== undefined);
    const [name, pattern] = TOKENS[index];
    // The expression ignores case, for prefixes of strings. Keywords do not.
    if (!name || (name[0] === "k" && !new RegExp(`^${pattern.source}$`).test(match[0]))) continue;
    fragment.append(text.slice(end, match.index));
    const span = document.createElement("span");
    span.className = name;
    span.textContent = match[0];
    fragment.append(span);
    end = match.index + match[0].length;
  }
  fragment.append(text.slice(end));
  return fragment;
}
