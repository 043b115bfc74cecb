// Small helps around htmx. Every page works without them.
"use strict";

(() => {
  const find = (selector, root = document) => root.querySelector(selector);
  const panel = () => find("#panel");

  // -- Times: in the viewer's zone, with the plan's own on hover.
  const toMinute = { hour: "2-digit", minute: "2-digit" };
  const day = { day: "numeric", month: "short" };
  function showTime(moment, onlyMinutes) {
    const today = moment.toDateString() === new Date().toDateString();
    const parts = { ...(today ? {} : day), ...toMinute, ...(onlyMinutes ? {} : { second: "2-digit" }) };
    return new Intl.DateTimeFormat("en-GB", parts).format(moment).replace(",", "");
  }
  function showTimes(root) {
    for (const time of root.querySelectorAll("time[datetime]:not([data-shown])")) {
      time.textContent = showTime(new Date(time.dateTime), time.dataset.to === "minute");
      time.dataset.shown = "";
    }
  }

  // -- Live: the server says that something has changed, and the page asks for its parts again. Without a stream it asks
  // every other second. The pulse tells which, and how old the data are.
  const LATE = 6; // seconds
  const SAFETY = 20; // seconds between questions while a stream is open
  const SILENT = 20; // seconds; a stream says something every 15
  const TRIES = 2; // then the page is not reconnecting any more, but polling
  const live = () => find("#live");
  const now = () => performance.now() / 1000;
  let stream = null;
  let hears = false; // the stream is open, and the server hears of changes itself
  let tries = 0;
  let openAt = 0;
  let heardAt = 0;
  let askedAt = now();
  let sentAt = now();
  let trueAt = now(); // up to then the page showed what was so
  let owed = false; // something has changed since the last question
  let asking = false;
  let quietUntil = 0; // a page that is shown again catches up at once, and need not tell how old it was
  let over = false; // signed out

  function openStream() {
    if (stream || over || document.hidden || !live()?.dataset.stream || now() < openAt) return;
    stream = new EventSource(live().dataset.stream);
    heardAt = now();
    stream.onerror = closeStream;
    for (const kind of ["resync", "change", "beat", "lost", "end"]) stream.addEventListener(kind, onEvent);
  }
  function onEvent({ type }) {
    heardAt = now();
    if (type === "resync") {
      hears = true;
      tries = 0;
    } else if (type === "lost") hears = false;
    else if (type === "end") closeStream();
    if (type !== "beat") refreshNow();
    beat();
  }
  function closeStream() {
    stream?.close();
    stream = null;
    hears = false;
    tries += 1;
    // Not all pages at once, after the server was away.
    openAt = now() + Math.min(2 ** (tries - 1), 30) * (0.5 + Math.random());
  }
  function refreshNow() {
    owed = true;
    askedAt = now();
    if (live() && !over) htmx.trigger(live(), "refresh");
  }
  function answered(good, signedOut) {
    asking = false;
    if (good) trueAt = Math.max(trueAt, sentAt);
    else owed = true;
    if (!signedOut) return;
    over = true;
    closeStream();
  }
  function beat() {
    if (stream && now() - heardAt > SILENT) closeStream();
    openStream();
    const every = hears && !owed ? SAFETY : Number(live()?.dataset.every ?? 2);
    if (!document.hidden && now() - askedAt >= every) refreshNow();
    if (hears && !owed && !asking) trueAt = now();
    if (panel()) compareTokens();
    showPulse();
  }
  function showPulse() {
    const pulse = find("#pulse");
    if (!pulse || now() < quietUntil || (!hears && tries === 0 && now() - trueAt <= LATE)) return;
    const late = Math.round(now() - trueAt);
    const way = over ? "over" : late > LATE ? "late" : hears ? "live" : tries > TRIES || !window.EventSource ? "polling" : "late";
    const word = { over: "Signed out", late: "Reconnecting", live: "Live", polling: "Polling" }[way];
    // What reads the page out must hear of the word, not of every second.
    if (find("#pulse-word").textContent !== word) find("#pulse-word").textContent = word;
    find("#pulse-age").textContent = way === "late" || way === "over" ? `: data ${late} s old` : "";
    pulse.dataset.way = way;
    pulse.classList.toggle("loud", late > LATE);
  }

  // -- What a poll cannot swap (forms) is shown anew when nobody is in the middle of something.
  function busy() {
    const fields = [...panel().querySelectorAll("input:not([type=hidden], [type=search]), textarea")];
    const written = fields.some((field) => (field.type === "checkbox" ? field.checked : field.value));
    return written || find("dialog[open]") || find("button:active, a:active, :focus:is(input, textarea, select)", panel());
  }
  function showPanel() {
    htmx.ajax("GET", panel().dataset.self, { target: "#panel", swap: "outerHTML" });
  }
  function compareTokens() {
    const token = find("#token")?.dataset.token;
    if (!token || !panel()?.dataset.token || token === panel().dataset.token) return;
    if (find(".htmx-request")) return;
    if (busy()) find("#changed")?.removeAttribute("hidden");
    else showPanel();
  }

  // -- Notices for what never reached a view.
  function tell(title, text) {
    const place = find("#notices");
    const box = document.createElement("div");
    const words = document.createElement("p");
    const strong = document.createElement("b");
    box.className = "notice loud";
    strong.textContent = title;
    words.append(strong, ` ${text}`);
    box.append(words);
    place.replaceChildren(box);
    box.scrollIntoView({ block: "nearest" });
  }

  // -- Values of a chart: under the pointer, or by the arrow keys.
  function read(plot, wanted) {
    const rows = [...plot.closest("figure").querySelectorAll("tr[data-x]")];
    const row = rows[Math.max(0, Math.min(wanted(rows), rows.length - 1))];
    const reader = find(".reader", plot);
    plot.dataset.row = rows.indexOf(row);
    reader.setAttribute("d", `M${row.dataset.x} 0V100`);
    reader.removeAttribute("hidden");
    find("output", plot).textContent = row.dataset.words;
  }
  document.addEventListener("pointermove", (event) => {
    const plot = event.target.closest?.("[data-plot]");
    if (!plot) return;
    const box = find("svg", plot).getBoundingClientRect();
    const x = (1000 * (event.clientX - box.left)) / box.width;
    const off = (row) => Math.abs(row.dataset.x - x);
    read(plot, (rows) => rows.reduce((best, row, index) => (off(row) < off(rows[best]) ? index : best), 0));
  });
  document.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const plot = event.target.closest?.("[data-plot]");
    if (!plot || !step) return;
    event.preventDefault();
    read(plot, (rows) => (plot.dataset.row === undefined ? rows.length - 1 : Number(plot.dataset.row) + step));
  });

  // -- Focus and half-read notices survive a swap of the panel.
  let trail = [];
  let kept = null;
  let swappedAt = -Infinity;

  document.addEventListener("htmx:beforeSwap", (event) => {
    const { xhr, target, requestConfig, shouldSwap } = event.detail;
    const foreign = shouldSwap && target === panel() && !xhr.responseText.includes('id="panel"');
    if (foreign || /^\s*<!doctype/i.test(xhr.responseText)) {
      // Neither a whole page nor a bare line goes into a panel: it is somebody else's answer (a proxy's).
      event.detail.shouldSwap = false;
      tell("The answer was not from Switchyard.", "Load the page again to see what is true now.");
      return;
    }
    // The past is not swapped away under somebody who reads it.
    if (target.id === "past" && find("details[open], :focus, :hover", target)) event.detail.shouldSwap = false;
    if (target !== panel()) return;
    swappedAt = performance.now(); // it is there at once, and settles a moment later
    trail = [];
    for (let node = document.activeElement; node && node !== document.body; node = node.parentElement) {
      if (node.id) trail.push(node.id);
    }
    kept = requestConfig.verb === "get" ? find("#outcome") : null;
    if (requestConfig.verb !== "get") find("#notices").replaceChildren();
  });

  // What a poll brings unchanged stays: a click that is half done, the focus and a selection with it.
  document.addEventListener("htmx:oobBeforeSwap", (event) => {
    const { target, fragment } = event.detail;
    const fresh = fragment.firstElementChild;
    const same = fresh?.dataset.same !== undefined && fresh.dataset.same === target.dataset.same;
    if (same || (fresh?.querySelector("a, button") && fresh.innerHTML === target.innerHTML)) event.detail.shouldSwap = false;
  });

  document.addEventListener("htmx:afterSettle", (event) => {
    showTimes(document);
    if (event.target !== panel()) return;
    swappedAt = performance.now();
    const outcome = find("#outcome");
    if (kept && !outcome) find("#changed")?.after(kept);
    kept = null;
    if (outcome) {
      if (!outcome.classList.contains("loud")) find("#announce").textContent = outcome.textContent.trim();
      outcome.scrollIntoView({ block: "nearest" });
    }
    if (document.activeElement === document.body) {
      for (const id of [...trail, "outcome", "main"]) {
        document.getElementById(id)?.focus({ preventScroll: true });
        if (document.activeElement !== document.body) break;
      }
    }
  });

  document.addEventListener("htmx:beforeSend", (event) => {
    if (event.detail.elt.id !== "live") return;
    owed = false;
    asking = true;
    sentAt = now();
  });
  document.addEventListener("htmx:afterRequest", (event) => {
    const { elt, successful, xhr } = event.detail;
    if (elt.id !== "live") {
      // One that failed may mean that the dashboard is away: the next question tells.
      refreshNow();
      return;
    }
    answered(successful, xhr.status === 286);
    if (successful) find("#gateway-chip")?.classList.toggle("loud", find("#gateway-state")?.dataset.loud === "yes");
    beat();
  });

  for (const kind of ["htmx:sendError", "htmx:timeout", "htmx:responseError"]) {
    document.addEventListener(kind, (event) => {
      if (event.detail.elt.id === "live") return;
      tell(
        "No answer from the dashboard.",
        "It is not known whether this was carried out. The page shows what is true as soon as it answers again.",
      );
    });
  }

  // -- The second half of a double click must not hit what has just appeared under the pointer.
  let lastClick = { at: -Infinity, x: 0, y: 0 };
  document.addEventListener("click", (event) => {
    if (event.detail > 0) {
      const still = Math.hypot(event.clientX - lastClick.x, event.clientY - lastClick.y) < 12;
      const second = still && event.timeStamp - lastClick.at < 1000 && swappedAt > lastClick.at;
      lastClick = { at: event.timeStamp, x: event.clientX, y: event.clientY };
      if (second && event.target.closest("button")) {
        event.preventDefault();
        event.stopImmediatePropagation();
        return;
      }
    }
    if (event.target.closest("[data-close]")) event.target.closest("dialog").close();
    if (event.target.closest("#show-change")) showPanel();
  }, true);
  document.addEventListener("keydown", (event) => {
    if (event.repeat && event.key === "Enter" && event.target.closest("button")) event.preventDefault();
  }, true);

  // -- A question on a page of its own becomes a dialog.
  document.addEventListener("submit", (event) => {
    const dialog = document.getElementById(event.target.dataset.dialog ?? "");
    if (!dialog) return;
    event.preventDefault();
    dialog.showModal();
  });

  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
  // A hidden page needs no stream; a browser has but six connections for all its pages.
  function pause() {
    closeStream();
    tries = openAt = 0;
  }
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      pause();
      return;
    }
    quietUntil = now() + 1.5;
    refreshNow();
    beat();
  });
  addEventListener("pagehide", pause);
  addEventListener("offline", closeStream);
  addEventListener("online", () => { tries = openAt = 0; refreshNow(); });
  setInterval(beat, 1000);
  openStream();
  showTimes(document);
})();
