// Says above each table that is wider than the page that it scrolls, and lets keys scroll it.
(() => {
  const hints = new Map();

  function update(container) {
    const scrolls = container.scrollWidth > container.clientWidth + 1;
    let hint = hints.get(container);
    if (scrolls && !hint) {
      hint = document.createElement("p");
      hint.className = "scroll-hint";
      hint.textContent = "\u2194 This table scrolls sideways.";
      container.before(hint);
      hints.set(container, hint);
    }
    if (hint) {
      hint.hidden = !scrolls;
    }
    if (scrolls) {
      container.tabIndex = 0;
    } else {
      container.removeAttribute("tabindex");
    }
  }

  const observer = new ResizeObserver((entries) => {
    entries.forEach((entry) => update(entry.target));
  });
  document.querySelectorAll(".pst-scrollable-table-container").forEach((container) => {
    observer.observe(container);
  });
})();
