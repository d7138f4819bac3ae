"use strict";
// The arrows that unfold the sidebar say what they unfold.
window.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".bd-sidebar-primary summary").forEach((arrow) => {
    const parent = arrow.closest("li").querySelector("a");
    arrow.setAttribute("aria-label", `Pages under ${parent.textContent.trim()}`);
  });
});
// On a phone a name in a table may break where one of its parts ends.
window.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".bd-content td code .pre").forEach((name) => {
    const [first, ...others] = name.textContent.split(/(?<=\w[._(=])(?=[A-Za-z])/);
    name.replaceChildren(first, ...others.flatMap((part) => [document.createElement("wbr"), part]));
  });
});
// A number such as 1e-16 in a table keeps its exponent.
window.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("table.dataframe td").forEach((cell) => {
    cell.classList.toggle("one-number", /^\S*\de-\d+$/.test(cell.textContent));
  });
});
// What is too wide scrolls, fades where it goes on, and can be reached by keyboard.
const WIDE = 'mjx-container[display="true"], .scroll, .bd-content pre, .bd-content figure > a, '
  + ".bd-content p:has(> img:only-child), .pst-scrollable-table-container, .output.text_html";
function fadeOrNot(part) {
  const hidden = part.scrollWidth - part.clientWidth - part.scrollLeft;
  part.classList.toggle("goes-on", hidden > 1);
}
function markWide() {
  document.querySelectorAll(WIDE).forEach((part) => {
    fadeOrNot(part);
    if (!part.matches("mjx-container, p")) return;
    if (part.scrollWidth > part.clientWidth) part.tabIndex = 0;
    else part.removeAttribute("tabindex");
  });
}
document.addEventListener("scroll", (event) => {
  if (event.target.matches?.(WIDE)) fadeOrNot(event.target);
}, true);
document.addEventListener("toggle", markWide, true);
window.addEventListener("load", markWide);
window.addEventListener("load", () => window.MathJax?.startup?.promise.then(markWide));
window.addEventListener("resize", markWide);
// Folds are opened on paper, and closed again afterwards.
window.addEventListener("beforeprint", () => {
  document.querySelectorAll("details:not([open])").forEach((fold) => {
    fold.open = true;
    fold.dataset.printed = "";
  });
});
window.addEventListener("afterprint", () => {
  document.querySelectorAll("details[data-printed]").forEach((fold) => {
    fold.open = false;
    delete fold.dataset.printed;
  });
});
