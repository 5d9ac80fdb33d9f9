// What the theme and the tables' library leave open: dark tables, keys and screen readers, printed tables with all of their rows.

function follow() {
  document.documentElement.classList.toggle("dark", document.documentElement.dataset.theme === "dark");
}

function lengths(choose) {
  for (const select of document.querySelectorAll(".nflib-table .dt-length select")) {
    select.value = choose(select.options).value;
    select.dispatchEvent(new Event("change", { bubbles: true }));
  }
}

function unbroken() { // a number and its per cent sign stay in one line
  const texts = document.createTreeWalker(document.querySelector("article") ?? document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode;
    if (!text.parentElement.closest("pre, script, style")) text.data = text.data.replace(/(\d) %/g, "$1\u00a0%");
  }
}

addEventListener("DOMContentLoaded", () => {
  follow();
  unbroken();
  new MutationObserver(follow).observe(document.documentElement, { attributeFilter: ["data-theme"] });
});
addEventListener("load", () => {
  for (const summary of document.querySelectorAll(".bd-sidebar summary")) summary.ariaLabel = "Sections of this page";
  const visible = "details.hide > summary, .search-button-field, .theme-switch-button"; // the theme's names hide what one sees
  for (const control of document.querySelectorAll(visible)) control.removeAttribute("aria-label");
  for (const list of document.querySelectorAll(".citation-list[role=list]")) list.removeAttribute("role"); // its items have another
  const scrollable = () => document.querySelectorAll(".dt-scroll-body").forEach((box) => (box.tabIndex = 0));
  scrollable();
  new MutationObserver(scrollable).observe(document.body, { childList: true, subtree: true }); // tables come when they are seen
});
addEventListener("beforeprint", () => lengths((options) => options[options.length - 1]));
addEventListener("afterprint", () => lengths((options) => options[0]));
