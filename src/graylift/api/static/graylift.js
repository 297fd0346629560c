// Keeps the page as the server says it is: sections of HTML come by server-sent events and replace the old ones whole,
// so that a page left open for a day is as right and as small as a new one. Commands go out as JSON, after a question.
"use strict";

const away = document.getElementById("away");
let lastHeard = new Date();

function replace(id, html) {
  const section = document.getElementById(id);
  if (!section) return;
  const open = new Set([...section.querySelectorAll("details[open]")].map((one) => one.dataset.key));
  const focused = section.contains(document.activeElement) ? document.activeElement.dataset.command : null;
  section.innerHTML = html;
  for (const one of section.querySelectorAll("details")) one.open = open.has(one.dataset.key);
  if (focused) section.querySelector(`[data-command="${focused}"]`)?.focus();
}

if (document.body.dataset.stream) {
  const source = new EventSource(document.body.dataset.stream);
  source.addEventListener("sections", (event) => {
    lastHeard = new Date();
    away.hidden = true;
    for (const [id, html] of Object.entries(JSON.parse(event.data))) replace(id, html);
  });
  source.addEventListener("open", () => { away.hidden = true; });
  source.addEventListener("error", () => {
    away.textContent = `The control plane does not answer since ${lastHeard.toLocaleTimeString()}: what you see is of then. Traffic keeps its split meanwhile. Trying again…`;
    away.hidden = false;
  });
}

const steer = document.getElementById("steer");
const ask = document.getElementById("ask");
const told = document.getElementById("told");

async function command(kind, reason) {
  told.textContent = `${kind}: asked…`;
  try {
    const answer = await fetch(`/v1/releases/${encodeURIComponent(steer.dataset.release)}/commands`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ id: crypto.randomUUID(), command: kind, reason }),
    });
    const body = await answer.json();
    told.textContent = body.text ?? body.error ?? `the control plane answered ${answer.status}`;
  } catch {
    told.textContent = `${kind}: the control plane does not answer; nothing was changed by this page`;
  }
}

steer?.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-command]");
  if (!button) return;
  const kind = button.dataset.command;
  document.getElementById("ask-title").textContent = `${kind} ${steer.dataset.release}?`;
  document.getElementById("ask-meaning").textContent = button.dataset.meaning;
  document.getElementById("ask-yes").textContent = kind;
  document.getElementById("ask-reason").value = "";
  ask.returnValue = "no";
  ask.onclose = () => { if (ask.returnValue === "yes") command(kind, document.getElementById("ask-reason").value); };
  ask.showModal();
});

const login = document.getElementById("login");
login?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const headers = { "Content-Type": "application/json", Authorization: `Bearer ${document.getElementById("token").value.trim()}` };
  const answer = await fetch("/login", { method: "POST", headers, body: "{}" });
  if (answer.ok) location.assign("/");
  else document.getElementById("login-told").textContent = (await answer.json()).error;
});

const theme = document.getElementById("theme");
function show(name) {
  if (name) document.documentElement.dataset.theme = name;
}
show(localStorage.getItem("theme"));
theme.addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  localStorage.setItem("theme", dark ? "light" : "dark");
  show(localStorage.getItem("theme"));
});
