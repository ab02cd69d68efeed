// Keeps the page up to date: the server says what changed, the page asks for itself anew, and only what differs is
// touched, so that focus, scroll, open details and half-typed words stay as they are.
"use strict";

(() => {
  const main = document.getElementById("main");
  const sign = document.getElementById("live");
  const topics = () => (main.dataset.live || "").split(/\s+/).filter(Boolean);
  if (!topics().length || !window.EventSource) return;

  const PACE_MS = 1000; // a page asks for itself at most this often, and less often where the answer takes long
  const PART = 10; // waiting for answers takes at most this part of the time
  let stream = null;
  let timer = 0;
  let asking = false;
  let again = false;
  let next = 0;

  const say = (text, on) => {
    if (sign.textContent !== text) sign.textContent = text;
    sign.classList.toggle("on", on);
    sign.hidden = false;
  };

  const wanted = (change) => {
    // "device" is any device, "device:x" that one; a change without a key may be about any.
    const about = (topic) => topic === "*" || topic === change.kind || topic === `${change.kind}:${change.key}` ||
      (!change.key && topic.startsWith(`${change.kind}:`));
    return topics().some(about);
  };

  const soon = () => {
    if (document.hidden || timer) return;
    timer = setTimeout(() => { timer = 0; refresh(); }, Math.max(50, next - Date.now()));
  };

  async function refresh() {
    if (asking) { again = true; return; }
    asking = true;
    const asked = Date.now();
    try {
      const answer = await fetch(location.href, { cache: "no-store", credentials: "same-origin" });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById("main");
      if (!answer.ok || answer.redirected || !fresh) return say("Not live: reload", false);
      swap(fresh);
      document.title = page.title;
      main.dataset.updates = String(Number(main.dataset.updates || 0) + 1);
    } catch {
      say("Server not reached", false);
    } finally {
      asking = false;
      next = asked + Math.max(PACE_MS, PART * (Date.now() - asked));
      if (again) { again = false; soon(); }
    }
  }

  function swap(fresh) {
    const held = document.activeElement;
    main.dataset.live = fresh.dataset.live || "";
    children(main, fresh);
    if (held && held !== document.body && !held.isConnected) main.focus({ preventScroll: true });
    document.dispatchEvent(new Event("drupelet:swapped"));
  }

  const same = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && (a.id || "") === (b.id || "");

  function children(into, from) {
    let mine = into.firstChild;
    for (let next = from.firstChild; next;) {
      const following = next.nextSibling;
      const known = next.id && into.querySelector(`:scope > #${CSS.escape(next.id)}`);
      if (known && known !== mine) into.insertBefore(known, mine), (mine = known);
      if (mine && same(mine, next)) {
        const after = mine.nextSibling;
        node(mine, next);
        mine = after;
      } else {
        into.insertBefore(document.importNode(next, true), mine);
      }
      next = following;
    }
    while (mine) { const after = mine.nextSibling; mine.remove(); mine = after; }
  }

  function node(into, from) {
    if (into.nodeType !== Node.ELEMENT_NODE) {
      if (into.nodeValue !== from.nodeValue) into.nodeValue = from.nodeValue;
      return;
    }
    if (into.isEqualNode(from) || into.hasAttribute("data-keep")) return;
    for (const { name } of [...into.attributes]) {
      if (!from.hasAttribute(name) && !(name === "open" && into.nodeName === "DETAILS")) into.removeAttribute(name);
    }
    for (const { name, value } of from.attributes) {
      if (into.getAttribute(name) !== value) into.setAttribute(name, value);
    }
    children(into, from);
  }

  const KINDS = ["device", "rollout", "release", "audit", "everything"];

  function listen() {
    if (stream || document.hidden) return;
    stream = new EventSource("/api/v1/stream");
    stream.addEventListener("hello", () => {
      say("Live", true);
      soon(); // what changed between the page and the stream was told to nobody
    });
    for (const kind of KINDS) {
      stream.addEventListener(kind, (event) => { if (wanted(JSON.parse(event.data))) soon(); });
    }
    stream.onerror = () => {
      say(stream && stream.readyState === EventSource.CLOSED ? "Not live: reload" : "Connecting again", false);
    };
  }

  // A page nobody looks at costs the server nothing.
  const rest = () => { if (stream) stream.close(); stream = null; };
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) rest();
    else { listen(); soon(); }
  });
  window.addEventListener("pagehide", rest);
  window.addEventListener("pageshow", listen);
  listen();
})();
