"use strict";
// Sort a table by a click on its header; undefined values stay last. Open everything for print. Slice viewers.
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
  for (const details of document.querySelectorAll("details")) details.open = true;
});

function bytes(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
}
function outlineColours(colour) {
  const channel = (place) => [0, parseInt(colour.slice(place, place + 2), 16)];
  return { R: channel(1), G: channel(3), B: channel(5), A: [0, 255], I: [0, 1], labels: ["", "outline"] };
}
async function openViewer(details, volume) {
  const view = new niivue.Niivue({
    backColor: [0, 0, 0, 1], crosshairWidth: 0, dragAndDropEnabled: false, isColorbar: false,
    isOrientationTextVisible: false, logLevel: "silent",
  });
  await view.attachToCanvas(details.querySelector("canvas"));
  view.setSliceType(view.sliceTypeAxial);
  const name = (index) => `${index}.nii.gz`;
  view.addVolume(
    await niivue.NVImage.loadFromUrl({ url: bytes(volume.image), name: name(0), cal_min: 0, cal_max: 255 }),
  );
  for (const [index, layer] of volume.layers.entries()) {
    const outline = await niivue.NVImage.loadFromUrl({ url: bytes(layer.volume), name: name(index + 1) });
    outline.setColormapLabel(outlineColours(layer.colour));
    view.addVolume(outline);
  }
  const slider = details.querySelector("input[type=range]");
  const show = () => {
    const z = (slider.value - 0.5) / volume.slices;
    view.scene.crosshairPos = [0.5, 0.5, z];
    details.querySelector("output").value = slider.value;
    view.drawScene();
  };
  const boxes = details.querySelectorAll("input[type=checkbox]");
  const toggle = (box) => view.setOpacity(Number(box.dataset.layer), box.checked ? 1 : 0);
  slider.addEventListener("input", show);
  view.onLocationChange = (place) => {
    slider.value = place.vox[2] + 1;
    details.querySelector("output").value = slider.value;
  };
  for (const box of boxes) {
    box.addEventListener("change", () => toggle(box));
    toggle(box);
  }
  show();
  details.dataset.ready = "yes";
}
for (const details of document.querySelectorAll("details.viewer")) {
  details.addEventListener("toggle", () => {
    if (!details.open || details.dataset.opened) return;
    details.dataset.opened = "yes";
    const volumes = JSON.parse(document.getElementById("volumes").textContent);
    openViewer(details, volumes[details.dataset.case]).catch((error) => {
      const warning = details.querySelector(".warning");
      warning.textContent = `The viewer does not work in this browser (${error.message}); it needs WebGL 2.`;
      warning.hidden = false;
    });
  });
}
