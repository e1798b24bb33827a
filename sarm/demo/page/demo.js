// The page of `replicate demo`. Texts are only ever set as text: nothing that a model, a judge or a user wrote becomes markup.
"use strict";

const $ = (id) => document.getElementById(id);
const LETTERS = ["A", "B"];
const SLIDER = {min: -2, max: 4, step: 0.05};
const LARGEST = 1000;
// Latent -> factor, in the order in which they were chosen; what was last scored.
const factors = new Map();
const explanations = new Map();
let asked = null;
let facts = null;
// At most one question is under way; the last of those that came meanwhile is asked next.
let busy = false;
let next = null;

function element(name, properties, ...children) {
  const made = document.createElement(name);
  Object.assign(made, properties);
  made.append(...children);
  return made;
}

const signed = (value) => (value === 0 ? "0" : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(4));
const plain = (value) => (value < 0 ? "−" : "") + Math.abs(value).toFixed(4);

async function post(path, content) {
  let answer, told;
  try {
    answer = await fetch(path, {method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify(content)});
    told = await answer.json();
  } catch {
    throw new Error("the demo does not answer; is it still running?");
  }
  if (!answer.ok) throw new Error(told.problem);
  return told;
}

// What was asked and what was set go wrong in places of their own: an answer that comes late must not wipe a word on a slider.
function problem(text, place = "problem") {
  $(place).textContent = text;
  $(place).hidden = !text;
}

const steerProblem = (text) => problem(text, "steer-problem");

function scaled() {
  return Object.fromEntries([...factors].filter(([, factor]) => factor !== 1));
}

async function ask() {
  if (!asked) return;
  if (busy) { next = ask; return; }
  busy = true;
  $("score").disabled = true;
  const started = performance.now();
  const late = setTimeout(() => { $("status").textContent = "The model is reading …"; }, 300);
  try {
    show(await post("score", {...asked, factors: scaled()}));
    problem("");
    $("status").textContent = `Done in ${((performance.now() - started) / 1000).toFixed(2)} s.`;
  } catch (error) {
    problem(error.message);
    $("status").textContent = "";
  } finally {
    clearTimeout(late);
    busy = false;
    $("score").disabled = false;
    document.body.dataset.asked = String(1 + Number(document.body.dataset.asked || 0));
    if (next) { const again = next; next = null; again(); }
  }
}

function submit(event) {
  event.preventDefault();
  const answers = [$("answer-a").value, $("answer-b").value];
  asked = {prompt: $("prompt").value, answers: answers[1].trim() ? answers : answers.slice(0, 1)};
  ask();
}

function show(told) {
  const parts = told.answers.map((one, place) => answerCard(one, LETTERS[place]));
  if (told.answers.length === 2) parts.push(differenceCard(told));
  $("results").replaceChildren(...parts);
  $("now").textContent = told.answers.map((one, place) => `${LETTERS[place]}: ${plain(one.reward)}`).join(" · ");
  $("steer").hidden = !facts || facts.n_latents === null;
  drawSliders();
}

function card(title, value, note) {
  const heading = element("h2", {textContent: title});
  const reward = element("p", {className: "reward", textContent: plain(value)});
  reward.dataset.value = value;
  const made = element("section", {}, heading, reward);
  for (const line of note) made.append(element("p", {className: "quiet", textContent: line}));
  return made;
}

function answerCard(one, letter) {
  const notes = [`${one.tokens} tokens with the prompt`];
  if (one.reward !== one.unscaled) notes.push(`without scaling ${plain(one.unscaled)}; the factors change it by ${signed(one.reward - one.unscaled)}`);
  const made = card(`Reward of answer ${letter}`, one.reward, notes);
  made.id = `result-${letter.toLowerCase()}`;
  if (!one.bars) {
    made.append(element("p", {textContent: "This reward model has no latents to which its reward could be traced: the reward stands alone."}));
    return made;
  }
  const rows = one.bars.map((bar) => ({...bar, value: bar.contribution, detail: detail(bar)}));
  made.append(fall(rows, {others: one.others, rest: one.rest, bias: one.bias, total: one.reward, name: "Reward"}));
  return made;
}

function differenceCard(told) {
  const [first, second] = told.answers;
  const reward = first.reward - second.reward;
  const better = reward > 0 ? "A is preferred" : reward < 0 ? "B is preferred" : "a tie";
  const made = card("Answer A minus answer B", reward, [better]);
  made.id = "result-difference";
  made.classList.add("wide");
  if (!told.difference) return made;
  const {bars, rest, others} = told.difference;
  const rows = bars.map((bar) => ({...bar, value: bar.first - bar.second, detail: `A ${signed(bar.first)}, B ${signed(bar.second)}`}));
  made.append(fall(rows, {others, rest, bias: 0, total: reward, name: "Difference"}));
  return made;
}

function detail(bar) {
  if (bar.activation === 0) return "does not fire here";
  const factor = bar.factor === 1 ? "" : ` × ${bar.factor}`;
  return `${plain(bar.activation)} × ${signed(bar.weight)}${factor}`;
}

// Rows one under another, each bar beginning where the one above ends; the last one is their sum.
function fall(rows, {others, rest, bias, total, name}) {
  const all = [];
  if (bias) all.push({label: "without any latent", value: bias, kind: "rest"});
  for (const row of rows) all.push({...row, label: `latent ${row.latent}`});
  if (others) all.push({label: others === 1 ? "1 other latent" : `${others} other latents`, value: rest, kind: "rest", id: "rest"});
  let end = 0;
  const places = all.map((row) => { const start = end; end += row.value; return [start, end]; });
  places.push([0, total]);
  const low = Math.min(0, ...places.flat()), high = Math.max(0, ...places.flat());
  const percent = (value) => (high > low ? 100 * (value - low) / (high - low) : 0);
  const list = element("ol", {className: "fall"});
  all.push({label: name, value: total, kind: "total", sum: true});
  all.forEach((row, place) => list.append(barRow(row, places[place], percent)));
  return list;
}

function barRow(row, [start, end], percent) {
  const label = element("span", {textContent: row.label});
  const cell = element("div", {className: "name"}, label);
  if (row.explanation) { explanations.set(row.latent, row.explanation); cell.append(said(row.explanation)); }
  if (row.detail) cell.append(element("span", {className: "said", textContent: row.detail}));
  const part = element("div", {className: "part"});
  if (row.kind) part.classList.add(row.kind); else if (row.value < 0) part.classList.add("down");
  const [left, right] = [percent(Math.min(start, end)), percent(Math.max(start, end))];
  part.style.left = `${left}%`;
  part.style.width = `${right - left}%`;
  part.hidden = row.value === 0;
  const zero = element("div", {className: "zero"});
  zero.style.left = `${percent(0)}%`;
  const track = element("div", {className: "track"}, zero, part);
  track.setAttribute("aria-hidden", "true");
  const number = element("span", {className: "number", textContent: row.sum ? plain(row.value) : signed(row.value)});
  const made = element("li", {className: row.sum ? "bar sum" : "bar"}, cell, track, number);
  made.dataset.value = row.value;
  if (row.latent === undefined) { made.append(element("span", {})); return made; }
  made.dataset.latent = row.latent;
  const button = element("button", {type: "button", textContent: "scale", disabled: factors.has(row.latent)});
  button.setAttribute("aria-label", `scale latent ${row.latent}`);
  button.addEventListener("click", () => choose(row.latent));
  made.append(button);
  return made;
}

function said(text) {
  const made = element("span", {className: "said", textContent: text, title: text});
  made.dir = "auto";
  return made;
}

function choose(latent) {
  if (!factors.has(latent)) factors.set(latent, 1);
  drawSliders();
  for (const button of document.querySelectorAll(`.bar[data-latent="${latent}"] button`)) button.disabled = true;
  $(`factor-${latent}`).focus();
}

function add() {
  const latent = $("latent").valueAsNumber;
  if (!Number.isInteger(latent) || latent < 0 || latent >= facts.n_latents) {
    steerProblem(`latent: give a whole number from 0 to ${facts.n_latents - 1}`);
    return;
  }
  steerProblem("");
  $("latent").value = "";
  choose(latent);
}

// Sliders are made once and kept: one that is drawn anew would lose the focus and the finger that moves it.
function drawSliders() {
  const list = $("sliders");
  for (const item of [...list.children]) if (!factors.has(Number(item.dataset.latent))) item.remove();
  for (const [latent, factor] of factors) {
    if (!$(`slider-${latent}`)) list.append(slider(latent));
    const shown = $(`factor-${latent}`);
    if (document.activeElement !== shown) shown.value = factor;
    const number = $(`number-${latent}`);
    if (document.activeElement !== number) number.value = factor;
  }
  const changed = Object.keys(scaled()).length > 0;
  $("reset").disabled = $("save").disabled = !changed;
}

function slider(latent) {
  const label = element("label", {htmlFor: `factor-${latent}`, textContent: `latent ${latent}`});
  if (explanations.has(latent)) label.append(said(explanations.get(latent)));
  const range = element("input", {type: "range", id: `factor-${latent}`, ...SLIDER, value: 1});
  const number = element("input", {type: "number", id: `number-${latent}`, step: "any", min: -LARGEST, max: LARGEST, value: 1});
  number.setAttribute("aria-label", `factor on latent ${latent}`);
  range.addEventListener("input", () => scale(latent, range.valueAsNumber));
  number.addEventListener("input", () => scale(latent, number.valueAsNumber));
  const remove = element("button", {type: "button", textContent: "remove"});
  remove.setAttribute("aria-label", `remove the factor on latent ${latent}`);
  remove.addEventListener("click", () => { factors.delete(latent); drawSliders(); $("latent").focus(); ask(); });
  const made = element("li", {className: "slider", id: `slider-${latent}`}, label, range, number, remove);
  made.dataset.latent = latent;
  return made;
}

function scale(latent, factor) {
  if (!Number.isFinite(factor) || Math.abs(factor) > LARGEST) {
    steerProblem(`latent ${latent}: give a factor from −${LARGEST} to ${LARGEST}`);
    return;
  }
  steerProblem("");
  factors.set(latent, factor);
  $("saved").textContent = "";
  drawSliders();
  ask();
}

function reset() {
  for (const latent of factors.keys()) factors.set(latent, 1);
  drawSliders();
  ask();
}

async function save() {
  try {
    const told = await post("steering", {factors: scaled()});
    const link = element("a", {href: URL.createObjectURL(new Blob([told.text], {type: "application/json"})), download: told.name});
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    const where = told.saved ? `, and as ${told.saved} where the demo runs` : "";
    $("saved").textContent = `Saved as ${told.name}${where}. Use it: replicate reward --steer ${told.saved || told.name} …`;
    steerProblem("");
  } catch (error) {
    steerProblem(error.message);
  }
}

async function open() {
  try {
    facts = await (await fetch("model")).json();
  } catch {
    problem("the demo does not answer; is it still running?");
    return;
  }
  const latents = facts.n_latents === null ? "no latents: rewards alone" : `${facts.n_latents.toLocaleString("en")} latents`;
  const explained = facts.explained ? `, ${facts.explained.toLocaleString("en")} of them explained` : "";
  $("facts").textContent = `${facts.name}: ${facts.layer} blocks, ${latents}${explained}; scored at ${facts.scored}. Everything stays on this machine.`;
  if (facts.n_latents !== null) $("latent").max = facts.n_latents - 1;
  const alive = new EventSource("open");
  alive.onerror = () => { problem("The demo has ended, or cannot be reached. Start it again with replicate demo; this page goes on then."); };
  alive.onopen = () => { if ($("problem").textContent.startsWith("The demo has ended")) problem(""); };
}

$("form").addEventListener("submit", submit);
$("form").addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("form").requestSubmit(); });
$("add").addEventListener("click", add);
$("latent").addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); add(); } });
$("reset").addEventListener("click", reset);
$("save").addEventListener("click", save);
open();
