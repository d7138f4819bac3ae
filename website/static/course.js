"use strict";
// The arrows that unfold the sidebar say what they unfold.
window.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".bd-sidebar-primary summary").forEach((arrow) => {
    const parent = arrow.closest("li").querySelector("a");
    arrow.setAttribute("aria-label", `Pages under ${parent.textContent.trim()}`);
  });
});
// A formula that is too wide scrolls, and can be reached by keyboard.
function reachWideFormulas() {
  document.querySelectorAll('mjx-container[display="true"]').forEach((formula) => {
    if (formula.scrollWidth > formula.clientWidth) formula.tabIndex = 0;
    else formula.removeAttribute("tabindex");
  });
}
window.addEventListener("load", () => window.MathJax?.startup?.promise.then(reachWideFormulas));
window.addEventListener("resize", reachWideFormulas);
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
