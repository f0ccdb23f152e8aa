// What needs a script: the drawer's manners, one shortcut, two copy buttons, and dropping a video.
(() => {
  "use strict";
  const wide = matchMedia("(min-width: 1024px)");
  const find = (selector) => document.querySelector(selector);

  // ---------------------------------------------------------------- drawer
  // Gradio's Sidebar opens and closes; scrim, Escape, focus and what is read aloud are added here.
  function drawer() {
    const side = find("#drawer");
    const toggle = side && side.querySelector(".toggle-button");
    if (!toggle) return false;
    const content = side.querySelector(".sidebar-content");
    content.id = "drawer-content";
    toggle.setAttribute("aria-controls", content.id);
    const scrim = document.createElement("div");
    scrim.className = "scrim";
    document.body.append(scrim);
    let before = null;
    const open = () => side.classList.contains("open");
    const sync = () => {
      const over = open() && !wide.matches;
      document.body.classList.toggle("drawer-open", over);
      toggle.setAttribute("aria-expanded", String(open()));
      toggle.setAttribute("aria-label", open() ? "Close the menu" : "Open the menu");
      content.inert = !wide.matches && !open();
      const page = find("#studio");
      if (page) page.inert = over;
    };
    const close = () => {
      if (open() && !wide.matches) toggle.click();
    };
    let was = open();
    new MutationObserver(() => {
      if (open() === was) return;
      was = open();
      sync();
      if (wide.matches) return;
      if (was) {
        before = document.activeElement;
        (content.querySelector("input:checked") || toggle).focus();
      } else {
        toggle.focus();
      }
    }).observe(side, { attributes: true, attributeFilter: ["class"] });
    wide.addEventListener("change", sync);
    scrim.addEventListener("click", close);
    // A click, not a change: choosing the mode that is already chosen closes the drawer too.
    side.addEventListener("click", (event) => {
      if (event.target.matches("#mode input") && !keyed) close();
    });
    // Arrow keys walk through the modes; only a click or Enter is a choice that closes the drawer.
    let keyed = false;
    side.addEventListener("keydown", (event) => {
      keyed = event.key.startsWith("Arrow");
      if (event.key === "Enter" && event.target.closest("#mode")) close();
    });
    side.addEventListener("pointerdown", () => (keyed = false));
    document.addEventListener("keydown", (event) => {
      if (!open() || wide.matches) return;
      if (event.key === "Escape") close();
      if (event.key === "Tab") keep(event, side);
    });
    sync();
    return true;
  }

  function keep(event, side) {
    const all = [...side.querySelectorAll("button, input, a[href], [tabindex='0']")];
    const stops = all.filter((e) => !e.disabled && e.offsetParent !== null);
    const radios = stops.filter((e) => e.type === "radio" && !e.checked);
    const ring = stops.filter((e) => !radios.includes(e));
    const at = ring.indexOf(document.activeElement);
    const next = event.shiftKey ? at - 1 : at + 1;
    event.preventDefault();
    ring[(next + ring.length) % ring.length].focus();
  }

  // ---------------------------------------------------------------- shortcut and copies
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    const button = find("#generate");
    if (!button || button.disabled || button.offsetParent === null) return;
    event.preventDefault();
    // A text box reports its value when it is left; it has to be the new one.
    if (document.activeElement) document.activeElement.blur();
    setTimeout(() => button.click(), 60);
  });

  async function copy(text) {
    if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const request = button.dataset.text;
    const here = location.href.split("#")[0];
    const text = button.dataset.copy === "link" ? `${here}#request=${encodeURIComponent(request)}` : request;
    const label = button.textContent;
    try {
      await copy(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Copying is blocked";
    }
    setTimeout(() => (button.textContent = label), 1600);
  });

  // ---------------------------------------------------------------- dropping a video made here
  // Drops on an upload field are Gradio's; anywhere else they fill the form.
  const ours = (event) =>
    event.dataTransfer && [...event.dataTransfer.types].includes("Files") &&
    !(event.target.closest && event.target.closest(".block:has(input[type=file])"));

  function dropping() {
    const note = document.createElement("div");
    note.className = "drop-here";
    note.textContent = "Drop a video made here: its settings fill the form";
    document.body.append(note);
    const mark = (on) => document.body.classList.toggle("dropping", on);
    document.addEventListener("dragover", (event) => {
      const mine = ours(event);
      mark(Boolean(mine));
      if (mine) event.preventDefault();
    });
    document.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) mark(false);
    });
    document.addEventListener("drop", (event) => {
      mark(false);
      if (!ours(event)) return;
      event.preventDefault();
      const input = find("#reopen")?.parentElement?.querySelector("input[type=file]") || find("input#reopen");
      const file = event.dataTransfer.files[0];
      if (!input || !file) return;
      const list = new DataTransfer();
      list.items.add(file);
      input.files = list.files;
      input.dispatchEvent(new Event("change", { bubbles: true }));
    });
  }

  function ready() {
    if (!drawer()) return false;
    dropping();
    return true;
  }
  const watch = new MutationObserver(() => {
    if (ready()) watch.disconnect();
  });
  document.addEventListener("DOMContentLoaded", () => {
    if (!ready()) watch.observe(document.body, { childList: true, subtree: true });
  });
  if (document.readyState !== "loading" && document.body && !ready()) {
    watch.observe(document.body, { childList: true, subtree: true });
  }
})();
