// Tables that are wider than the page scroll by keyboard too, and the search has a name.
const mend = () => {
  document
    .querySelectorAll(".md-typeset__scrollwrap:not([tabindex])")
    .forEach((box) => (box.tabIndex = 0));
  document.querySelector(".md-search:not([aria-label])")?.setAttribute("aria-label", "Search");
};
new MutationObserver(mend).observe(document.body, { childList: true, subtree: true });
mend();
