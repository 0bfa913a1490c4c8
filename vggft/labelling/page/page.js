// The page of vggft sort. A key press becomes an entry of `waiting`, which the server takes in order, each once; what the key
// belongs to is in the entry: the number of the picture that was shown. Names of files and classes are only ever text.

const token = location.hash.slice(1);
const name = Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join("-"); // of this window
const $ = (id) => document.getElementById(id);
const KEYS = "123456789abcdefghijklmnopqrstuvwxyz";
const MODES = ["order", "doubtful", "grid", "surest"];
const SCROLLS = { ArrowLeft: [-120, 0], ArrowRight: [120, 0], ArrowUp: [0, -120], ArrowDown: [0, 120] }; // pixels
const AHEAD = 10; // pictures that this window has, the shown one included
const GLANCE = 150; // milliseconds that a picture is shown before a key counts that was pressed while it was loading
const KEPT = 40; // previews in memory
const AGAIN = 1000; // milliseconds until a request that failed is sent again
const GONE = 10_000; // milliseconds until the next request after one that nothing has answered
const POLL = 1500; // milliseconds between questions about the state
const FORGOTTEN = 10_000; // milliseconds without a question, after which other windows get the pictures of this one
const BATCH = 40; // presses in a request

let state = null; // what the server said last, see Session.state
let mode = "order";
let upcoming = []; // pictures; in the modes of one picture, the first is shown
let shown = null; // id of the picture that a person can see; null while it loads
let selected = new Set(); // ids in the grid
let gridClass = ""; // which all pictures of a grid of the surest are suggested to be
let held = []; // keys that were pressed while their picture was loading: what each does with the picture shown then
let anchor = -1; // tile from which Shift selects
let presses = 0; // of this window
let history = []; // what this window can undo: {press, kind, pictures, step}
let waiting = JSON.parse(sessionStorage.getItem(token) ?? "[]"); // presses that the server has not taken yet
let sending = false;
let filling = false;
let answered = Date.now(); // when the server last said something about the state
let gone = false; // nothing answers
let epoch = 0; // counts changes of what is shown, after which answers to earlier questions are void
const previews = new Map(); // "id/side" → promise of the address of a preview

const inGrid = () => mode === "grid" || mode === "surest";
const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const counted = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
const percent = (p) => `${(100 * p).toFixed(p > 0.995 && p < 1 ? 1 : 0)}%`;

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

// Requests

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path, body, more = {}) {
  const options = { headers: { "X-Vggft-Token": token }, ...more };
  if (body) Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  if (body) options.headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(`/api/${path}`, options);
  } catch {
    throw new Refused(0, "vggft sort does not answer. If it has ended, start it again with the same command: within an hour, this page then goes on.");
  }
  if (answer.ok) return answer;
  const text = await answer.text();
  let message = text;
  try { message = JSON.parse(text).error; } catch { /* plain text */ }
  throw new Refused(answer.status, message);
}

const asked = async (path, body) => (await ask(path, body)).json();

let problem = ""; // why keys wait, or nothing is shown
function complain(error) {
  problem = error ? error.message : "";
  const kept = waiting.length ? ` ${counted(waiting.length, "key")} waiting; none is lost while this page stays open.` : "";
  $("problem").textContent = problem + (problem ? kept : "");
  $("problem").hidden = !problem;
}

function say(text) {
  $("message").textContent = text;
}

// Presses

function press(kind, more) {
  presses += 1;
  waiting.push({ window: name, number: presses, kind, choices: [], ids: [], step: 0, name: "", ...more });
  save();
  send();
  return presses;
}

function save() {
  try {
    sessionStorage.setItem(token, JSON.stringify(waiting));
  } catch { /* full: they are kept in memory */ }
}

// The presses of the next request: up to an undo whose step is known only when what it undoes is taken.
function batch() {
  const first = waiting[0];
  if (first.kind === "undo" && first.step === null) {
    first.step = state?.last_step ?? 0;
    save();
  }
  let length = 1;
  while (length < Math.min(waiting.length, BATCH) && waiting[length].step !== null) length += 1;
  return waiting.slice(0, length);
}

async function send() {
  if (sending) return;
  sending = true;
  while (waiting.length && state) {
    const sent = batch();
    try {
      const plain = sent.map(({ undoes, ...rest }) => rest);
      const { results, state: now } = await asked("presses", { presses: plain });
      waiting.splice(0, sent.length);
      sent.forEach((entry, i) => taken(entry, results[i]));
      save();
      complain(null);
      update(now);
    } catch (error) {
      complain(error);
      if (!error.status) break; // `poll` sends them when something answers again
      await sleep(AGAIN);
    }
  }
  sending = false;
  if (inGrid() || !upcoming.length) fill();
}

function taken(sent, result) {
  if (result.error) say(result.error);
  const entry = sent.window === name && history.find((item) => item.press === sent.number);
  if (entry) entry.step = result.step ?? 0;
  for (const later of waiting) {
    if (later.undoes === `${sent.window} ${sent.number}`) later.step = result.step ?? 0;
  }
  if (sent.kind === "undo") back(result.undone ?? []);
  if (sent.kind === "undo" && result.error) drop(sent.ids);
}

// Show pictures no more whose decision could not be undone.
function drop(ids) {
  upcoming = upcoming.filter((picture) => !ids.includes(picture.id));
  render();
}

// Show pictures first, unless the window has them.
function back(pictures) {
  const present = new Set(upcoming.map((picture) => picture.id));
  const missing = pictures.filter((picture) => !present.has(picture.id));
  if (!missing.length) return;
  if (mode === "surest") return backInGrid(missing);
  upcoming.unshift(...missing);
  if (!inGrid()) upcoming.length = Math.min(upcoming.length, AHEAD + missing.length);
  render();
}

// In a grid of the surest, all pictures have one suggestion: Enter confirms it for all of them.
function backInGrid(pictures) {
  restart();
  const [{ suggested }] = pictures;
  if (!suggested || pictures.some((picture) => picture.suggested !== suggested)) return;
  epoch += 1; // what `restart` has asked for is not shown
  gridClass = suggested;
  upcoming = pictures;
  render();
}

function choice(picture, label) {
  const { id, suggested, probability } = picture;
  return { id, label, suggested, probability };
}

function decide(label) {
  if (inGrid()) return decideSelected(label);
  whenShown((picture) => decideShown(picture, label));
}

function whenShown(act) {
  const [picture] = upcoming;
  if (!picture && !filling) return say(nothing());
  if (held.length || !picture || shown !== picture.id) return hold(act);
  act(picture);
}

function decideShown(picture, label) {
  const number = press("decide", { choices: [choice(picture, label)] });
  history.push({ press: number, kind: "decide", pictures: [picture], step: null });
  say(`${label || "Cannot tell"}: ${picture.name}`);
  flash(label);
  advance();
}

// A key that is pressed while its picture is loading counts when the picture has been shown for a moment.
function hold(act) {
  held.push(act);
  say(`Loading: ${counted(held.length, "key")} waiting for the picture. Backspace takes the last one back.`);
}

function release() {
  const [picture] = upcoming;
  if (!held.length || inGrid() || !picture || shown !== picture.id) return;
  setTimeout(() => {
    if (!held.length || upcoming[0] !== picture || shown !== picture.id) return;
    held.shift()(picture);
  }, GLANCE);
}

function decideSelected(label) {
  const pictures = upcoming.filter((picture) => selected.has(picture.id));
  if (!pictures.length) return say("Nothing is selected.");
  const rest = upcoming.filter((picture) => !selected.has(picture.id));
  const number = press("decide", { choices: pictures.map((picture) => choice(picture, label)) });
  history.push({ press: number, kind: "decide", pictures, step: null });
  if (mode === "surest" && rest.length) press("doubt", { ids: rest.map((picture) => picture.id) });
  say(`${label || "Cannot tell"}: ${counted(pictures.length, "picture")}`);
  flash(label);
  upcoming = mode === "surest" ? [] : rest;
  selected.clear();
  anchor = -1;
  render();
  fill();
}

function skip() {
  if (!inGrid() && held.length) hold(skipNow);
  else skipNow();
}

function skipNow() {
  const left = inGrid() ? upcoming.splice(0) : upcoming.slice(0, 1);
  if (!left.length) return;
  const number = press("skip", { ids: left.map((picture) => picture.id) });
  history.push({ press: number, kind: "skip", pictures: left, step: 0 });
  say(`Skipped: ${left.length === 1 ? left[0].name : counted(left.length, "picture")}`);
  if (inGrid()) selected.clear();
  if (inGrid()) render();
  else advance();
  fill();
}

function undo() {
  if (held.length) {
    held.pop();
    return say("Undone: a key that was waiting for its picture.");
  }
  const last = history.pop();
  if (!last) {
    if (!state?.last_step) return say("Nothing to undo.");
    press("undo", { step: null });
    return say("Undone: the last key of all windows.");
  }
  if (last.kind === "skip") press("unskip", { ids: last.pictures.map((picture) => picture.id) });
  else press("undo", { step: last.step, ids: last.pictures.map((picture) => picture.id), undoes: `${name} ${last.press}` });
  say(`Undone: ${last.pictures.length === 1 ? last.pictures[0].name : counted(last.pictures.length, "picture")}`);
  back(last.pictures);
}

function accept() {
  if (mode === "surest" && upcoming.length) decideSelected(gridClass);
  if (!inGrid()) whenShown(acceptShown);
}

function acceptShown(picture) {
  const label = picture.label || picture.suggested;
  if (label) return decideShown(picture, label);
  const rest = dropHeld(); // they were meant for later pictures
  say(`Nothing is suggested for ${picture.name}.${rest}`);
}

// Forget the keys that wait for pictures; return a sentence about them.
function dropHeld() {
  const dropped = held.length ? ` Dropped: ${counted(held.length, "key")} that waited for pictures.` : "";
  held = [];
  return dropped;
}

function addClass(label) {
  if (!label || state.classes.some((known) => known.name === label)) return;
  press("class", { name: label });
}

function flash(label) {
  const node = label ? [...$("classes").children].find((item) => item.dataset.name === label)?.firstChild : $("cannot");
  node?.classList.add("pressed");
  setTimeout(() => node?.classList.remove("pressed"), 160);
}

// What comes next

function advance() {
  upcoming.shift();
  render();
  fill();
}

function room() {
  if (!inGrid()) return AHEAD;
  const { clientWidth, clientHeight } = $("tiles");
  const tile = clientWidth < 700 ? 108 : 150;
  return Math.max(6, Math.min(60, Math.floor(clientWidth / tile) * Math.max(2, Math.floor((clientHeight - 40) / (tile + 45)))));
}

async function fill() {
  const missing = room() - upcoming.length;
  if (filling || !state || missing <= 0 || (mode === "surest" && upcoming.length)) return;
  if (mode === "surest" && waiting.length) return; // the next grid comes when this one is recorded
  filling = true;
  const asking = epoch;
  const mine = new Set(upcoming.map((picture) => picture.id));
  for (const sent of waiting) for (const id of [...sent.ids, ...sent.choices.map((c) => c.id)]) mine.add(id);
  try {
    const wanted = { window: name, mode: mode === "grid" ? "order" : mode, label: mode === "surest" ? $("of").value : "", count: missing };
    const { pictures, label } = await asked("next", { ...wanted, have: [...mine] });
    filling = false;
    if (asking === epoch) {
      const present = new Set(upcoming.map((picture) => picture.id));
      upcoming.push(...pictures.filter((picture) => !present.has(picture.id)));
      gridClass = label;
      if (!upcoming.length) held = []; // there is no picture for them
      render();
    }
    if (!waiting.length) complain(null);
  } catch (error) {
    complain(error);
  }
  filling = false;
  if (asking !== epoch) fill();
}

function preview(picture, side) {
  const key = `${picture.id}/${side}`;
  let promise = previews.get(key);
  if (promise) previews.delete(key);
  else {
    promise = ask(`picture/${key}`).then((answer) => answer.blob()).then((blob) => URL.createObjectURL(blob));
    promise.catch(() => previews.delete(key));
  }
  previews.set(key, promise); // as the latest
  const most = KEPT + (inGrid() ? 60 : 0);
  for (const [oldest, url] of previews) {
    if (previews.size <= most) break;
    previews.delete(oldest);
    url.then(URL.revokeObjectURL, () => {});
  }
  return promise;
}

// A file that cannot be decoded is left out; after any other failure, the preview is asked for again.
async function failed(picture, error) {
  if (error.status === 422) {
    if (upcoming[0]?.id === picture.id) held.shift(); // what was pressed for this picture
    upcoming = upcoming.filter((other) => other.id !== picture.id);
    selected.delete(picture.id);
    say(`Left out: ${picture.name}: ${error.message}`);
    render();
    fill();
    return;
  }
  complain(error);
  await sleep(error.status ? AGAIN : GONE);
  if (upcoming.some((other) => other.id === picture.id)) render();
}

const sideOf = () => (Math.max($("frame").clientWidth, $("frame").clientHeight) * devicePixelRatio > 1000 ? 1600 : 1000);

// What is shown

function render() {
  $("stage").hidden = inGrid();
  $("tiles").hidden = !inGrid();
  $("zoom").disabled = inGrid();
  for (const item of $("classes").children) {
    const suggestion = mode === "surest" ? gridClass : upcoming[0]?.suggested;
    item.firstChild.classList.toggle("suggested", mode !== "grid" && Boolean(suggestion) && item.dataset.name === suggestion);
  }
  const label = mode === "surest" ? gridClass : mode === "grid" ? "" : upcoming[0]?.label || upcoming[0]?.suggested;
  $("keep").hidden = !label || !upcoming.length;
  $("keep-text").textContent = mode === "surest" ? `Confirm as ${label}` : upcoming[0]?.label ? `Keep ${label}` : `Accept ${label}`;
  if (inGrid()) renderGrid();
  else renderPicture();
}

function nothing() {
  if (!state || filling) return "Loading …";
  if (mode === "surest") return "No sure suggestions here now. Sort more pictures one by one, or choose another class.";
  const { sorted, total } = state;
  return sorted >= total ? `All ${counted(total, "picture")} are sorted.` : "No more pictures here; other windows have the rest.";
}

let drawn = null; // what is shown or being loaded: picture and side
async function renderPicture() {
  const [picture] = upcoming;
  const side = $("zoom").ariaPressed === "true" ? 4000 : sideOf();
  for (const next of upcoming.slice(1)) preview(next, sideOf()).catch((error) => error.status === 422 && failed(next, error));
  $("name").textContent = picture?.name ?? "";
  $("suggestion").textContent = picture ? about(picture) : "";
  const wanted = picture ? `${picture.id}/${side}` : null;
  if (wanted && wanted === drawn) return;
  drawn = wanted;
  if (!picture || !wanted.startsWith(`${shown}/`)) {
    shown = null;
    $("picture").hidden = true;
    $("instead").hidden = false;
    $("instead").textContent = picture ? "Loading …" : nothing();
  }
  if (!picture) return;
  try {
    const url = await preview(picture, side);
    const image = new Image();
    image.src = url;
    await image.decode();
    if (drawn !== wanted) return;
    image.id = "picture";
    image.alt = picture.name;
    $("picture").replaceWith(image);
    $("instead").hidden = true;
    shown = picture.id;
    fit();
    release();
  } catch (error) {
    if (drawn !== wanted) return;
    drawn = null;
    failed(picture, error);
  }
}

function about({ suggested, probability, label, why }) {
  const likely = probability === null ? "" : percent(probability);
  if (!label) return suggested && `${suggested} ${likely}`;
  return [`labelled ${label}`, suggested && `suggested ${suggested}`, likely && `doubt ${likely}`, why].filter(Boolean).join(" · ");
}

function fit() {
  const zoomed = $("zoom").ariaPressed === "true";
  $("frame").classList.toggle("zoomed", zoomed);
  const image = $("picture");
  const wide = Math.max(image.naturalWidth, 1.5 * $("frame").clientWidth);
  image.style.width = zoomed ? `${wide}px` : "";
}

function zoom(at) {
  if (inGrid()) return;
  const on = $("zoom").ariaPressed !== "true";
  $("zoom").ariaPressed = String(on);
  fit();
  const frame = $("frame");
  const place = at ?? { x: 0.5, y: 0.5 };
  frame.scrollTo(place.x * frame.scrollWidth - frame.clientWidth / 2, place.y * frame.scrollHeight - frame.clientHeight / 2);
  renderPicture();
}

function renderGrid() {
  const grid = $("grid");
  drawn = shown = null;
  $("tiles").classList.toggle("plain", mode === "grid");
  const present = new Map([...grid.children].map((tile) => [tile.dataset.id, tile]));
  const focused = [...grid.children].indexOf(document.activeElement);
  const nodes = upcoming.map((picture) => present.get(String(picture.id)) ?? tile(picture));
  // A tile that is taken out while a key or the mouse is down gets no click, though it is put back at once: those that stay, stay.
  for (const node of [...grid.children]) if (!nodes.includes(node)) node.remove();
  nodes.forEach((node, i) => { if (grid.children[i] !== node) grid.insertBefore(node, grid.children[i] ?? null); });
  for (const node of grid.children) {
    const on = selected.has(Number(node.dataset.id));
    node.ariaPressed = String(on);
  }
  roving(Math.max(0, Math.min(focused, upcoming.length - 1)), focused >= 0);
  $("about").textContent = !upcoming.length ? nothing()
    : mode === "surest" ? `Suggested: ${gridClass}. Take out what is something else (click, or arrows and Space), then Enter confirms ${counted(selected.size, "picture")} at once.`
    : `${selected.size} selected. Select with click, Shift+click, or arrows and Space; * selects all; a class key sorts them.`;
}

function tile(picture) {
  const image = element("img", { alt: picture.name });
  const text = picture.suggested ? [element("span", { textContent: about(picture) })] : [];
  const node = element("button", { type: "button", className: "tile", title: picture.name, tabIndex: -1 },
    image, element("bdi", { textContent: picture.name }), ...text);
  node.dataset.id = picture.id;
  preview(picture, 256).then(async (url) => {
    image.src = url;
    await image.decode();
    node.dataset.loaded = "yes";
    if (mode === "surest") select(picture.id, true); // only what can be seen is confirmed
  }).catch((error) => failed(picture, error));
  return node;
}

function select(id, on) {
  const node = [...$("grid").children].find((item) => item.dataset.id === String(id));
  if (!node?.dataset.loaded) return;
  if (on) selected.add(id);
  else selected.delete(id);
  renderGrid();
}

function roving(index, focus) {
  const tiles = [...$("grid").children];
  tiles.forEach((node, i) => { node.tabIndex = i === index ? 0 : -1; });
  if (focus) tiles[index]?.focus();
}

function moveFocus(event) {
  const tiles = [...$("grid").children];
  if (!tiles.length) return;
  const columns = tiles.filter((node) => node.offsetTop === tiles[0].offsetTop).length;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
  const now = tiles.indexOf(document.activeElement);
  const next = now < 0 ? 0 : Math.max(0, Math.min(tiles.length - 1, now + step));
  roving(next, true);
  if (event.shiftKey && next !== now) select(Number(tiles[next].dataset.id), true);
}

function selectAll() {
  const ids = [...$("grid").children].filter((node) => node.dataset.loaded).map((node) => Number(node.dataset.id));
  selected = ids.every((id) => selected.has(id)) ? new Set() : new Set(ids);
  renderGrid();
}

// What the server says

function update(now) {
  state = { ...state, ...now };
  answered = Date.now();
  const { sorted, total, cannot_tell: cannot, right, judged, learner } = state;
  $("what").textContent = state.review ? "Review" : "Sort";
  $("folder").textContent = state.folder;
  $("numbers").textContent = `${sorted.toLocaleString("en")} of ${counted(total, "picture")} sorted`
    + (judged ? ` · suggestions right: ${percent(right / judged)} of ${judged.toLocaleString("en")}` : "");
  $("progress").value = total ? sorted / total : 0;
  $("cannot-count").textContent = cannot || "";
  $("learner").textContent = learner ? aboutLearner(learner) : "";
  for (const node of document.querySelectorAll(".learned")) node.hidden = !learner;
  updateClasses();
  updateOf();
  updateUnreadable();
  updateApplying();
}

function aboutLearner({ computed, total, learned_from: from, stopped }) {
  if (stopped) return stopped;
  const features = computed < total ? `features ${computed.toLocaleString("en")}/${total.toLocaleString("en")}` : "";
  if (from) return [`learned from ${from.toLocaleString("en")}`, features].filter(Boolean).join(" · ");
  const labels = state.classes.filter((known) => known.count).length;
  return [features, labels < 2 ? "suggestions need pictures of two classes" : "suggestions follow"].filter(Boolean).join(" · ");
}

function updateClasses() {
  const list = $("classes");
  const names = state.classes.map((known) => known.name);
  if (names.join("\n") !== [...list.children].map((item) => item.dataset.name).join("\n")) {
    list.replaceChildren(...names.map((label, i) => {
      const button = element("button", { type: "button" }, element("kbd", { textContent: KEYS[i] ?? "·" }),
        element("bdi", { textContent: label }), element("span", { className: "count" }));
      button.addEventListener("click", () => { decide(label); button.blur(); });
      const item = element("li", {}, button);
      item.dataset.name = label;
      return item;
    }));
    render();
    if (!names.length) say("Add the first class: press +.");
  }
  state.classes.forEach((known, i) => { list.children[i].querySelector(".count").textContent = known.count || ""; });
}

function updateOf() {
  const select = $("of");
  const labels = Object.keys(state.suggested ?? {});
  const chosen = select.value;
  if (labels.join("\n") !== [...select.options].map((option) => option.value).slice(1).join("\n")) {
    select.replaceChildren(element("option", { value: "", textContent: "any class" }), ...labels.map((label) => element("option", { value: label })));
    select.value = labels.includes(chosen) ? chosen : "";
  }
  for (const option of select.options) {
    if (option.value) option.textContent = `${option.value} (${state.suggested[option.value]})`;
  }
}

function updateUnreadable() {
  const details = $("unreadable");
  details.hidden = !state.unreadable;
  details.querySelector("summary").textContent = `${counted(state.unreadable, "file")} left out`;
  if (details.open || details.dataset.number !== String(state.unreadable)) {
    const items = state.unreadable_files.map((file) => element("li", { textContent: `${file.name}: ${file.reason}` }));
    details.querySelector("ul").replaceChildren(...items);
    details.dataset.number = state.unreadable;
  }
}

let refusal = ""; // why files could not be put into folders the last time

function updateApplying() {
  const { running, done, total, message, error } = state.applying ?? {};
  $("apply").hidden = !state.hows.length;
  $("apply").disabled = Boolean(running);
  $("applied").textContent = running ? `Putting files into folders: ${done} of ${total}` : refusal || error || message || "";
}

function askToApply() {
  const numbers = state.classes.filter((known) => known.count).map((known) => `${known.name} ${known.count}`);
  if (!numbers.length) return say("No picture is sorted yet.");
  $("confirm-text").textContent = state.review
    ? `Images whose class you have changed move into the folder of that class, in ${state.into}. All others stay where they are.`
    : `${numbers.join(", ")}, into ${state.into}. Files marked “cannot tell” stay where they are.`;
  $("file").textContent = state.file;
  $("unmoved").hidden = state.review;
  for (const input of document.getElementsByName("how")) {
    input.parentElement.hidden = !state.hows.includes(input.value);
    input.checked = input.value === state.hows[0];
  }
  $("confirm").returnValue = "";
  $("confirm").showModal();
}

async function poll() {
  const [asleep, before] = [Date.now() - answered > FORGOTTEN, state];
  try {
    update(await asked(`state?window=${name}`));
    if (gone) render(); // what could not be loaded
    gone = false;
    if (asleep && before && othersSorted(before)) {
      say(`Other windows have sorted meanwhile.${dropHeld()}`);
      restart();
    }
    if (!waiting.length) complain(null);
    if (!upcoming.length && !filling) render();
    if (upcoming.length < room() && !(mode === "surest" && upcoming.length)) fill();
    send();
  } catch (error) {
    complain(error);
    gone = !error.status;
  }
}

// While a hidden window or a sleeping computer asks nothing, its pictures go to other windows.
function othersSorted(before) {
  return state.windows > 1 || state.sorted !== before.sorted || state.last_step !== before.last_step;
}

// Keys and mouse

function choose(next) {
  if (held.length) say("Keys are waiting for pictures: wait, or take them back with Backspace, then change what is shown.");
  else if (next !== mode) show(next);
  document.querySelector(`input[name=mode][value=${mode}]`).checked = true;
}

function show(next) {
  mode = next;
  $("of").hidden = mode !== "surest";
  restart();
}

function restart() {
  epoch += 1;
  upcoming = [];
  held = [];
  selected.clear();
  if ($("zoom").ariaPressed === "true") zoom();
  render();
  fill();
}

function nextMode() {
  const usable = MODES.filter((way) => state?.learner || way === "order" || way === "grid");
  choose(usable[(usable.indexOf(mode) + 1) % usable.length]);
}

// A digit is a digit whether or not the keyboard wants Shift for it.
const digit = (event) => /^(Digit|Numpad)(\d)$/.exec(event.code)?.[2] ?? (/^\d$/.test(event.key) ? event.key : null);

function command(event) {
  const number = digit(event);
  const arrow = event.key.startsWith("Arrow");
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") return undo;
  if (event.ctrlKey || event.metaKey || event.altKey) return null;
  if (event.key === "*") return inGrid() ? selectAll : null;
  if (event.key === "+") return () => $("new").focus();
  if (event.key === ".") return nextMode;
  if (event.key === "Backspace") return undo;
  if (event.key === "Enter") return accept;
  if (event.key === " ") return inGrid() ? null : () => zoom();
  if (arrow && inGrid()) return () => moveFocus(event);
  if (arrow && $("zoom").ariaPressed === "true") return () => $("frame").scrollBy(...SCROLLS[event.key]);
  if (event.key === "ArrowRight") return skip;
  if (number === "0") return () => decide("");
  const index = KEYS.indexOf(number ?? event.key.toLowerCase());
  const label = index >= 0 && (number ?? event.key).length === 1 ? state?.classes[index]?.name : undefined;
  return label === undefined ? null : () => decide(label);
}

document.addEventListener("keydown", (event) => {
  const target = event.target;
  if ($("confirm").open || target.matches("input:not([type=radio]), select")) {
    if (event.key === "Escape") target.blur();
    return;
  }
  const onControl = target.matches("button:not(.tile), summary, input");
  if (onControl && ["Enter", " "].includes(event.key)) return;
  if (target.matches("input") && event.key.startsWith("Arrow")) return;
  if (target.matches(".tile") && event.key === " ") return; // a click
  const act = command(event);
  if (!act) return;
  event.preventDefault();
  const moves = event.key.startsWith("Arrow") && (inGrid() || $("zoom").ariaPressed === "true");
  if (!event.repeat || moves) act();
});

$("grid").addEventListener("click", (event) => {
  const node = event.target.closest(".tile");
  if (!node) return;
  const tiles = [...$("grid").children];
  const index = tiles.indexOf(node);
  const on = !selected.has(Number(node.dataset.id));
  if (event.shiftKey && anchor >= 0) {
    for (let i = Math.min(anchor, index); i <= Math.max(anchor, index); i++) select(Number(tiles[i].dataset.id), true);
  } else select(Number(node.dataset.id), on);
  anchor = index;
  roving(index, true);
});

$("frame").addEventListener("click", (event) => {
  const box = $("picture").getBoundingClientRect();
  zoom({ x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height });
});

for (const input of document.getElementsByName("mode")) {
  input.addEventListener("change", () => { choose(input.value); input.blur(); });
}
$("of").addEventListener("change", () => { $("of").blur(); restart(); });
$("add").addEventListener("submit", (event) => {
  event.preventDefault();
  addClass($("new").value.trim());
  $("new").value = "";
  $("new").blur();
});
for (const [id, act] of Object.entries({ keep: accept, cannot: () => decide(""), skip, undo, zoom: () => zoom(), apply: askToApply })) {
  $(id).addEventListener("click", () => { act(); $(id).blur(); });
}
$("confirm").addEventListener("close", async () => {
  if ($("confirm").returnValue !== "go") return;
  const how = document.querySelector("input[name=how]:checked").value;
  try {
    refusal = "";
    await asked("apply", { how });
  } catch (error) {
    refusal = error.message;
  }
  poll();
});
addEventListener("beforeunload", (event) => { if (waiting.length || held.length) event.preventDefault(); });
addEventListener("hashchange", () => location.reload());
addEventListener("pagehide", () => { ask("closed", { window: name }, { keepalive: true }).catch(() => {}); });
addEventListener("resize", () => { if (upcoming.length) render(); });

document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });

for (;;) {
  await poll();
  await sleep(gone ? GONE : POLL);
}
