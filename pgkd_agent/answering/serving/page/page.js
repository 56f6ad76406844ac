"use strict";
const [form, text, key, state, table] = ["form", "#text", "#key", "#state", "#labels"].map(
  (name) => document.querySelector(name));

function say(words, isBad = false) {
  state.textContent = words;
  state.classList.toggle("bad", isBad);
}

function row(label, probability) {
  const line = document.createElement("tr");
  const cells = ["td", "td", "td"].map((name) => line.appendChild(document.createElement(name)));
  const bar = cells[2].appendChild(document.createElement("meter"));
  cells[0].textContent = label;
  cells[1].textContent = probability.toFixed(3);
  cells[1].className = "number";
  bar.value = probability;
  return line;
}

function detail(body) {
  try {
    return JSON.parse(body).detail;
  } catch {
    return body;
  }
}

function show(found) {
  table.caption.textContent = found.label ?? "No label: not sure enough";
  table.tBodies[0].replaceChildren(...found.top.map((one) => row(one.label, one.probability)));
  table.hidden = false;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  say("…");
  const headers = { "Content-Type": "application/json" };
  if (key.value) headers.Authorization = `Bearer ${key.value}`;
  const started = performance.now();
  try {
    const response = await fetch("classify", {
      method: "POST", headers, body: JSON.stringify({ text: text.value, top: 5 }),
    });
    const body = await response.text();
    if (response.ok) {
      show(JSON.parse(body).predictions[0]);
      say(`${(performance.now() - started).toFixed(0)} ms`);
      return;
    }
    if (response.status === 401) {
      key.hidden = document.querySelector("#key-label").hidden = false;
      key.focus();
    }
    say(detail(body), true);
  } catch (error) {
    say(`The server does not answer: ${error.message}`, true);
  }
});

const asked = new URLSearchParams(location.search).get("text");
if (asked) {
  text.value = asked;
  form.requestSubmit();
}
