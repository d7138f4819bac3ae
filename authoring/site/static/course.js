"use strict";
// The arrows that unfold the sidebar say what they unfold.
window.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".bd-sidebar-primary summary").forEach((arrow) => {
    const parent = arrow.closest("li").querySelector("a");
    arrow.setAttribute("aria-label", `Pages under ${parent.textContent.trim()}`);
  });
});
// What is too wide scrolls, fades where it goes on, and can be reached by keyboard.
const WIDE = 'mjx-container[display="true"], .scroll, .bd-content pre, .bd-content figure > a, '
  + ".pst-scrollable-table-container, .output.text_html";
function fadeOrNot(part) {
  const hidden = part.scrollWidth - part.clientWidth - part.scrollLeft;
  part.classList.toggle("goes-on", hidden > 1);
}
function markWide() {
  document.querySelectorAll(WIDE).forEach((part) => {
    fadeOrNot(part);
    if (part.localName !== "mjx-container") return;
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
