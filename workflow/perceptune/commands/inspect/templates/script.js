// Keys for lists and questions; everything also works without this file.
"use strict";

const rows = [...document.querySelectorAll(".row")];
let at = rows.findIndex((row) => row.classList.contains("marked"));

function move(step) {
  at = Math.min(Math.max(at + step, 0), rows.length - 1);
  const target = rows[at].querySelector("a.open, summary") || rows[at];
  if (target === rows[at]) target.tabIndex = -1;
  target.focus({ preventScroll: true });
  rows[at].scrollIntoView({ block: "nearest" });
}

function follow(relation) {
  const link = document.querySelector(`a[rel="${relation}"]`);
  if (link) link.click();
}

const keys = {
  j: () => rows.length && move(1),
  k: () => rows.length && move(-1),
  n: () => follow("next"),
  p: () => follow("prev"),
  u: () => follow("up"),
  "/": () => {
    const field = document.querySelector('input[name="text"]');
    if (field) field.closest("details").open = true;
    field?.focus();
  },
};

// speech input can trigger single keys, so they can be turned off
const toggle = document.querySelector(".keys input");
toggle.parentElement.hidden = false;
toggle.checked = localStorage.getItem("keys") !== "off";
toggle.addEventListener("change", () => localStorage.setItem("keys", toggle.checked ? "on" : "off"));

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, select, textarea");
  if (event.key === "Escape" && typing) typing.blur();
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !toggle.checked || !(event.key in keys)) return;
  event.preventDefault();
  keys[event.key]();
});
// on narrow screens, the list comes before the filter
if (matchMedia("(max-width: 720px)").matches) {
  for (const box of document.querySelectorAll(".filter-box")) box.open = !document.querySelector(".rows");
}
// keeps addresses short: empty fields are not part of them
for (const form of document.querySelectorAll("form")) {
  form.addEventListener("submit", () => {
    for (const field of form.elements) if (field.name && field.value === "") field.disabled = true;
  });
}
// fields must work again after the browser's back button
window.addEventListener("pageshow", () => {
  for (const field of document.querySelectorAll("form :disabled")) field.disabled = false;
});
