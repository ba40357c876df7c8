"use strict";
// Answers of a review: kept in the browser under the hash of the mask, saved as a table by a button.
{
  const review = document.querySelector("[data-store]");
  const cards = [...review.querySelectorAll("article")];
  const keys = { r: "right", 1: "right", w: "wrong", 2: "wrong", u: "unsure", 3: "unsure" };
  const said = (() => {
    try { return JSON.parse(localStorage.getItem(review.dataset.store)) ?? {}; } catch { return {}; }
  })();
  const status = document.getElementById("answered");

  function answerOf(card) {
    return card.querySelector("input:checked")?.value ?? "";
  }
  function count() {
    status.textContent = `${cards.filter(answerOf).length} of ${cards.length} answered`;
  }
  function keep(card) {
    said[card.dataset.mask] = answerOf(card);
    card.dataset.answer = answerOf(card);
    try { localStorage.setItem(review.dataset.store, JSON.stringify(said)); } catch { /* kept by this page alone */ }
    count();
  }
  function current() {
    const focused = document.activeElement.closest("article");
    if (focused) return cards.indexOf(focused);
    const visible = cards.findIndex((card) => card.getBoundingClientRect().bottom > 80);
    return visible < 0 ? 0 : visible;
  }
  function go(place) {
    const card = cards[Math.min(Math.max(place, 0), cards.length - 1)];
    card.focus({ preventScroll: true });
    card.scrollIntoView({ block: "start" });
  }
  for (const card of cards) {
    const kept = said[card.dataset.mask];
    const box = kept && card.querySelector(`input[value="${CSS.escape(kept)}"]`);
    if (box) box.checked = true;
    card.dataset.answer = answerOf(card);
    card.addEventListener("change", () => keep(card));
  }
  count();
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !cards.length) return;
    const place = current();
    if (event.key === "j" || event.key === "k") {
      const onCard = document.activeElement.closest("article");
      go(event.key === "k" ? place - 1 : onCard ? place + 1 : place);
      return;
    }
    const answer = keys[event.key];
    if (!answer) return;
    event.preventDefault();
    cards[place].querySelector(`input[value="${answer}"]`).checked = true;
    keep(cards[place]);
    go(place + 1);
  });

  function cell(text) {
    const number = /^[+-]?\d+(\.\d+)?$/.test(text);
    const safe = number ? text : text.replace(/(^|;)(?=\s*[=+@＝＋－＠-])/g, "$1'");
    return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  }
  document.getElementById("save").addEventListener("click", () => {
    const rows = cards.filter(answerOf).map((card) =>
      [review.dataset.dataset, card.dataset.case, card.dataset.mask, answerOf(card)]);
    const table = [review.dataset.columns.split(","), ...rows].map((row) => row.map(cell).join(",")).join("\n") + "\n";
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([table], { type: "text/csv" }));
    link.download = `answers_${review.dataset.dataset}.csv`;
    link.click();
    URL.revokeObjectURL(link.href);
  });
}
