"use strict";
// Hover, live refresh, choosing spans and copying. Every page works without this file.

const tip = document.getElementById("tip");
let lifted = null; // the <title> whose text the tip shows, and that text

function dropTip() {
  if (lifted) lifted.title.textContent = lifted.text;
  lifted = null;
  tip.hidden = true;
}

function placeTip(event) {
  const gap = 14, box = tip.getBoundingClientRect();
  const right = event.clientX + gap + box.width < innerWidth;
  const below = event.clientY + gap + box.height < innerHeight;
  tip.style.left = Math.max(4, right ? event.clientX + gap : event.clientX - gap - box.width) + "px";
  tip.style.top = Math.max(4, below ? event.clientY + gap : event.clientY - gap - box.height) + "px";
}

document.addEventListener("pointerover", (event) => {
  const title = event.target.closest?.(".hit")?.querySelector("title");
  if (title === lifted?.title) return;
  dropTip();
  if (!title) return;
  lifted = { title, text: title.textContent };
  title.textContent = ""; // otherwise the browser shows its own beside ours
  tip.textContent = lifted.text;
  tip.hidden = false;
  placeTip(event);
});
document.addEventListener("pointermove", (event) => { if (lifted) placeTip(event); });
document.documentElement.addEventListener("pointerleave", dropTip);
addEventListener("scroll", dropTip, { passive: true });

// Makes `current` equal to `next` and touches only what differs: focus, scroll and selection stay where they are.
function morph(current, next) {
  if (current.isEqualNode(next)) return current;
  if (current.nodeType !== next.nodeType || current.nodeName !== next.nodeName) {
    current.replaceWith(next);
    return next;
  }
  if (current.nodeType !== Node.ELEMENT_NODE) {
    current.nodeValue = next.nodeValue;
    return current;
  }
  for (const { name } of [...current.attributes]) if (!next.hasAttribute(name)) current.removeAttribute(name);
  for (const { name, value } of [...next.attributes]) {
    if (current.getAttribute(name) !== value) current.setAttribute(name, value);
  }
  morphChildren(current, next);
  return current;
}

const keyOf = (node) => node.dataset?.key || node.id || null;

function morphChildren(current, next) {
  const keyed = new Map();
  for (const node of current.childNodes) if (keyOf(node)) keyed.set(keyOf(node), node);
  const wanted = new Set([...next.childNodes].map(keyOf));
  let cursor = current.firstChild;
  for (const node of [...next.childNodes]) {
    while (cursor && keyOf(cursor) && !wanted.has(keyOf(cursor))) {
      const gone = cursor;
      cursor = cursor.nextSibling;
      gone.remove();
    }
    const twin = keyOf(node) ? keyed.get(keyOf(node)) : cursor && !keyOf(cursor) ? cursor : null;
    if (!twin) {
      current.insertBefore(node, cursor);
    } else {
      if (twin !== cursor) current.insertBefore(twin, cursor);
      cursor = morph(twin, node).nextSibling;
    }
  }
  while (cursor) {
    const gone = cursor;
    cursor = cursor.nextSibling;
    gone.remove();
  }
}

function keepLive(parts, button) {
  const address = document.body.dataset.live;
  const word = document.getElementById("live-word");
  let busy = false;
  const isPaused = () => button.getAttribute("aria-pressed") === "false";
  const say = (state, text) => { button.dataset.state = state; word.textContent = text; };
  const show = (paused) => {
    button.setAttribute("aria-pressed", String(!paused));
    say(paused ? "paused" : "live", paused ? "Paused" : "Live");
  };
  async function refresh() {
    if (busy || isPaused() || document.hidden) return;
    busy = true;
    try {
      const response = await fetch(address, { cache: "no-store" });
      if (!response.ok) throw new Error(String(response.status));
      const text = await response.text();
      if (isPaused()) return;
      const scroll = [scrollX, scrollY];
      dropTip();
      const page = new DOMParser().parseFromString(`<div>${text}</div>`, "text/html");
      morphChildren(parts, page.body.firstChild);
      scrollTo(...scroll);
      document.title = document.getElementById("state").textContent.trim() + " · Stagelight";
      say("live", "Live");
    } catch {
      say("lost", "No answer");
    } finally {
      busy = false;
    }
  }
  button.hidden = false;
  show(sessionStorage.getItem("paused") === "yes");
  button.addEventListener("click", () => {
    const paused = !isPaused();
    sessionStorage.setItem("paused", paused ? "yes" : "no");
    show(paused);
    refresh();
  });
  setInterval(refresh, Number(document.body.dataset.every) * 1000);
  document.addEventListener("visibilitychange", refresh);
}

function chooseSpans(table, panel) {
  let latest = null, timer = 0;
  async function choose(link, reveal) {
    if (latest === link) return;
    latest = link;
    table.querySelector("[aria-current]")?.removeAttribute("aria-current");
    table.querySelector(".chosen")?.classList.remove("chosen");
    link.setAttribute("aria-current", "true");
    link.closest("tr").classList.add("chosen");
    try {
      const response = await fetch(link.dataset.part, { cache: "no-store" });
      if (!response.ok) throw new Error(String(response.status));
      const text = await response.text();
      if (latest !== link) return; // another one was chosen meanwhile
      panel.innerHTML = text;
      panel.scrollTop = 0;
      document.getElementById("said").textContent = panel.querySelector("h2").textContent;
      history.replaceState(null, "", link.href.split("#")[0]);
      if (reveal && panel.getBoundingClientRect().top > innerHeight * 0.8) panel.scrollIntoView({ block: "start" });
    } catch {
      location.href = link.href;
    }
  }
  table.addEventListener("click", (event) => {
    const link = event.target.closest("tbody tr")?.querySelector(".span-link");
    if (!link || event.metaKey || event.ctrlKey || event.shiftKey || event.button !== 0) return;
    event.preventDefault();
    link.focus({ preventScroll: true });
    choose(link, true);
  });
  table.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const links = [...table.querySelectorAll(".span-link")];
    const next = step && links[links.indexOf(document.activeElement) + step];
    if (!next) return;
    event.preventDefault();
    next.focus();
    clearTimeout(timer);
    timer = setTimeout(choose, 120, next, false);
  });
}

function offerCopy(button) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(document.getElementById("trace-id"));
      button.textContent = "Press Ctrl+C";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}

const find = (id) => document.getElementById(id);
if (find("live")) keepLive(find("parts"), find("live"));
if (find("fall")) chooseSpans(find("fall"), find("span"));
if (find("copy")) offerCopy(find("copy"));
