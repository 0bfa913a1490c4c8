"use strict";
// The gallery: filters, order, cards and the dialog of one image. Data: see Gallery.as_json.
const data = JSON.parse(document.getElementById("data").textContent);
const used = data.models[0];
const controls = document.getElementById("controls");
const cards = document.getElementById("cards");
const more = document.getElementById("more");
const dialog = document.getElementById("image");
const AT_ONCE = 60;

let listed = []; // images that the filters let through, in order
let drawn = 0; // cards so far
let open = -1; // position in `listed` of the image in the dialog

const share = (thousandths) => (thousandths / 1000).toFixed(3);

function element(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

const ORDERS = {
  loss: (a, b) => used.label_scores[a] - used.label_scores[b],
  doubt: (a, b) => used.scores[a] - used.scores[b],
  sure: (a, b) => used.scores[b] - used.scores[a],
  path: (a, b) => (data.paths[a] < data.paths[b] ? -1 : 1),
};

function update() {
  const { filter, label, predicted, order } = Object.fromEntries(new FormData(controls));
  listed = data.filters[filter].images.filter((i) =>
    (label === "" || data.labels[i] === Number(label)) && (predicted === "" || used.predicted[i] === Number(predicted)));
  listed.sort((a, b) => ORDERS[order](a, b) || a - b);
  const about = data.filters[filter].about;
  document.getElementById("count").textContent = `${listed.length} of ${data.paths.length} images. ${about}`;
  cards.replaceChildren();
  drawn = 0;
  draw();
}

function draw() {
  const from = drawn;
  drawn = Math.min(listed.length, drawn + AT_ONCE);
  for (let k = from; k < drawn; k++) cards.append(card(k));
  more.hidden = drawn === listed.length;
}

function verdict(model, i) {
  const right = model.predicted[i] === data.labels[i];
  const text = `${right ? "✓" : "✗"} ${data.classes[model.predicted[i]]}`;
  return element("span", { className: right ? "right" : "wrong" }, text);
}

function card(k) {
  const i = listed[k];
  const heat = new FormData(controls).get("heat");
  const button = element("button", { type: "button" }, picture(i, heat ? data.heat[heat] : null),
    element("span", {}, data.classes[data.labels[i]]), element("br"),
    verdict(used, i), ` ${share(used.scores[i])}`);
  button.addEventListener("click", () => show(k));
  return element("li", {}, button);
}

function picture(i, heat) {
  const box = element("span", { className: "picture" });
  if (data.thumbnails[i]) {
    box.append(element("img", { alt: data.paths[i], src: `data:image/webp;base64,${data.thumbnails[i]}` }));
  } else {
    box.append(data.paths[i]);
  }
  if (heat && heat.maps[i]) {
    box.classList.add("heated");
    box.append(overlay(heat, i));
  }
  return box;
}

// From transparent by orange to yellow, on a grey picture: brighter and more opaque where the model looks, for any colour vision.
function overlay(heat, i) {
  const canvas = element("canvas", { width: heat.width, height: heat.height });
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(heat.width, heat.height);
  Array.from(atob(heat.maps[i]), (c) => c.charCodeAt(0)).forEach((value, k) => {
    pixels.data.set([213 + (42 * value) / 255, 60 + (195 * value) / 255, 0, value * 0.8], 4 * k);
  });
  context.putImageData(pixels, 0, 0);
  return canvas;
}

function show(k) {
  open = k;
  const i = listed[k];
  document.getElementById("path").textContent = data.paths[i];
  document.getElementById("label").textContent = `Label: ${data.classes[data.labels[i]]}`;
  const pictures = [["as the network sees it", null], ...data.heat.filter((h) => h.maps[i]).map((h) => [h.title, h])];
  document.getElementById("pictures").replaceChildren(...pictures.map(([title, heat]) =>
    element("figure", {}, picture(i, heat), element("figcaption", {}, title))));
  document.getElementById("scores").replaceChildren(...data.models.map((model) => element("tr", {},
    element("th", { scope: "row" }, model.name), element("td", {}, verdict(model, i)),
    element("td", {}, share(model.scores[i])), element("td", {}, share(model.label_scores[i])))));
  // Not `disabled`, which would take the focus out of the dialog, and with it the arrow keys.
  document.getElementById("previous").ariaDisabled = k === 0;
  document.getElementById("next").ariaDisabled = k === listed.length - 1;
  if (!dialog.open) dialog.showModal();
}

function step(by) {
  const k = open + by;
  if (k < 0 || k >= listed.length) return;
  while (k >= drawn) draw();
  show(k);
}

controls.addEventListener("change", update);
controls.addEventListener("submit", (event) => event.preventDefault());
more.addEventListener("click", () => {
  const first = drawn;
  draw();
  cards.children[first].querySelector("button").focus();
});
document.getElementById("previous").addEventListener("click", () => step(-1));
document.getElementById("next").addEventListener("click", () => step(1));
dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
dialog.addEventListener("close", () => cards.children[open].querySelector("button").focus());
controls.hidden = false;
update();
