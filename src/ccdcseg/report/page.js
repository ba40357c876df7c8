"use strict";
// Sort a table by a click on its header; undefined values stay last. Open everything for print. Links. Slice viewer.
for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("thead th").forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const ascending = header.getAttribute("aria-sort") !== "ascending";
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const order = (first, second) => {
        const [a, b] = [value(first), value(second)];
        if (a === "" || b === "") return (a === "") - (b === "");
        const compared = a - b || String(a).localeCompare(String(b), undefined, { numeric: true });
        return ascending ? compared : -compared;
      };
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort(order));
    });
  });
}
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details:not(.viewer)")) details.open = true;
});

// Marks of a plot are one stop of the tab key; arrow keys go from mark to mark.
for (const figure of document.querySelectorAll("figure svg")) {
  const marks = [...figure.querySelectorAll("a")];
  const stopAt = (chosen) => marks.forEach((mark) => mark.setAttribute("tabindex", mark === chosen ? 0 : -1));
  stopAt(marks[0]);
  figure.addEventListener("keydown", (event) => {
    const next = marks[marks.indexOf(event.target) + { ArrowLeft: -1, ArrowRight: 1 }[event.key]];
    if (!next) return;
    event.preventDefault();
    stopAt(next);
    next.focus();
  });
}

// A link opens what encloses its target; one with a scan also leads to that scan in the viewer.
const viewer = document.querySelector("details.viewer");
function reveal(hash) {
  const target = document.getElementById(decodeURIComponent(hash.slice(1)));
  if (viewer && target === viewer.parentElement) viewer.open = true;
  for (let box = target?.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
  return target;
}
document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]');
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  reveal(link.getAttribute("href"));
  if (link.dataset.scan === undefined) return;
  event.preventDefault();
  location.hash = link.getAttribute("href");
  showScan(link.dataset.scan);
});
addEventListener("hashchange", () => reveal(location.hash));

function bytes(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
}
function outlineColours(colour) {
  const channel = (place) => [0, parseInt(colour.slice(place, place + 2), 16)];
  return { R: channel(1), G: channel(3), B: channel(5), A: [0, 255], I: [0, 1], labels: ["", "outline"] };
}
async function makeView(canvas) {
  const view = new niivue.Niivue({
    backColor: [0, 0, 0, 1], crosshairWidth: 0, dragAndDropEnabled: false, isColorbar: false,
    isOrientationTextVisible: false, logLevel: "silent",
  });
  await view.attachToCanvas(canvas);
  view.setSliceType(view.sliceTypeAxial);
  return view;
}
async function unpack(scan) {
  const load = (volume, index) => niivue.NVImage.loadFromUrl({
    url: bytes(volume), name: `${index}.nii.gz`, cal_min: 0, cal_max: index ? 1 : 255,
  });
  const images = await Promise.all([scan.image, ...scan.layers.map((layer) => layer.volume)].map(load));
  scan.layers.forEach((layer, index) => images[index + 1].setColormapLabel(outlineColours(layer.colour)));
  return images;
}

// One NiiVue for all scans, made when the viewer is first opened; a scan is unpacked when it is chosen.
const choice = viewer?.querySelector("select");
let view, scan, isLoading = false;
function showSlice() {
  const slider = viewer.querySelector("input[type=range]");
  viewer.querySelector("output").value = `${slider.value} of ${scan.slices}`;
  view.scene.crosshairPos = [0.5, 0.5, (slider.value - 0.5) / scan.slices];
  view.drawScene();
}
function zoom() {
  const whole = viewer.querySelector(".field").checked;
  const [left, top, right, bottom] = whole ? [0, 0, 1, 1] : scan.focus;
  const factor = 1 / Math.max(right - left, bottom - top);
  const centre = view.frac2mm([0.5, 0.5, 0.5]);
  const target = view.frac2mm([(left + right) / 2, 1 - (top + bottom) / 2, 0.5]);
  view.setPan2Dxyzmm([0, 1, 2].map((axis) => centre[axis] - factor * target[axis]).concat(factor));
}
function describe() {
  const slider = viewer.querySelector("input[type=range]");
  [slider.max, slider.value] = [scan.slices, scan.first_slice + 1];
  viewer.querySelector("canvas").setAttribute("aria-label", `Slices of ${scan.case} with outlines`);
  const row = viewer.querySelector(".choice a");
  row.href = choice.selectedOptions[0].dataset.row;
  row.textContent = `scores of ${scan.patient}`;
  viewer.querySelectorAll("fieldset label").forEach((label, index) => {
    label.querySelector(".name").textContent = scan.layers[index].label;
    label.querySelector(".small").textContent = scan.layers[index].scores;
  });
}
async function change(place) {
  const next = JSON.parse(document.getElementById(`scan-${place}`).textContent);
  view ??= await makeView(viewer.querySelector("canvas"));
  const images = await unpack(next);
  const boxes = [...viewer.querySelectorAll("fieldset input")];
  boxes.forEach((box, index) => { images[index + 1].opacity = box.checked ? 1 : 0; });
  scan = next;
  view.volumes = images;
  view.setVolume(images[0], 0);
  describe();
  zoom();
  showSlice();
  view.onLocationChange = ({ vox }) => {
    viewer.querySelector("input[type=range]").value = vox[2] + 1;
    viewer.querySelector("output").value = `${vox[2] + 1} of ${scan.slices}`;
  };
  viewer.dataset.shown = place;
}
async function update() {
  if (isLoading || !viewer.open) return;
  isLoading = true;
  const warning = viewer.querySelector(".warning");
  try {
    while (viewer.dataset.shown !== choice.value) await change(choice.value);
    warning.hidden = true;
  } catch (error) {
    warning.textContent = `The viewer does not work in this browser (${error.message}); it needs WebGL 2.`;
    warning.hidden = false;
  }
  isLoading = false;
}
function showScan(place) {
  choice.value = place;
  viewer.open = true;
  viewer.scrollIntoView();
  choice.focus({ preventScroll: true });
  update();
}
if (viewer) {
  viewer.addEventListener("toggle", update);
  choice.addEventListener("change", update);
  viewer.querySelector("input[type=range]").addEventListener("input", () => { if (scan) showSlice(); });
  viewer.querySelector(".field").addEventListener("change", () => { if (scan) zoom(); });
  for (const button of viewer.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      choice.selectedIndex = (choice.selectedIndex + Number(button.dataset.step) + choice.length) % choice.length;
      update();
    });
  }
  viewer.querySelectorAll("fieldset input").forEach((box, index) => {
    box.addEventListener("change", () => { if (scan) view.setOpacity(index + 1, box.checked ? 1 : 0); });
  });
}
reveal(location.hash)?.scrollIntoView();
