// Small corrections of the theme, for people who use a keyboard or a screen reader.

// Regions and headings that have no name or level.
for (const caption of document.querySelectorAll('p.caption[role="heading"]')) {
  caption.setAttribute("aria-level", "2");
}
document.querySelector("aside.sidebar-drawer")?.setAttribute("aria-label", "Pages");
document.querySelector("aside.toc-drawer")?.setAttribute("aria-label", "This page");
const view = document.querySelector(".view-this-page");
view?.setAttribute("role", "navigation");
view?.setAttribute("aria-label", "Source");
if (!document.querySelector("h1")) {
  const heading = document.createElement("h1");
  heading.className = "site-unseen";
  heading.textContent = document.title;
  document.querySelector("article")?.prepend(heading);
}
// The first cell of a table may be empty, and is then not a heading.
for (const cell of document.querySelectorAll("th")) {
  if (!cell.textContent.trim()) {
    const plain = document.createElement("td");
    plain.className = cell.className;
    cell.replaceWith(plain);
  }
}

// Code and tables that are wider than the page can be scrolled by keyboard.
function markScrollable() {
  for (const part of document.querySelectorAll(".highlight pre, .table-wrapper")) {
    if (part.querySelector("textarea")) continue;
    if (part.scrollWidth > part.clientWidth) part.tabIndex = 0;
    else part.removeAttribute("tabindex");
  }
}
markScrollable();
addEventListener("resize", markScrollable);
