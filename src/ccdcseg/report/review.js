"use strict";
// Answers of a review: kept in the browser by case and mask, saved as a table by a button.
{
  const review = document.querySelector("[data-store]");
  const cards = [...review.querySelectorAll("article")];
  const keys = { r: "right", 1: "right", w: "wrong", 2: "wrong", u: "unsure", 3: "unsure" };
  const bar = review.querySelector(".bar");
  const status = document.getElementById("answered");
  const unkept = new Set();  // cards whose answers this page alone has
  let chosenAt, isKept, isSaved = true, saved = 0;

  function answerOf(card) {
    return card.querySelector("input:checked")?.value ?? "";
  }
  function writtenIn(card) {
    return card.querySelector("input[checked]")?.value ?? "";
  }
  function keyOf(card) {
    return keyIn(`${card.dataset.case} ${card.dataset.mask}`);
  }
  // Each answer has a place of its own: pages that answer at the same time do not write over each other.
  function keyIn(place) {
    return `${review.dataset.store} ${place}`;
  }
  function read(key) {
    try { return JSON.parse(localStorage.getItem(key)); } catch { return null; }
  }
  function inBrowser(act) {
    try {
      act();
      isKept = true;
    } catch { isKept = false; }  // refused, or full
    document.getElementById("kept").textContent = isKept
      ? "Answers are kept in this browser."
      : "This browser keeps no answers: save them before you leave the page.";
  }
  function keep(card) {
    isSaved = false;
    unkept.add(card);
    inBrowser(() => {
      for (const one of unkept) {
        localStorage.setItem(keyOf(one), JSON.stringify({ answer: answerOf(one), insteadOf: writtenIn(one) }));
        unkept.delete(one);
      }
    });
    tell();
  }
  // An answer that the page was written with stands, unless the browser's was given instead of it.
  function counts(said, card) {
    return said && ["", said.insteadOf].includes(writtenIn(card));
  }
  // What review.csv has taken up or overruled is not said again, whatever it says later. Done when a page is
  // opened, not when another one keeps an answer: open pages leave each other theirs.
  function forget() {
    inBrowser(() => {
      spread();
      for (const card of cards) if (!counts(read(keyOf(card)), card)) localStorage.removeItem(keyOf(card));
    });
  }
  // Pages of before kept all answers of a data set in one place.
  function spread() {
    for (const [place, said] of Object.entries(read(review.dataset.store) ?? {})) {
      if (!read(keyIn(place))) localStorage.setItem(keyIn(place), JSON.stringify(said));
    }
    localStorage.removeItem(review.dataset.store);
  }
  function show() {
    for (const card of cards) {
      const said = read(keyOf(card));
      if (counts(said, card)) card.querySelector(`input[value="${said.answer}"]`).checked = true;
    }
    tell();
  }
  function tell() {
    for (const card of cards) card.dataset.answer = answerOf(card);
    status.textContent = `${cards.filter(answerOf).length} of ${cards.length} answered`;
  }
  function pixelsSeen(card) {
    const box = card.getBoundingClientRect();
    return Math.min(box.bottom, innerHeight) - Math.max(box.top, bar.getBoundingClientRect().bottom);
  }
  function isWhole(card) {
    return pixelsSeen(card) > card.offsetHeight - 1;
  }
  // The one that was gone to or clicked on, until the page is scrolled: then the one of which most is seen.
  function current() {
    const focused = document.activeElement.closest("article");
    if (focused && pixelsSeen(focused) > 0 && (scrollY === chosenAt || isWhole(focused))) return focused;
    const [most] = [...cards].sort((one, other) => pixelsSeen(other) - pixelsSeen(one));
    return pixelsSeen(most) > 0 ? most : undefined;
  }
  function go(place) {
    const card = cards[Math.min(Math.max(place, 0), cards.length - 1)];
    card.focus({ preventScroll: true });
    review.style.setProperty("--bar", `${bar.offsetHeight}px`);  // more lines on a narrow window
    card.scrollIntoView({ block: "start", behavior: "instant" });  // the next key is for what is seen
    chosenAt = scrollY;
  }
  for (const card of cards) card.addEventListener("click", () => { chosenAt = scrollY; });
  for (const card of cards) card.addEventListener("change", () => keep(card));
  addEventListener("storage", show);
  forget();
  show();
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !cards.length) return;
    const card = current();
    const place = cards.indexOf(card);
    if (event.key === "j" || event.key === "k") {
      const isFocused = card?.contains(document.activeElement);
      go(event.key === "k" ? place - 1 : isFocused ? place + 1 : place);
      return;
    }
    const answer = keys[event.key];
    if (!answer || event.repeat) return;
    event.preventDefault();
    if (card) {
      card.querySelector(`input[value="${answer}"]`).checked = true;
      keep(card);
    }
    go(place + 1);
  });

  function cell(text) {
    const number = /^[+-]?\d+(\.\d+)?$/.test(text);
    const safe = number ? text : text.replace(/(^|;)(?=\s*[=+@＝＋－＠-])/g, "$1'");
    return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  }
  addEventListener("beforeunload", (event) => {
    if (!isKept && !isSaved) event.preventDefault();
  });

  // For a name that no other save has: browsers give the second file of a name another one.
  function nextTime() {
    saved = Math.max(Date.now(), saved + 1000);
    const local = new Date(saved - new Date(saved).getTimezoneOffset() * 60000);
    return local.toISOString().slice(0, 19).replace("T", "_").replaceAll(":", "-");
  }
  document.getElementById("save").addEventListener("click", () => {
    const rows = cards.filter(answerOf).map((card) =>
      [review.dataset.dataset, card.dataset.case, card.dataset.mask, answerOf(card)]);
    const table = [review.dataset.columns.split(","), ...rows].map((row) => row.map(cell).join(",")).join("\n") + "\n";
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([table], { type: "text/csv" }));
    const time = nextTime();
    link.download = `${review.dataset.file}${time}.csv`;
    link.click();
    URL.revokeObjectURL(link.href);
    isSaved = true;
    const command = document.getElementById("keeping");
    command.textContent = `${command.dataset.start}${time}.csv`;
  });
}
