// Reviewing: buttons and keys of the samples. Requests go one after the other, so that the last decision stays.
const list = document.querySelector("ol[data-review]");
const said = document.getElementById("said");
let sending = Promise.resolve();

const decide = (item, action) => {
  const field = item.querySelector("[name=label]");
  const decision = {number: Number(item.dataset.number), action, label: action === "accept" ? field.value : ""};
  sending = sending.then(async () => {
    const answer = await fetch(list.dataset.review, {
      method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(decision),
    });
    const now = await answer.json();
    if (!answer.ok) throw new Error(now.detail);
    item.dataset.status = item.querySelector(".state").textContent = now.status;
    item.toggleAttribute("data-reviewed", now.reviewed);
    field.value = now.label;
    document.getElementById("decided").textContent = now.decided;
    said.textContent = "";
  }).catch(error => { said.textContent = `Not saved: ${error.message}`; said.scrollIntoView({block: "nearest"}); });
};

const move = (item, by) => (by > 0 ? item.nextElementSibling : item.previousElementSibling)?.focus();

const keys = {
  j: item => move(item, 1), k: item => move(item, -1), l: item => item.querySelector("[name=label]").select(),
  a: item => { decide(item, "accept"); move(item, 1); }, r: item => { decide(item, "reject"); move(item, 1); },
  u: item => decide(item, "undo"),
};

list?.addEventListener("click", event => {
  const button = event.target.closest("button[data-action]");
  if (button) decide(button.closest("li"), button.dataset.action);
});
list?.addEventListener("keydown", event => {
  const item = event.target.closest("li");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.name === "label") {
    if (event.key === "Enter") decide(item, "accept");
    if (event.key === "Enter" || event.key === "Escape") item.focus();
  } else if (event.target === item && event.key in keys) {
    event.preventDefault();
    keys[event.key](item);
  }
});
